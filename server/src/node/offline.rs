//! A data directory, looked at without the node that it belongs to.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use specter_dht::{
    NodeId, Record, SlotId, Version, codec,
    kv::{Key, Register},
};
use specter_storage::{
    copy::{self, CopyError},
    disk::{Folder, FolderError},
    identity::{IDENTITY, Identity},
    inspect::{self, Report, record_to_json},
    log::{AppendError, Failure, Log},
    recover,
    settings::Settings,
};

use super::{
    checkpoint::{Job, Place, SaveError, save},
    open::{Loaded, OpenError, SNAPSHOT, draw},
};

/// A directory whose node runs may change while it is read: how often that is begun anew.
const TRIES: u32 = 5;

/// Why a data directory cannot be looked at, copied or changed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is nothing of ours.
    #[error("{} holds no data of a node; give the directory that the node has as --data-dir", path.display())]
    Nothing {
        /// What was given.
        path: PathBuf,
    },
    /// A running node holds it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The files cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Nothing to make a directory of.
    #[error("no copy is given; name those of all nodes of the cluster that there are, each with --from")]
    NoCopy,
    /// Copies of nodes that never were in one cluster.
    #[error("{} is of another cluster than {}; give copies of nodes of one cluster", one.display(), other.display())]
    OtherCluster {
        /// The one.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A node that was not a member yet.
    #[error("{} is of a node that was not a member of its cluster yet; leave it out", path.display())]
    NoMember {
        /// The copy.
        path: PathBuf,
    },
    /// The snapshot was not written.
    #[error("the log was not written down; nothing is lost, since it keeps everything until then")]
    Save(#[source] SaveError),
    /// The records were not written.
    #[error("the new data directory cannot be written; check its disk")]
    Write(#[source] AppendError),
    /// The log was not shortened.
    #[error("the log cannot be closed; check the disk of the data directory")]
    Log(#[source] Failure),
}

/// What a directory holds in all.
#[derive(Debug)]
pub struct Summary {
    report: Report,
    slots: usize,
    registers: usize,
}

/// One register that holds something.
#[derive(Debug)]
pub struct Held {
    slot: SlotId,
    key: Key,
    version: Version,
    register: std::sync::Arc<Register>,
}

/// Reads everything as a start would, and changes nothing.
///
/// # Errors
/// [`OfflineError`], as the start would tell it.
pub fn check(data_dir: &Path) -> Result<Summary, OfflineError> {
    let (report, Loaded { state, .. }) = read(data_dir)?;
    let registers = state.slots.values().map(|durable| durable.registers.len()).sum();
    Ok(Summary { report, slots: state.slots.len(), registers })
}

/// Tells every record behind the snapshot, as one line each.
///
/// # Errors
/// [`OfflineError`]; the lines before the damage were told.
pub fn dump(data_dir: &Path, json: bool, mut line: impl FnMut(&str)) -> Result<(), OfflineError> {
    let folder = Folder::look(data_dir);
    let loaded = snapshot(data_dir, &folder)?;
    inspect::read(&folder, loaded.lsn, |record| {
        if json {
            return line(&record_to_json(&record));
        }
        match codec::decode::<Record>(record.entry.payload) {
            Ok(decoded) => line(&format!("{} slot {}: {decoded:?}", record.lsn, record.entry.slot)),
            Err(error) => line(&format!("{} slot {}: not understood: {error}", record.lsn, record.entry.slot)),
        }
    })
    .map_err(OpenError::from)?;
    Ok(())
}

/// Hands out every register that holds something, in the order of slots and keys.
///
/// # Errors
/// [`OfflineError`]; nothing was handed out then.
pub fn export(data_dir: &Path) -> Result<impl Iterator<Item = Held>, OfflineError> {
    let (_, Loaded { state, .. }) = read(data_dir)?;
    let registers = state.slots.into_iter().flat_map(|(slot, durable)| {
        let held = durable.registers.into_iter();
        held.map(move |(key, (version, register))| Held { slot, key, version, register })
    });
    Ok(registers.filter(|held| !held.register.is_tombstone()))
}

/// Copies a data directory, of a running node too, into a new one, and reads the copy.
///
/// # Errors
/// [`OfflineError`]; nothing is there then.
pub fn copy(from: &Path, to: &Path) -> Result<Summary, OfflineError> {
    copy::copy(from, to)?;
    check(to)
}

/// Writes the log down into the snapshot and drops it. The node must not run.
///
/// # Errors
/// [`OfflineError`]; the directory holds the same as before.
pub fn compact(data_dir: &Path) -> Result<Summary, OfflineError> {
    // A directory that is not a node's is not made one.
    place(data_dir, &Folder::look(data_dir))?;
    let folder = Folder::open(data_dir)?;
    let mut loaded = snapshot(data_dir, &folder)?;
    let place = place(data_dir, &folder)?;
    let opening = recover::Opening { identity: place.identity, settings: Settings::default(), random: draw()? };
    let (log, recovered) =
        recover::open(folder, &opening, loaded.lsn, |record| loaded.replay(&record)).map_err(OpenError::from)?;
    loaded.check()?;
    write_down(log, loaded, recovered.last_lsn, &place)?;
    check(data_dir)
}

/// Writes what a log and a snapshot hold together into the snapshot, and closes the log without it.
pub(super) fn write_down(
    mut log: Log<Folder>,
    loaded: Loaded,
    last_lsn: u64,
    place: &Place,
) -> Result<(), OfflineError> {
    let Loaded { state, mut tracker, lsn, .. } = loaded;
    let gathered = tracker.gather(state.terms, |slot| state.slots.get(&slot));
    let made = save(place, Job { lsn: last_lsn, before: lsn..=lsn, gathered });
    let made = made.map_err(|(error, _)| OfflineError::Save(error))?;
    log.forget(made.saved).and_then(|()| log.close()).map_err(OfflineError::Log)
}

pub(super) fn read(data_dir: &Path) -> Result<(Report, Loaded), OfflineError> {
    let folder = Folder::look(data_dir);
    let mut tries = 1;
    loop {
        let mut loaded = snapshot(data_dir, &folder)?;
        match inspect::read(&folder, loaded.lsn, |record| loaded.replay(&record)) {
            Ok(Some(report)) => {
                loaded.check()?;
                return Ok((report, loaded));
            }
            Ok(None) => return Err(OfflineError::Nothing { path: data_dir.to_owned() }),
            // A checkpoint or a start in between can make the parts not meet.
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(OpenError::from(error).into()),
        }
    }
}

fn snapshot(data_dir: &Path, folder: &Folder) -> Result<Loaded, OfflineError> {
    Ok(Loaded::read(&place(data_dir, folder)?)?)
}

fn place(data_dir: &Path, folder: &Folder) -> Result<Place, OfflineError> {
    match Identity::read(folder) {
        Ok(Some(Ok(identity))) => Ok(Place { path: data_dir.join(SNAPSHOT), identity }),
        Ok(Some(Err(reason))) => {
            Err(OpenError::from(recover::OpenError::File { path: IDENTITY.to_owned(), reason }).into())
        }
        Ok(None) => Err(OfflineError::Nothing { path: data_dir.to_owned() }),
        Err(source) => Err(FolderError::Unusable { path: data_dir.to_owned(), source }.into()),
    }
}

impl Summary {
    /// For programs: one JSON object.
    pub fn to_json(&self) -> String {
        let report = self.report.to_json();
        format!(
            r#"{},"slots":{},"registers":{}}}"#,
            report.strip_suffix('}').unwrap_or(&report),
            self.slots,
            self.registers
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.report)?;
        writeln!(f, "holds       {} registers in {} slots", self.registers, self.slots)
    }
}

impl Held {
    /// One JSON object; bytes are in base64.
    pub fn to_json(&self) -> String {
        let Self { slot, key, version, register } = self;
        let base64 = |bytes: &[u8]| format!("\"{}\"", BASE64.encode(bytes));
        let value = register.value().map_or_else(|| "null".to_owned(), base64);
        let set: Vec<String> = register.children().iter().map(|child| base64(child)).collect();
        let NodeId(leader) = version.ballot.node;
        format!(
            r#"{{"slot":{},"key":{},"version":"{}.{leader:032x}.{}","value":{value},"set":[{}],"leased":{}}}"#,
            slot.0,
            base64(key),
            version.ballot.counter,
            version.seq,
            set.join(","),
            register.lease().is_some(),
        )
    }
}
