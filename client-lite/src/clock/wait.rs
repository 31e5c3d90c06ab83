//! Routers start in 1970 and are told the time later, if at all. Certificates cannot be judged until then, and a trusted answer
//! to take the time from cannot be had without them; so the client says so, and `tunnel` goes on as soon as the clock leaps.

use super::{Date, date_of, is_unset};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the clock says, if that cannot be the time.
pub(crate) fn unset() -> Option<Date> {
    let now_s = now_unix_s();
    is_unset(now_s).then(|| date_of(now_s))
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
