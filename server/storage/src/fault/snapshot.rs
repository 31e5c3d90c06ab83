//! A snapshot on a simulated disk: rows in memory that change as a whole or not at all, as SQLite's do.

use std::{collections::BTreeMap, io, path::PathBuf};

use super::FaultDisk;
use crate::{
    disk::is_full,
    snapshot::{Change, Row, Snapshot, SnapshotError},
};

/// The snapshot of a [`FaultDisk`]; it stays on it over crashes. Its calls are calls of the disk.
#[derive(Debug)]
pub struct FaultSnapshot {
    disk: FaultDisk,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    lsn: u64,
    registers: BTreeMap<(u16, Vec<u8>), Register>,
    slots: BTreeMap<u16, Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Register {
    version: Vec<u8>,
    value: Vec<u8>,
}

impl FaultSnapshot {
    /// That of a disk.
    pub fn of(disk: &FaultDisk) -> Self {
        Self { disk: disk.clone() }
    }
}

impl Rows {
    fn apply(&mut self, change: &Change<'_>) {
        match *change {
            Change::Put(Row::Register { slot, key, version, value }) => {
                let register = Register { version: version.to_vec(), value: value.to_vec() };
                self.registers.insert((slot, key.to_vec()), register);
            }
            Change::Put(Row::Slot { slot, meta }) => {
                self.slots.insert(slot, meta.to_vec());
            }
            Change::Remove { slot, key } => {
                self.registers.remove(&(slot, key.to_vec()));
            }
            Change::Drop { slot } => {
                self.registers.retain(|(of, _), _| *of != slot);
                self.slots.remove(&slot);
            }
        }
    }
}

impl Snapshot for FaultSnapshot {
    fn load(&mut self, each: &mut dyn FnMut(Row<'_>)) -> Result<u64, SnapshotError> {
        let rows = self.disk.call(|image| Ok(image.rows.clone())).map_err(wrong)?;
        for (slot, meta) in &rows.slots {
            each(Row::Slot { slot: *slot, meta });
        }
        for ((slot, key), Register { version, value }) in &rows.registers {
            each(Row::Register { slot: *slot, key, version, value });
        }
        Ok(rows.lsn)
    }

    fn commit(&mut self, lsn: u64, changes: &[Change<'_>]) -> Result<(), SnapshotError> {
        let commit = self.disk.call(|image| {
            for change in changes {
                image.rows.apply(change);
            }
            image.rows.lsn = lsn;
            Ok(())
        });
        commit.map_err(wrong)
    }

    fn lsn(&mut self) -> Result<u64, SnapshotError> {
        self.disk.call(|image| Ok(image.rows.lsn)).map_err(wrong)
    }
}

fn wrong(error: io::Error) -> SnapshotError {
    if is_full(&error) {
        SnapshotError::Full(error.into())
    } else {
        SnapshotError::Failed { path: PathBuf::from("snap.db"), source: error.into() }
    }
}
