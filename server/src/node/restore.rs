//! A cluster that is lost, made again of copies of its nodes: one new node that holds everything they held.
//!
//! The copies are of different moments, and whose slots are whose was settled among nodes that are gone. So no node goes on
//! as the one that it was: the new node founds the cluster anew, with the newest that any copy has of each key, and fills
//! the others that join it. A write that was acknowledged before the first copy was begun is on a majority of its key's
//! replicas, so copies of all nodes but one have it, once each key has its three replicas.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use specter_dht::{
    Ballot, NodeId, Record, SlotId, State, Terms, codec,
    kv::{Entry, Registers, Rules},
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
    salvage::{Loss, Salvage, salvage},
};

/// Records that are written together.
const BATCH: usize = 64;

/// What was made of copies, or would be.
#[derive(Debug)]
pub struct Restored {
    /// The new directory; nothing if it was only asked what it would hold.
    made: Option<Summary>,
    slots: usize,
    registers: usize,
    /// Of which copies something is lost.
    losses: Vec<(PathBuf, Loss)>,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The copies, each of another node of one cluster.
    pub from: Vec<PathBuf>,
    /// Of a copy that is damaged, take what can be read.
    pub accepts_loss: bool,
    /// Only tell what would be made.
    pub is_dry: bool,
}

/// Makes a data directory that holds what the copies hold, for a new node that is alone until others join it.
///
/// # Errors
/// [`OfflineError`]; nothing is there then.
pub fn restore(wanted: &Wanted, data_dir: &Path) -> Result<Restored, OfflineError> {
    let (merged, losses) = merge(&wanted.from, wanted.accepts_loss)?;
    let (slots, registers) = (merged.slots.len(), merged.slots.values().map(BTreeMap::len).sum());
    let made = if wanted.is_dry { None } else { Some(make(merged, data_dir)?) };
    Ok(Restored { made, slots, registers, losses })
}

fn make(merged: Merged, data_dir: &Path) -> Result<Summary, OfflineError> {
    let Merged { cluster, terms, promise, slots } = merged;
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

fn merge(copies: &[PathBuf], accepts_loss: bool) -> Result<(Merged, Vec<(PathBuf, Loss)>), OfflineError> {
    let mut merged: Option<(&PathBuf, Merged)> = None;
    let mut losses = Vec::new();
    for copy in copies {
        let (Salvage { cluster, terms, promise, slots }, loss) = match read(copy) {
            Ok((report, Loaded { state, .. })) => (whole(report.identity.cluster, state), None),
            Err(OfflineError::Open(reason)) if accepts_loss && reason.is_damage() => {
                let (salvage, loss) = salvage(copy, reason)?;
                (salvage, Some(loss))
            }
            Err(error) => return Err(error),
        };
        losses.extend(loss.map(|loss| (copy.clone(), loss)));
        let Some(terms) = terms else { return Err(OfflineError::NoMember { path: copy.clone() }) };
        let empty = Merged { cluster, terms, promise: Ballot::default(), slots: BTreeMap::new() };
        let (first, merged) = merged.get_or_insert((copy, empty));
        if (merged.cluster, merged.terms) != (cluster, terms) {
            return Err(OfflineError::OtherCluster { one: copy.clone(), other: first.clone() });
        }
        merged.promise = merged.promise.max(promise);
        for (slot, registers) in slots {
            take(merged.slots.entry(slot).or_default(), registers);
        }
    }
    merged.map(|(_, merged)| (merged, losses)).ok_or(OfflineError::NoCopy)
}

fn whole(cluster: [u8; 16], state: State) -> Salvage {
    let promise = state.slots.values().map(|durable| durable.promise).max().unwrap_or_default();
    let slots = state.slots.into_iter().map(|(slot, durable)| (slot, durable.registers)).collect();
    Salvage { cluster, terms: state.terms, promise, slots }
}

fn take(held: &mut Registers, registers: Registers) {
    for (key, (version, register)) in registers {
        if held.get(&key).is_none_or(|(known, _)| *known < version) {
            held.insert(key, (version, register));
        }
    }
}

impl Restored {
    /// For programs: one JSON object.
    pub fn to_json(&self) -> String {
        let losses: serde_json::Value = self.losses.iter().map(|(path, loss)| loss.to_json(path)).collect();
        let losses = format!(r#""losses":{losses}}}"#);
        match &self.made {
            Some(made) => {
                let made = made.to_json();
                format!("{},{losses}", made.strip_suffix('}').unwrap_or(&made))
            }
            None => format!(r#"{{"slots":{},"registers":{},{losses}"#, self.slots, self.registers),
        }
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, loss) in &self.losses {
            write!(f, "{}: {loss}", path.display())?;
        }
        match &self.made {
            Some(made) => write!(f, "{made}"),
            None => {
                writeln!(f, "It would hold {} registers in {} slots. Nothing was made.", self.registers, self.slots)
            }
        }
    }
}
