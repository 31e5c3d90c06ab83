//! What a node promised, on its disk.
//!
//! An append-only log in segments, replayed over a snapshot. A [`record::Entry`] is bytes to this crate; what they mean
//! is the caller's.

pub mod disk;
#[cfg(any(test, feature = "fault"))]
pub mod fault;
pub mod identity;
pub mod log;
pub mod record;
pub mod recover;
mod scan;
pub mod segment;
pub mod settings;
pub mod snapshot;
pub mod sqlite;
pub mod writer;

#[cfg(test)]
mod tests;
