//! What a run comes to.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use thiserror::Error;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The history of a key could not have happened one operation at a time.
    #[error("the history of key {0} is not linearizable")]
    NotLinearizable(String),
    /// An answer rests on something that a quorum does not have on its disks.
    #[error("{0}")]
    NotDurable(String),
    /// A node went back on its word.
    #[error("{0}")]
    PromiseFell(String),
    /// Two values of a key bear the same version.
    #[error("{0}")]
    TwoValues(String),
    /// The tokens of a lease do not grow.
    #[error("{0}")]
    TokenFell(String),
    /// Two clients held a lease at once.
    #[error("{0}")]
    TwoHolders(String),
    /// A write got in under an older lease than one before it.
    #[error("{0}")]
    StaleFence(String),
    /// A node that is out kept keys.
    #[error("{0}")]
    Retired(String),
    /// A sound node's message was taken for an unsound one's.
    #[error("{0}")]
    Refused(String),
    /// The slot did not recover after the faults had stopped.
    #[error("{0}")]
    Stuck(String),
}

/// The hash of everything that happened (FNV-1a, 64 bits).
#[derive(Clone, Copy, Debug)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    /// Takes one thing in.
    pub fn feed(&mut self, thing: &impl Hash) {
        thing.hash(self);
    }
}

impl Hasher for Trace {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29);
    }

    // The width of a pointer is no part of what happened.
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// What a run comes to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first broken promise, and when it was noticed, in microseconds.
    pub violation: Option<(Violation, u64)>,
    /// The hash of everything that happened.
    pub trace: Trace,
    /// Simulated time, in microseconds.
    pub micros: u64,
}

impl Outcome {
    /// Counts one thing.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.micros += other.micros;
        self.trace.feed(&other.trace.finish());
    }
}
