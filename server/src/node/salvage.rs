//! What can still be read of a data directory in which something is damaged. A new node is made of it (`node/restore`): what a
//! node forgot it must not vote on.
//!
//! Only values count here, the newest of each key: whose slots were whose is settled anew. A key that was purged may be back
//! if the record that says so is among the lost ones.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use specter_dht::{
    Ballot, NodeId, Record, SlotId, State, Terms, Version, codec,
    kv::{Entry, Key, Register, Registers, Rules},
};
use specter_storage::{
    disk::{Folder, FolderError},
    identity::Identity,
    salvage::{self, Readable},
    sqlite,
};

use super::{
    core::RECORD,
    offline::OfflineError,
    open::{OpenError, SNAPSHOT},
    rows,
};

/// What of a directory is lost.
#[derive(Debug)]
pub(super) struct Loss {
    /// What a start says of it.
    reason: OpenError,
    /// Records that are known to be missing; there may be others behind the last one.
    records: u64,
    segments: u64,
    is_snapshot_whole: bool,
}

/// What is left of it.
#[derive(Debug)]
pub(super) struct Salvage {
    pub(super) cluster: [u8; 16],
    pub(super) terms: Option<Terms>,
    /// Above every ballot that anything was written with.
    pub(super) promise: Ballot,
    pub(super) slots: BTreeMap<SlotId, Registers>,
}

/// Reads all that can be read of a directory that no start accepts, for `reason`. Nothing in it is changed.
///
/// # Errors
/// It is in use, or nothing says whose it is.
pub(super) fn salvage(data_dir: &Path, reason: OpenError) -> Result<(Salvage, Loss), OfflineError> {
    // Held, so that nothing changes meanwhile.
    let folder = Folder::open(data_dir)?;
    let mut salvage = Salvage { cluster: [0; 16], terms: None, promise: Ballot::default(), slots: BTreeMap::new() };
    let snapshot = data_dir.join(SNAPSHOT);
    let is_snapshot_whole = !snapshot.exists() || {
        let (me, rules) = (NodeId(0), Rules::default());
        let mut state = State::new(me, rules);
        let mut is_whole = true;
        is_whole &=
            sqlite::salvage::rows(&snapshot, &mut |row| is_whole &= rows::take(&mut state, me, rules, row).is_ok());
        salvage.terms = state.terms;
        for (slot, durable) in state.slots {
            salvage.promise = salvage.promise.max(durable.promise);
            durable.registers.into_iter().for_each(|(key, (version, held))| salvage.take(slot, key, version, held));
        }
        is_whole
    };
    let readable = salvage::log(&folder, |record| {
        let record = (record.entry.kind == RECORD).then(|| codec::decode::<Record>(record.entry.payload).ok());
        if let Some(record) = record.flatten() {
            salvage.replay(record);
        }
    });
    let unusable = |source| FolderError::Unusable { path: data_dir.to_owned(), source };
    let Readable { identity, records: _, missing, segments_lost } = readable.map_err(unusable)?;
    let named = Identity::read(&folder).ok().flatten().and_then(Result::ok);
    let Some(identity) = named.or(identity) else { return Err(OfflineError::Nothing { path: data_dir.to_owned() }) };
    salvage.cluster = identity.cluster;
    Ok((salvage, Loss { reason, records: missing, segments: segments_lost, is_snapshot_whole }))
}

impl Salvage {
    fn replay(&mut self, record: Record) {
        match record {
            Record::Cluster { terms, founder: _ } => self.terms = Some(terms),
            Record::Slot { slot, entry } => match entry {
                Entry::Promise(ballot) => self.promise = self.promise.max(ballot),
                Entry::Accept { key, version, register } => self.take(slot, key, version, register),
                Entry::Purge { key, version } => {
                    if let Some(held) = self.slots.get_mut(&slot)
                        && held.get(&key).is_some_and(|(known, _)| *known <= version)
                    {
                        held.remove(&key);
                    }
                }
                // A value that was lost once may have been read again since.
                Entry::Lost { .. } | Entry::Config { .. } => {}
            },
            Record::Remember(_) | Record::Forget(_) => {}
        }
    }

    fn take(&mut self, slot: SlotId, key: Key, version: Version, register: Arc<Register>) {
        self.promise = self.promise.max(version.ballot);
        let held = self.slots.entry(slot).or_default();
        if held.get(&key).is_none_or(|(known, _)| *known < version) {
            held.insert(key, (version, register));
        }
    }
}

impl Loss {
    /// For programs.
    pub(super) fn to_json(&self, copy: &Path) -> serde_json::Value {
        serde_json::json!({
            "path": copy.display().to_string(),
            "reason": self.reason.to_string(),
            "records_missing": self.records,
            "segments_lost": self.segments,
            "snapshot_whole": self.is_snapshot_whole,
        })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, records, segments, is_snapshot_whole } = self;
        writeln!(f, "{reason}.")?;
        write!(f, "Lost: {records} records between those that can be read, and any behind them")?;
        if *segments > 0 {
            write!(f, "; {segments} segments of the log")?;
        }
        if !is_snapshot_whole {
            write!(f, "; a part of the snapshot")?;
        }
        writeln!(f, ". What was written in them is as it was before, and what was deleted in them may be back.")
    }
}
