//! Checkpoints, as `server/src/node/checkpoint.rs` has them, without a thread and a clock.

use std::ops::RangeInclusive;

use specter_dht::{Node, Record, codec, kv::Slot};
use specter_storage::{
    fault::FaultSnapshot,
    snapshot::{Saved, Snapshot as _, SnapshotError, checkpoint},
};

use super::{
    changes::{Gathered, Tracker},
    rows::Encoded,
};

/// What changed since the last checkpoint, and the one that is under way.
#[derive(Debug)]
pub(super) struct Checkpoints {
    tracker: Tracker,
    under_way: Option<UnderWay>,
    /// What the snapshot may be true up to: one record, or after failures a later one.
    saved_lsn: RangeInclusive<u64>,
}

#[derive(Debug)]
struct UnderWay {
    lsn: u64,
    gathered: Gathered,
    /// Its records are durable, and it is about to be written.
    is_ready: bool,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self::new(Tracker::default(), 0)
    }
}

impl Checkpoints {
    /// Of a node whose snapshot is true up to a record.
    pub(super) const fn new(tracker: Tracker, lsn: u64) -> Self {
        Self { tracker, under_way: None, saved_lsn: lsn..=lsn }
    }

    /// The node has another record.
    pub(super) fn note(&mut self, record: &Record) {
        self.tracker.note(record);
    }

    /// Begins one if it is time, and tells when one that was begun can be written down.
    pub(super) fn go_on(&mut self, node: &Node, is_due: bool, position: u64, durable_lsn: u64) -> bool {
        if is_due {
            self.begin(node, position);
        }
        let ready = self.under_way.as_mut().filter(|job| !job.is_ready && job.lsn <= durable_lsn);
        ready.map(|job| job.is_ready = true).is_some()
    }

    /// Begins one, unless one is under way or nothing has changed.
    pub(super) fn begin(&mut self, node: &Node, position: u64) {
        if self.under_way.is_some() || !self.tracker.has_changes() {
            return;
        }
        let gathered = self.tracker.gather(node.terms(), |slot| node.slots().get(&slot).map(Slot::state));
        self.under_way = Some(UnderWay { lsn: position, gathered, is_ready: false });
    }

    /// Writes down the one that was begun.
    pub(super) fn save(&mut self, snapshot: &mut FaultSnapshot) -> Result<Option<Saved>, codec::CodecError> {
        let Some(UnderWay { lsn, gathered, is_ready: _ }) = self.under_way.take() else {
            return Ok(None);
        };
        let rows = gathered.rows().map(|row| row.encode()).collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<_> = rows.iter().map(Encoded::change).collect();
        let written = snapshot.lsn().and_then(|found| {
            if self.saved_lsn.contains(&found) {
                checkpoint(snapshot, lsn, &rows)
            } else {
                Err(SnapshotError::ReadBack { written: *self.saved_lsn.end(), found })
            }
        });
        match written {
            Ok(saved) => {
                self.tracker.saved(gathered.tenures);
                self.saved_lsn = lsn..=lsn;
                Ok(Some(saved))
            }
            Err(_) => {
                self.tracker.failed(gathered.changes);
                // It may have been done although it failed.
                self.saved_lsn = *self.saved_lsn.start()..=lsn;
                Ok(None)
            }
        }
    }
}
