//! The spans and bounds of the ring.

use std::time::Duration;

/// How patient the ring is, and how much it keeps.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many distinct machines a successor list holds.
    pub successors: usize,
    /// How often a virtual node talks to its successor.
    pub stabilize: Duration,
    /// How long a machine may be silent before the ring goes on without it.
    pub silence: Duration,
    /// How long a step of a lookup may take before the next best machine is asked.
    pub hop: Duration,
    /// How often a machine of the peer book that is not among the neighbours is greeted, and a seed.
    pub probe: Duration,
    /// For how long a machine that did not answer is not taken in on the word of others.
    pub quarantine: Duration,
    /// For how long a machine that nobody hears of stays in the peer book.
    pub memory: Duration,
    /// The most rows of the peer book.
    pub book: usize,
    /// The most lookups at a time.
    pub lookups: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            successors: 16,
            stabilize: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            hop: Duration::from_millis(500),
            probe: Duration::from_secs(10),
            quarantine: Duration::from_secs(10),
            memory: Duration::from_secs(24 * 3600),
            book: 1024,
            lookups: 256,
        }
    }
}
