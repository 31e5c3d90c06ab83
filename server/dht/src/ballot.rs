//! The orders everything hangs on: ballots of leaders, versions of values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a physical node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u128);

/// The right to lead: a counter, and the node that claims it. No two leaders ever share one, because a candidate writes
/// it to its own disk before it asks anybody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Higher than any counter the candidate had seen.
    pub counter: u32,
    /// Who leads.
    pub node: NodeId,
}

/// Which of two values of a key is the newer: the leader's ballot first, then its place in that leader's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The leader that wrote it.
    pub ballot: Ballot,
    /// Its place among everything written in the slot; it grows from leader to leader too.
    pub seq: u64,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:x}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.counter, self.node)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.ballot, self.seq)
    }
}

impl From<u64> for NodeId {
    fn from(number: u64) -> Self {
        Self(u128::from(number))
    }
}
