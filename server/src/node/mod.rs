//! The node's store: what everyone above asks through [`Handle`], and what answers it.
//!
//! | part | does |
//! |---|---|
//! | [`Handle`] | asynchronous calls with a deadline, over one bounded queue |
//! | `mailbox` | what waits for the core's thread, each kind with its bound |
//! | `core` | the one thread that owns `specter_dht::Node`: feeds it, and carries out what it wants |
//! | `neighbours` | which other nodes live, for those who name them to clients |
//! | `open` | starts the core on what the data directory holds |
//! | `checkpoint` `changes` `rows` | what changed goes into the snapshot now and then, so that the log may forget it |
//! | `status` | a picture of the ring and the slots, for people |
//! | [`offline`] [`restore`] | looks at a data directory whose node does not run; makes one of copies |
//!
//! Every call takes effect at one instant between call and answer, and is on the disks of a majority of the key's replicas
//! before it is answered. A node alone is a cluster of one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod changes;
mod checkpoint;
mod core;
mod handle;
pub mod limits;
mod mailbox;
mod neighbours;
pub mod offline;
mod open;
pub mod restore;
mod rows;
mod salvage;
mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use handle::Handle;
pub use neighbours::Neighbours;
pub use open::{Node, OpenError, Opening, Tuning};
pub use status::{Member, RingStatus, SlotStatus, Standing};

/// A key: at most [`limits::KEY_BYTES`]; a call with a longer one fails with [`Error::TooLarge`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Vec<u8>);

impl Key {
    /// Takes any bytes as a key.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Proves one holding of a lease. A later holder's token is larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Token(u64);

/// A lease as its holder knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// To be shown to renew, to release and as a fence.
    pub token: Token,
    /// How long it is held without a renewal, counted by the holder from *before* it sent the call.
    pub ttl: Duration,
}

/// Lets a write through only while no later holder of a lease has written to the same key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fence {
    /// The lease's key.
    pub lease: Key,
    /// The token got with it.
    pub token: Token,
}

/// Why a call to the store did not succeed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The value is not the expected one, or the lease is somebody else's. Nothing was changed.
    #[error("the key was changed by somebody else, or its lease is held by somebody else")]
    Conflict,
    /// The lease is no longer held with this token. Nothing was changed.
    #[error("the lease is no longer held")]
    Expired,
    /// A later holder of the lease wrote already. Nothing was changed.
    #[error("a later holder of the lease has written already")]
    StaleFence,
    /// A stated limit is passed; the same call can never succeed. Nothing was changed.
    #[error("{what} is larger than the store takes (limit {limit})")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// In bytes or pieces.
        limit: usize,
    },
    /// The store could not take the call in time: no majority of the key's replicas was in reach, or too much waits.
    /// Nothing was changed; the call may be repeated.
    #[error("the store did not take the request in time; nothing was changed")]
    Unavailable,
    /// Nobody can tell whether the write was done.
    #[error("the store did not say in time whether the write was done")]
    Unknown,
    /// The disk is full or fails. Nothing was changed; reads still work.
    #[error("the store takes no writes: the disks of the key's replicas are full or fail")]
    ReadOnly,
    /// The node is shutting down. Nothing was changed.
    #[error("the node is shutting down")]
    Draining,
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn retry(&self) -> bool {
        match self {
            Self::Unavailable | Self::Unknown | Self::ReadOnly => true,
            Self::Conflict | Self::Expired | Self::StaleFence | Self::TooLarge { .. } | Self::Draining => false,
        }
    }
}
