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

/// Longest time a lease may be held without renewal; longer wishes are cut to it.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(3600);

/// Most leases that may ever guard one key. One is usual; the list is kept as long as the key, so it needs a bound.
pub const FENCES: usize = 8;

/// How many writes of a key are remembered to answer retries.
pub const RECENT: usize = 8;

/// How long an empty register is kept to answer retries of its last writes. Retries are promised for 30 s.
pub const RETRY_WINDOW: Duration = Duration::from_secs(60);

/// How long a call waits unless it says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Calls that may wait for the store thread. When they are that many, further callers wait for a place until their
/// deadline.
pub const QUEUE: usize = 1024;

/// Most calls committed in one transaction: bounds how long the first of them waits for the last.
pub const BATCH_CALLS: usize = 512;

/// Most bytes of values and children written in one transaction.
pub const BATCH_BYTES: usize = 1 << 20;
