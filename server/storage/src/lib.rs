//! What a node promised, on its disk.
//!
//! An append-only log in segments, replayed over a snapshot. A [`record::Entry`] is bytes to this crate; what they mean
//! is the caller's.
//!
//! A start reads the snapshot ([`sqlite::Sqlite`]), then the log after it ([`recover::open`]), and hands the log to a
//! [`writer::Writer`]. Now and then [`snapshot::checkpoint`] writes what changed, and the log forgets it.
//!
//! [`inspect`] looks at a directory without a change, [`copy`] makes a backup of one, of a running node too, and
//! [`salvage`] reads what it can of a damaged one.
//!
//! | in the data directory | what |
//! |---|---|
//! | `LOCK` | held by the process that has it open |
//! | `IDENTITY` | whose it is |
//! | `BOOT` | the last start, and how it ended |
//! | `RESERVE` | given up when the disk is full |
//! | `log/` | segments, named after their first record; the end that the last crash tore |
//! | `snap.db` | the snapshot |

pub mod copy;
pub mod disk;
#[cfg(any(test, feature = "fault"))]
pub mod fault;
pub mod identity;
pub mod inspect;
pub mod log;
pub mod record;
pub mod recover;
pub mod salvage;
mod scan;
pub mod segment;
pub mod settings;
pub mod snapshot;
pub mod sqlite;
pub mod writer;

#[cfg(test)]
mod tests;
