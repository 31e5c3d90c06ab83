//! Notices that the machine slept. PURE: both clocks are arguments.
//!
//! The clock that timers run by stands still in a sleep, so no timeout tells; the calendar goes on. A calendar that was
//! set forward looks the same: it costs a question to each node, and certificates may hold from then on.

use std::time::{Duration, Instant, SystemTime};

/// Both clocks at the last look.
#[derive(Debug)]
pub(super) struct Watchman {
    seen: (Instant, SystemTime),
}

impl Watchman {
    pub(super) fn new(now: Instant, calendar: SystemTime) -> Self {
        Self { seen: (now, calendar) }
    }

    /// Whether the calendar has gone on by more than the clock since the last look.
    pub(super) fn woke(&mut self, now: Instant, calendar: SystemTime) -> bool {
        let (then, calendar_then) = std::mem::replace(&mut self.seen, (now, calendar));
        let passed = now.saturating_duration_since(then);
        // A calendar that was set back tells nothing.
        calendar.duration_since(calendar_then).is_ok_and(|by_calendar| by_calendar >= passed + SLEEP)
    }
}

/// Shorter sleeps break nothing.
const SLEEP: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_calendar_that_runs_ahead_means_sleep() {
        let (now, calendar, s) = (Instant::now(), SystemTime::now(), Duration::from_secs);
        let mut watchman = Watchman::new(now, calendar);
        assert!(!watchman.woke(now + s(5), calendar + s(5)));
        assert!(watchman.woke(now + s(10), calendar + s(3600)));
        assert!(!watchman.woke(now + s(15), calendar + s(3605)));
        assert!(!watchman.woke(now + s(20), calendar));
        assert!(!watchman.woke(now + s(3600), calendar + s(3581)));
    }
}
