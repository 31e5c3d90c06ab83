//! The state that the log is replayed over.

/// Proof that a snapshot was read back as durable up to a record: what the log may forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved(u64);

impl Saved {
    /// The last record whose effect the snapshot holds.
    pub fn lsn(&self) -> u64 {
        self.0
    }
}
