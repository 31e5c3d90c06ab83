//! How long to wait before the next try. PURE: the random number is an argument. Called by `links` and `tunnel`.

use std::time::Duration;

/// Exponential delays with full jitter: each lies anywhere between nothing and a ceiling that doubles.
///
/// A thousand clients that lose the same node at once spread over the whole span instead of returning in step
/// (AWS Architecture Blog, "Exponential Backoff and Jitter").
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure, for a random number that is even over all of `u32`.
    pub(crate) fn delay(&mut self, random: u32) -> Duration {
        let ceiling = FIRST_CEILING.saturating_mul(1 << self.failures.min(DOUBLINGS)).min(LAST_CEILING);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Failures since the start or the last steady success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts over if what failed had worked for at least [`STEADY`] before.
    pub(crate) fn worked_for(&mut self, duration: Duration) {
        if duration >= STEADY {
            self.failures = 0;
        }
    }
}

/// Ceiling of the first delay.
const FIRST_CEILING: Duration = Duration::from_millis(200);

/// Ceiling of every late delay: an outage of hours costs a node two tries a minute and client.
const LAST_CEILING: Duration = Duration::from_secs(30);

/// Enough doublings to reach the last ceiling.
const DOUBLINGS: u32 = 8;

/// What lived shorter than this counts as failed again, so that a node which drops links at once is not stormed.
const STEADY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_double_from_a_fifth_of_a_second_to_thirty() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..10).map(|_| backoff.delay(u32::MAX).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
    }

    #[test]
    fn only_a_steady_success_starts_over() {
        let mut backoff = Backoff::default();
        backoff.delay(0);
        backoff.worked_for(Duration::from_secs(1));
        assert_eq!(backoff.delay(u32::MAX), Duration::from_millis(400));
        backoff.worked_for(Duration::from_secs(10));
        assert_eq!(backoff.delay(u32::MAX), Duration::from_millis(200));
    }

    proptest! {
        #[test]
        fn a_delay_never_passes_its_ceiling(failures in 0..1000_u32, random: u32) {
            let mut backoff = Backoff { failures };
            prop_assert!(backoff.delay(random) <= LAST_CEILING);
        }
    }
}
