//! Pure: how much a client may ask. It is never refused, only answered later, and nobody else waits for it.

use super::session::Step;
use std::time::{Duration, Instant};

/// Names that a client may ask about at once: it starts with 1,024 tunnels, loses its links and starts again, and no request
/// waits.
const BURST: u32 = 4_096;

/// Then each takes so long: the store does many more, for many more clients.
const EACH: Duration = Duration::from_millis(8);

/// A certificate costs a signature.
const CERTIFICATE: u32 = 16;

/// What one client has asked, on all its links together.
#[derive(Debug)]
pub(crate) struct Budget {
    /// When all that was asked will have been earned.
    earned: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { earned: now }
    }

    /// Takes so much, and tells how long to wait before it is done.
    pub(crate) fn spend(&mut self, now: Instant, cost: u32) -> Duration {
        self.earned = self.earned.max(now) + EACH * cost;
        (self.earned - now).saturating_sub(EACH * BURST)
    }

    /// Whether everything is earned: the same as a new one.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        self.earned <= now
    }
}

/// What a step costs: as many as the names that it is about.
pub(super) fn cost(step: &Step) -> u32 {
    use super::Ask;
    let names = match step {
        Step::Welcome { .. } | Step::Prove { .. } | Step::Alive { .. } | Step::Refuse(_) => return 1,
        Step::Renew => return CERTIFICATE,
        Step::Ask { ask, .. } => match ask {
            Ask::Hostnames { .. } => 1,
            Ask::Claim { count } => *count,
            Ask::Publish { tunnels } => tunnels.len(),
            Ask::Unpublish { hostnames } | Ask::Release { hostnames } => hostnames.len(),
        },
    };
    u32::try_from(names).unwrap_or(BURST).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::registry::TUNNELS_PER_LINK;
    use specter_wire::limits::BATCH;

    #[test]
    fn everything_that_a_client_has_is_claimed_and_published_at_once_and_again() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        // Claimed on one link, published on three.
        for _ in 0..4 * TUNNELS_PER_LINK / BATCH {
            assert_eq!(budget.spend(now, BATCH as u32), Duration::ZERO);
        }
    }

    #[test]
    fn a_client_that_never_stops_asking_waits_and_has_its_burst_again_later() {
        let mut now = Instant::now();
        let mut budget = Budget::new(now);
        assert_eq!(budget.spend(now, BURST), Duration::ZERO);
        for _ in 0..100 {
            let wait = budget.spend(now, 64);
            assert!(wait <= EACH * 64);
            now += wait;
        }
        now += EACH * BURST;
        assert_eq!(budget.spend(now, BURST), Duration::ZERO);
    }
}
