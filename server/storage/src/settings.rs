//! What a store is told.

use std::time::Duration;

/// When a record counts as kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// When it is durable. Many writers share one sync.
    #[default]
    Always,
    /// When the system has it. It survives the end of the process; a power cut takes up to the last second, and a node that
    /// comes back after one must not vote as the member that it was.
    EverySecond,
}

/// How much room the log takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// When a record counts as kept.
    pub policy: Policy,
    /// Length of a segment; one that has to hold a larger batch is longer.
    pub segment_bytes: u64,
    /// Length of a file that is given up when the disk is full, so that the few records that cannot wait still have room.
    pub reserve_bytes: u64,
    /// How often a log on a full disk looks whether there is room again.
    pub reclaim_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            segment_bytes: 8 << 20,
            reserve_bytes: 32 << 20,
            reclaim_every: Duration::from_secs(10),
        }
    }
}
