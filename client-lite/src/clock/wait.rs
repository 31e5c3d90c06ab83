//! Routers start in 1970 and are told the time later, if at all. Certificates cannot be judged until then, and a trusted answer
//! to take the time from cannot be had without them; so the client says so and goes on as soon as the time is there.

use super::{Date, date_of, is_unset};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

/// What the clock says, if that cannot be the time.
pub(crate) fn unset() -> Option<Date> {
    let now_s = now_unix_s();
    is_unset(now_s).then(|| date_of(now_s))
}

/// Waits until the clock was set, at most for a while.
pub(crate) async fn until_set(at_most: Duration) {
    let end = Instant::now() + at_most;
    while unset().is_some() {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return;
        }
        sleep(rest.min(LOOK)).await;
    }
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A system tells nobody that its clock was set.
const LOOK: Duration = Duration::from_millis(500);
