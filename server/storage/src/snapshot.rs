//! The state that the log is replayed over, and how the log gets shorter.
//!
//! A checkpoint writes what changed since the last one, in one transaction that also says up to which record it is true.
//! Only when that was read back may the log forget those records. A crash in between leaves the old snapshot with the whole
//! log, or the new one with records that it has already.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;

use crate::{
    identity::Unreadable,
    recover::{ANEW, way_out},
};

/// A snapshot: [`crate::sqlite::Sqlite`], or one in memory that fails on request.
pub trait Snapshot {
    /// Hands out every row, and returns the last record that they hold.
    ///
    /// # Errors
    /// The first row that cannot be read. What was handed out is void.
    fn load(&mut self, each: &mut dyn FnMut(Row<'_>)) -> Result<u64, SnapshotError>;

    /// Makes all changes, which are true up to a record, or none. They are durable when this returns.
    ///
    /// # Errors
    /// [`SnapshotError`] tells whether anything may have been changed.
    fn commit(&mut self, lsn: u64, changes: &[Change<'_>]) -> Result<(), SnapshotError>;

    /// The last record that the rows hold, read from the file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn lsn(&mut self) -> Result<u64, SnapshotError>;
}

/// What a snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Row<'a> {
    /// A register of a slot.
    Register {
        /// The slot.
        slot: u16,
        /// Its key in the slot.
        key: &'a [u8],
        /// Its version.
        version: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// What a slot has beside its registers.
    Slot {
        /// The slot.
        slot: u16,
        /// What it has.
        meta: &'a [u8],
    },
}

/// One change of a snapshot. Later ones build on earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change<'a> {
    /// Puts a row in place of the one of the same slot and key.
    Put(Row<'a>),
    /// Removes a register.
    Remove {
        /// The slot.
        slot: u16,
        /// The key.
        key: &'a [u8],
    },
    /// Removes a slot with all its registers.
    Drop {
        /// The slot.
        slot: u16,
    },
}

/// Proof that a snapshot was read back as durable up to a record: what the log may forget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved(u64);

impl Saved {
    /// The last record whose effect the snapshot holds.
    pub fn lsn(&self) -> u64 {
        self.0
    }
}

/// Writes a checkpoint: the changes of all records since the last one, up to `lsn`, which the log has made durable.
///
/// It may take as long as the disk needs; records go on meanwhile. After an error the same changes are tried again with
/// those that came since.
///
/// # Errors
/// [`SnapshotError`]; the log keeps everything.
pub fn checkpoint(snapshot: &mut impl Snapshot, lsn: u64, changes: &[Change<'_>]) -> Result<Saved, SnapshotError> {
    snapshot.commit(lsn, changes)?;
    match snapshot.lsn()? {
        found if found == lsn => Ok(Saved(lsn)),
        found => Err(SnapshotError::ReadBack { written: lsn, found }),
    }
}

/// A log is written down when it is longer than this.
pub const LOG_BYTES_MAX: u64 = 64 << 20;

/// A log below this is never long for its data.
const LOG_BYTES_SMALL: u64 = 8 << 20;

/// How long a log goes on at most, however short it is.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(600);

/// Whether it is time for a checkpoint.
pub fn is_due(log_bytes: u64, live_bytes: u64, since_last: Duration) -> bool {
    let long = live_bytes.saturating_mul(4).clamp(LOG_BYTES_SMALL, LOG_BYTES_MAX);
    log_bytes > long || since_last >= CHECKPOINT_EVERY
}

/// Why a snapshot cannot be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The disk is full. Nothing was changed; a later try may succeed.
    #[error("the disk is full; free some space on the disk of the data directory, and the node goes on by itself")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another program has locked the file. Nothing was changed; a later try may succeed.
    #[error("another program holds the snapshot {}; end it, and the node goes on by itself", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened, read or written. Whether a commit took place is not known before it is opened anew.
    #[error("the snapshot {} cannot be used; check the disk and the rights of this user", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Damaged, or of another version.
    #[error("the snapshot {} cannot be used: {reason}; {}", path.display(), way_out(.reason))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Unreadable,
    },
    /// A row whose checksum is wrong.
    #[error("the snapshot {} is damaged in slot {slot}; {ANEW}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Where.
        slot: u16,
    },
    /// Another node's or another program's file.
    #[error("the snapshot {} belongs to another node or program; give each node a --data-dir of its own", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold what was just written.
    #[error("the snapshot says that it ends at record {found}, and it was written up to {written}; check the disk")]
    ReadBack {
        /// What was written.
        written: u64,
        /// What was read.
        found: u64,
    },
}

impl SnapshotError {
    /// Whether rows that were durable are gone; else the file is another's or out of reach.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Unreadable { reason, .. } => *reason == Unreadable::Damaged,
            Self::Row { .. } => true,
            Self::Full(_) | Self::Busy { .. } | Self::Failed { .. } | Self::Foreign { .. } | Self::ReadBack { .. } => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_log_is_written_down_when_it_is_long_for_its_data_or_old() {
        assert!(!is_due(8 << 20, 0, MINUTE));
        assert!(is_due((8 << 20) + 1, 0, MINUTE));
        assert!(!is_due(39 << 20, 10 << 20, MINUTE));
        assert!(is_due(41 << 20, 10 << 20, MINUTE));
        assert!(is_due(65 << 20, u64::MAX, MINUTE));
        assert!(is_due(0, 0, 10 * MINUTE));
    }
}
