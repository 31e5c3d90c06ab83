//! By which way nodes are dialled: over UDP, or over TCP where no UDP gets through. PURE: the time is an argument.
//!
//! UDP is dialled first and TCP beside it when no answer comes. Where only TCP answers it is dialled at once from then on,
//! UDP still beside it, and links over TCP go back when a trial over UDP alone is answered.

use super::random::Random;
use std::time::{Duration, Instant};

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// QUIC as it is.
    Udp,
    /// QUIC's packets in TLS on TCP.
    Tcp,
}

/// What the configuration lets links be carried by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Transport {
    /// UDP, or TCP where that is blocked.
    #[default]
    Auto,
    /// UDP alone.
    Quic,
    /// TCP alone.
    Tcp,
}

impl Transport {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "quic" => Some(Self::Quic),
            "tcp" => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// How an address is dialled. Whoever answers first has the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Whether UDP is dialled, at once.
    pub(crate) udp: bool,
    /// After which time without an answer TCP is dialled beside it.
    pub(crate) tcp_after: Option<Duration>,
}

impl Plan {
    /// For somebody who knows nothing of the network yet.
    pub(crate) fn first(transport: Transport) -> Self {
        Ways::new(transport).plan(None)
    }

    /// UDP or nothing.
    pub(super) fn trial() -> Self {
        Self { udp: true, tcp_after: None }
    }
}

/// What is known of the network.
#[derive(Debug)]
pub(super) struct Ways {
    transport: Transport,
    /// Whether TCP answered where UDP did not, and UDP nowhere.
    blocked: bool,
    /// When UDP is tried again for links over TCP, if there are any.
    try_at: Option<Instant>,
    pause: Duration,
}

impl Ways {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, blocked: false, try_at: None, pause: TRIAL_FIRST }
    }

    /// How to dial, with the round trip of the farthest node that has a link.
    pub(super) fn plan(&self, rtt: Option<Duration>) -> Plan {
        let patience = rtt.map_or(HEAD_START_MAX, |rtt| (rtt * 3).clamp(HEAD_START_MIN, HEAD_START_MAX));
        match self.transport {
            Transport::Quic => Plan::trial(),
            Transport::Tcp => Plan { udp: false, tcp_after: Some(Duration::ZERO) },
            Transport::Auto if self.blocked => Plan { udp: true, tcp_after: Some(Duration::ZERO) },
            Transport::Auto => Plan { udp: true, tcp_after: Some(patience) },
        }
    }

    /// A node answered. `udp_serves` tells whether any link is carried by UDP.
    pub(super) fn answered(&mut self, now: Instant, way: Way, udp_serves: bool, random: &mut Random) {
        match way {
            Way::Udp => {
                self.blocked = false;
                // Links that are still on TCP need not stay there.
                self.pause = TRIAL_FIRST;
                self.try_at = self.try_at.map(|_| now);
            }
            Way::Tcp => {
                self.blocked = !udp_serves;
                if self.transport == Transport::Auto {
                    self.try_at.get_or_insert(now + random.around(self.pause));
                }
            }
        }
    }

    /// A trial begins: the next one comes later, and later each time.
    pub(super) fn tried(&mut self, now: Instant, random: &mut Random) {
        self.pause = (self.pause * 2).min(TRIAL_MAX);
        self.try_at = Some(now + random.around(self.pause));
    }

    /// When UDP is to be tried, if there are links over TCP.
    pub(super) fn try_at(&self) -> Option<Instant> {
        self.try_at
    }

    /// No link is over TCP any more.
    pub(super) fn none_over_tcp(&mut self) {
        (self.try_at, self.pause) = (None, TRIAL_FIRST);
    }

    /// The machine may be in another network.
    pub(super) fn forgive(&mut self, now: Instant) {
        (self.blocked, self.pause) = (false, TRIAL_FIRST);
        self.try_at = self.try_at.map(|_| now);
    }
}

/// What UDP gets before TCP is dialled beside it: three round trips as far as known. In a second, QUIC has repeated its first
/// packet twice.
const HEAD_START_MIN: Duration = Duration::from_millis(250);
const HEAD_START_MAX: Duration = Duration::from_secs(1);

/// About this long after a link came up over TCP, UDP is tried; then half as often each time, down to the second.
const TRIAL_FIRST: Duration = Duration::from_secs(15);
const TRIAL_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_waits_for_udp_until_udp_is_known_to_be_blocked() {
        let (now, mut random) = (Instant::now(), Random::new(1));
        let after = |ways: &Ways, rtt_ms: Option<u64>| ways.plan(rtt_ms.map(Duration::from_millis)).tcp_after;
        let mut ways = Ways::new(Transport::Auto);
        assert_eq!(after(&ways, None), Some(HEAD_START_MAX));
        assert_eq!(after(&ways, Some(1)), Some(HEAD_START_MIN));
        assert_eq!(after(&ways, Some(200)), Some(Duration::from_millis(600)));
        assert_eq!(after(&ways, Some(9000)), Some(HEAD_START_MAX));
        // One node that only TCP reaches says nothing of the network.
        ways.answered(now, Way::Tcp, true, &mut random);
        assert_eq!(after(&ways, None), Some(HEAD_START_MAX));
        ways.answered(now, Way::Tcp, false, &mut random);
        assert_eq!(ways.plan(None), Plan { udp: true, tcp_after: Some(Duration::ZERO) });
        ways.answered(now, Way::Udp, false, &mut random);
        assert_eq!(after(&ways, None), Some(HEAD_START_MAX));
    }

    #[test]
    fn a_setting_leaves_no_choice() {
        let (now, mut random) = (Instant::now(), Random::new(1));
        for way in [Way::Udp, Way::Tcp] {
            let mut ways = Ways::new(Transport::Quic);
            ways.answered(now, way, false, &mut random);
            assert_eq!(ways.plan(None), Plan { udp: true, tcp_after: None });
            let mut ways = Ways::new(Transport::Tcp);
            ways.answered(now, way, false, &mut random);
            assert_eq!((ways.plan(None).udp, ways.try_at()), (false, None));
        }
    }

    #[test]
    fn udp_is_tried_ever_more_seldom_and_at_once_after_a_success_or_a_sleep() {
        let (now, mut random) = (Instant::now(), Random::new(1));
        let mut ways = Ways::new(Transport::Auto);
        assert_eq!(ways.try_at(), None);
        ways.answered(now, Way::Tcp, false, &mut random);
        let mut pauses = Vec::new();
        let mut at = now;
        for _ in 0..12 {
            let next = ways.try_at().expect("a link is over TCP");
            pauses.push((next - at).as_secs_f64());
            at = next;
            ways.tried(at, &mut random);
        }
        assert!((7.5..=22.5).contains(&pauses[0]), "{pauses:?}");
        assert!((300.0..=900.0).contains(&pauses[11]), "{pauses:?}");
        ways.forgive(at);
        assert_eq!(ways.try_at(), Some(at));
        ways.tried(at, &mut random);
        ways.answered(at, Way::Udp, true, &mut random);
        assert_eq!(ways.try_at(), Some(at));
        ways.none_over_tcp();
        assert_eq!(ways.try_at(), None);
    }
}
