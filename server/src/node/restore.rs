//! A cluster that is lost, made again of copies of its nodes: one new node that holds everything they held.
//!
//! The copies are of different moments, and whose slots are whose was settled among nodes that are gone. So no node goes on
//! as the one that it was: the new node founds the cluster anew, with the newest that any copy has of each key, and fills
//! the others that join it. A write that was acknowledged before the first copy was begun is on a majority of its key's
//! replicas, so copies of all nodes but one have it, once each key has its three replicas.

use std::{collections::BTreeMap, path::Path, path::PathBuf};

use specter_dht::{
    Ballot, NodeId, Record, SlotId, State, Terms, codec,
    kv::{Durable, Entry, Registers, Rules},
};
use specter_storage::{
    copy::as_a_whole,
    disk::Folder,
    identity::Identity,
    log::{AppendError, Need},
    record, recover,
    settings::Settings,
};

use super::{
    changes::Tracker,
    checkpoint::Place,
    core::RECORD,
    offline::{OfflineError, Summary, check, read, write_down},
    open::{Loaded, OpenError, SNAPSHOT, draw},
};

/// Records that are written together.
const BATCH: usize = 64;

/// Makes a data directory that holds what the copies hold, for a new node that is alone until others join it.
///
/// # Errors
/// [`OfflineError`]; nothing is there then.
pub fn restore(copies: &[PathBuf], data_dir: &Path) -> Result<Summary, OfflineError> {
    let Merged { cluster, terms, promise, slots } = merge(copies)?;
    let identity = Identity { node: draw()?, cluster };
    as_a_whole(data_dir, |aside| {
        let folder = Folder::open(aside)?;
        let opening = recover::Opening { identity, settings: Settings::default(), random: draw()? };
        let (mut log, _) = recover::open(folder, &opening, 0, |_| ()).map_err(OpenError::from)?;
        let me = NodeId(u128::from_be_bytes(identity.node));
        let state = State::new(me, Rules::default());
        let mut loaded = Loaded { tracker: Tracker::of(&state), state, lsn: 0, strange: None };
        let mut last_lsn = 0;
        let founded = [Record::Cluster { terms, founder: true }].into_iter();
        let registers = slots.into_iter().flat_map(|(slot, registers)| {
            // The new leader's ballots are higher than any that a value was written with.
            let promised = [Entry::Promise(promise)].into_iter();
            let accepted =
                registers.into_iter().map(|(key, (version, register))| Entry::Accept { key, version, register });
            promised.chain(accepted).map(move |entry| Record::Slot { slot, entry })
        });
        let records: Vec<Record> = founded.chain(registers).collect();
        for batch in records.chunks(BATCH) {
            let payloads = batch.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
            let entries: Vec<_> =
                payloads.iter().map(|payload| record::Entry { kind: RECORD, slot: 0, payload }).collect();
            last_lsn = log.append(&entries, Need::Ordinary).map_err(OfflineError::Write)?;
            for record in batch {
                loaded.tracker.note(record);
                loaded.state.apply(record);
            }
        }
        log.sync().map_err(OfflineError::Log)?;
        write_down(log, loaded, last_lsn, &Place { path: aside.join(SNAPSHOT), identity })
    })?;
    check(data_dir)
}

fn encode(record: &Record) -> Result<Vec<u8>, OfflineError> {
    let mut payload = Vec::new();
    // It was in a record of the same length before.
    codec::encode(record, &mut payload).map_err(|_| OfflineError::Write(AppendError::Size(payload.len())))?;
    Ok(payload)
}

struct Merged {
    cluster: [u8; 16],
    terms: Terms,
    promise: Ballot,
    slots: BTreeMap<SlotId, Registers>,
}

fn merge(copies: &[PathBuf]) -> Result<Merged, OfflineError> {
    let mut merged: Option<(&PathBuf, Merged)> = None;
    for copy in copies {
        let (report, Loaded { state, .. }) = read(copy)?;
        let cluster = report.identity.cluster;
        let Some(terms) = state.terms else { return Err(OfflineError::NoMember { path: copy.clone() }) };
        let empty = Merged { cluster, terms, promise: Ballot::default(), slots: BTreeMap::new() };
        let (first, merged) = merged.get_or_insert((copy, empty));
        if (merged.cluster, merged.terms) != (cluster, terms) {
            return Err(OfflineError::OtherCluster { one: copy.clone(), other: first.clone() });
        }
        for (slot, durable) in state.slots {
            merged.promise = merged.promise.max(durable.promise);
            take(merged.slots.entry(slot).or_default(), durable);
        }
    }
    merged.map(|(_, merged)| merged).ok_or(OfflineError::NoCopy)
}

fn take(held: &mut Registers, durable: Durable) {
    for (key, (version, register)) in durable.registers {
        if held.get(&key).is_none_or(|(known, _)| *known < version) {
            held.insert(key, (version, register));
        }
    }
}
