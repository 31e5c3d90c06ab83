//! Sizes, counts and times that bound what the store holds and how long a call waits.

use std::time::Duration;

/// Longest key, and longest name of a lease's owner, in bytes.
pub const KEY_BYTES: usize = 512;

/// Longest value in bytes.
pub const VALUE_BYTES: usize = 64 * 1024;

/// Longest child of a set in bytes.
pub const CHILD_BYTES: usize = 512;

/// Most children of one key's set.
pub const CHILDREN: usize = 4096;

/// Most bytes of one key's value and set together.
pub const REGISTER_BYTES: usize = 256 * 1024;

/// Longest time a lease may be held without renewal; longer wishes are cut to it.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(3600);

/// How long a call waits unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Calls that may wait for the core; further ones fail at once.
pub const QUEUE: usize = 1024;

/// Pictures of the ring that may be asked for at a time.
pub const LOOKS: usize = 8;

/// Addresses at which other nodes may be found.
pub const SEEDS: usize = 64;

/// Most calls taken at a time: bounds how long what comes from other nodes waits for them.
pub const BATCH_CALLS: usize = 512;

/// Packets of other nodes that may wait, and their bytes; further ones are lost, and sent again by whoever needs them.
pub const PACKETS: usize = 1024;
/// See [`PACKETS`].
pub const PACKETS_BYTES: usize = 32 << 20;

/// How long calls in progress may take when the node stops.
pub const STOP: Duration = Duration::from_secs(2);

/// Other nodes that are told of at most. The ring knows of fewer, unless it has seen many come and go lately.
pub const NEIGHBOURS: usize = 256;
