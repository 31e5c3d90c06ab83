//! The spans and bounds of a node.

use std::time::Duration;

use crate::{kv, ring};

/// How patient a node is, and how much it takes at a time.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of its part in the ring.
    pub ring: ring::Settings,
    /// Of its part in each slot.
    pub slot: kv::Settings,
    /// How often a leader looks up who should keep its slot.
    pub placement: Duration,
    /// For how long the ring must have wanted other members before they are changed, when that costs little: the slot lacks
    /// members, or keeps little.
    pub light_hold_off: Duration,
    /// The most bytes of a slot that keeps little.
    pub light_bytes: usize,
    /// The same hold-off for a slot that keeps more, when all present members are alive.
    pub join_hold_off: Duration,
    /// The same when a present one is silent: it may only restart.
    pub crash_hold_off: Duration,
    /// How many slots a node changes at a time: each costs its members some messages.
    pub changing: usize,
    /// How many bytes of slots that change may be on their way; one slot at least.
    pub changing_bytes: usize,
    /// How long one attempt of a request may take before another node is asked.
    pub attempt: Duration,
    /// The same of a request that any replica can answer.
    pub hint_attempt: Duration,
    /// The shortest and the longest wait between two rounds of attempts.
    pub retry: (Duration, Duration),
    /// How many requests of its users, and how many of other nodes, a node takes at a time.
    pub requests: usize,
    /// The most bytes of a packet, roughly; a single larger part still goes.
    pub packet_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ring: ring::Settings::default(),
            slot: kv::Settings::default(),
            placement: Duration::from_secs(10),
            light_hold_off: Duration::from_millis(500),
            light_bytes: 64 << 10,
            join_hold_off: Duration::from_secs(30),
            crash_hold_off: Duration::from_secs(60),
            changing: 64,
            changing_bytes: 1 << 20,
            attempt: Duration::from_secs(1),
            hint_attempt: Duration::from_millis(150),
            retry: (Duration::from_millis(20), Duration::from_secs(1)),
            requests: 4096,
            packet_bytes: 256 * 1024,
        }
    }
}
