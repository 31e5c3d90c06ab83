//! What a node keeps its records in: the code that runs in production, on a disk that fails.
//!
//! The two threads of a real node, the log's and the snapshot's, are events here. In between them everything is as in
//! `server/src/node`, of which this takes what turns a state into the rows of a snapshot.

#[path = "../../../../server/src/node/changes.rs"]
mod changes;
mod checkpoint;
#[path = "../../../../server/src/node/rows.rs"]
mod rows;

use specter_dht::{Node, NodeId, Random, Record, State, codec, kv::Rules};
use specter_storage::{
    fault::{Fault, FaultDisk, FaultSnapshot},
    identity::Identity,
    inspect,
    log::{AppendError, Health, Log, Need},
    record::Entry,
    recover::{self, OpenError, Opening, Recovered},
    settings::Settings,
    snapshot::{Snapshot as _, SnapshotError},
};

use super::machine::CLUSTER;
use super::swarm::Storage;
use crate::disk::Tail;
use changes::Tracker;
use checkpoint::Checkpoints;

/// The kind of all records in the log, as in a real node.
const RECORD: u8 = 1;

/// How many calls of a disk it takes at most until a fault strikes.
const CALLS: u64 = 24;

/// A data directory, and the node's part that writes to it.
#[derive(Debug)]
pub(crate) struct Store {
    disk: FaultDisk,
    settings: Settings,
    checkpoint_bytes: u64,
    identity: Identity,
    /// Apart from the world's, so that the world goes on as it does on a model of a disk.
    random: Random,
    /// None while the machine is down.
    log: Option<Log<FaultDisk>>,
    checkpoints: Checkpoints,
    /// Records that the log has not taken yet.
    queue: Vec<(u16, Vec<u8>)>,
    /// The newest record of the node, and the newest one that was ever given to the disk.
    position: u64,
    written: u64,
    is_writing: bool,
    /// What the node was told of its log.
    health: Health,
}

/// How a process or a machine ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The process ends: the system still has what it wrote.
    Killed,
    /// The power fails.
    PowerCut(Tail),
}

/// What a start found.
pub(crate) struct Started {
    pub(crate) state: State,
    pub(crate) found: Recovered,
}

/// Why there was no start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("record {0} cannot be understood")]
    Record(u64),
    #[error("a row of the snapshot cannot be understood")]
    Row(#[from] codec::CodecError),
}

/// What a node has to be told of its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// The machine stopped in the middle of a call.
    Stopped,
    /// The log is in another health than before.
    Health(Health),
}

impl Store {
    /// An empty disk; nothing in a world without real storage.
    pub(crate) fn new(storage: Storage, node: NodeId, random: &mut Random) -> Option<Self> {
        let Storage::Real { segment_bytes, reserve_bytes, checkpoint_bytes } = storage else { return None };
        let settings = Settings { segment_bytes, reserve_bytes, ..Settings::default() };
        let identity = Identity { node: node.0.to_be_bytes(), cluster: CLUSTER.0.to_be_bytes() };
        Some(Self {
            disk: FaultDisk::new(),
            settings,
            checkpoint_bytes,
            identity,
            random: Random::seeded(random.next_u64()),
            log: None,
            checkpoints: Checkpoints::default(),
            queue: Vec::new(),
            position: 0,
            written: 0,
            is_writing: false,
            health: Health::Open,
        })
    }

    /// The disk is lost, and another one in its place.
    pub(crate) fn replace(&mut self, node: NodeId) {
        self.identity.node = node.0.to_be_bytes();
        self.disk = FaultDisk::new();
        (self.position, self.written) = (0, 0);
    }

    /// Reads what is on the disk, as a start of a real node does.
    pub(crate) fn start(&mut self, node: NodeId, rules: Rules) -> Result<Started, StartError> {
        let mut state = State::new(node, rules);
        let mut wrong = None;
        let snapshot_lsn = FaultSnapshot::of(&self.disk).load(&mut |row| {
            if let Err(error) = rows::take(&mut state, node, rules, row) {
                wrong.get_or_insert(error);
            }
        })?;
        if let Some(error) = wrong {
            return Err(error.into());
        }
        let mut tracker = Tracker::of(&state);
        let mut strange = None;
        let mut random = [0; 32];
        random.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.random.next_u64().to_le_bytes()));
        let opening = Opening { identity: self.identity, settings: self.settings, random };
        let (log, found) = recover::open(self.disk.clone(), &opening, snapshot_lsn, |record| {
            let decoded = (record.entry.kind == RECORD).then(|| codec::decode::<Record>(record.entry.payload).ok());
            match decoded.flatten() {
                Some(decoded) => {
                    tracker.note(&decoded);
                    state.apply(&decoded);
                }
                None => {
                    strange.get_or_insert(record.lsn);
                }
            }
        })?;
        if let Some(lsn) = strange {
            return Err(StartError::Record(lsn));
        }
        self.log = Some(log);
        self.checkpoints = Checkpoints::new(tracker, snapshot_lsn);
        self.queue.clear();
        (self.position, self.written) = (found.last_lsn, found.last_lsn);
        (self.is_writing, self.health) = (false, Health::Open);
        Ok(Started { state, found })
    }

    /// The node has another record.
    pub(crate) fn append(&mut self, position: u64, record: &Record) -> Result<(), codec::CodecError> {
        let slot = match record {
            Record::Slot { slot, .. } => slot.0,
            Record::Cluster { .. } | Record::Remember(_) | Record::Forget(_) => 0,
        };
        let mut payload = Vec::new();
        codec::encode(record, &mut payload)?;
        self.checkpoints.note(record);
        self.queue.push((slot, payload));
        self.position = position;
        Ok(())
    }

    /// Gives the log all that waits, unless it is at it. Tells whether a sync is to follow.
    pub(crate) fn write(&mut self) -> bool {
        let Some(log) = self.log.as_mut() else { return false };
        if self.queue.is_empty() || self.is_writing || self.health != Health::Open {
            return false;
        }
        let entries: Vec<_> =
            self.queue.iter().map(|(slot, payload)| Entry { kind: RECORD, slot: *slot, payload }).collect();
        let before = self.written;
        self.written = self.position;
        match log.append(&entries, Need::Ordinary) {
            Ok(_) => {
                self.queue.clear();
                self.is_writing = true;
            }
            Err(AppendError::Full | AppendError::Size(_)) => self.written = before,
            Err(AppendError::Failed(_)) => {}
        }
        self.is_writing
    }

    /// Makes durable what was written. Tells whether it was.
    pub(crate) fn sync(&mut self) -> bool {
        let Some(log) = self.log.as_mut().filter(|_| self.is_writing) else { return false };
        let synced = log.sync().is_ok();
        self.is_writing = !synced;
        synced
    }

    /// What the node does not know yet of its log.
    pub(crate) fn news(&mut self) -> Option<News> {
        let health = self.log.as_ref()?.health();
        if self.disk.is_crashed() {
            return Some(News::Stopped);
        }
        (health != std::mem::replace(&mut self.health, health)).then_some(News::Health(health))
    }

    /// Looks whether a full disk has room again.
    pub(crate) fn reclaim(&mut self) {
        if let Some(log) = self.log.as_mut() {
            // Of a failure the log's health tells.
            log.reclaim().ok();
        }
    }

    /// Begins a checkpoint if it is time for one. Tells whether one can be written down.
    pub(crate) fn go_on(&mut self, node: &Node) -> bool {
        let Some(log) = &self.log else { return false };
        let is_due = log.size_bytes() > self.checkpoint_bytes;
        self.checkpoints.go_on(node, is_due, self.position, log.durable_lsn())
    }

    /// Writes down the checkpoint that was begun, and lets the log forget.
    pub(crate) fn save(&mut self) -> Result<bool, codec::CodecError> {
        let saved = self.checkpoints.save(&mut FaultSnapshot::of(&self.disk))?;
        if let Some((log, saved)) = self.log.as_mut().zip(saved) {
            // Of failures the log's health tells. What was removed may have made room.
            log.forget(saved).and_then(|()| log.reclaim()).ok();
        }
        Ok(saved.is_some())
    }

    /// The process ends in order: what waits is written, and the log says that nothing follows.
    pub(crate) fn close(&mut self, node: &Node) -> Result<(), codec::CodecError> {
        self.write();
        self.sync();
        let is_durable = self.log.as_ref().is_some_and(|log| log.durable_lsn() >= self.position);
        if is_durable && self.random.chance(500) {
            self.checkpoints.begin(node, self.position);
            self.save()?;
        }
        if let Some(log) = self.log.take() {
            // The next start then reads it as after a crash.
            log.close().ok();
        }
        Ok(())
    }

    /// The process or the machine ends. Returns up to which record the log goes now, as far as it can be read.
    pub(crate) fn end(&mut self, end: End) -> Option<u64> {
        self.log = None;
        let random = &mut self.random;
        let end = if self.disk.is_crashed() { End::PowerCut(Tail::draw(random)) } else { end };
        self.disk = match end {
            End::Killed => self.disk.after_kill(),
            End::PowerCut(Tail::Kept) => self.disk.after_crash(|| true),
            End::PowerCut(Tail::Lost) => self.disk.after_crash(|| false),
            End::PowerCut(Tail::Torn) => self.disk.after_crash(|| random.chance(500)),
        };
        self.disk.fail_never();
        let snapshot_lsn = FaultSnapshot::of(&self.disk).lsn().ok()?;
        let report = inspect::read(&self.disk, snapshot_lsn, |_| ()).ok()?;
        Some(report.map_or(0, |report| report.last_lsn))
    }

    /// Lets a call fail before long.
    pub(crate) fn fail_soon(&mut self, faults: &[Fault]) {
        let index = usize::try_from(self.random.below(faults.len() as u64)).unwrap_or_default();
        if let Some(fault) = faults.get(index) {
            self.disk.fail_at(self.disk.calls() + self.random.below(CALLS), *fault);
        }
    }

    /// No call is to fail any more.
    pub(crate) fn fail_never(&self) {
        self.disk.fail_never();
    }

    /// The disk has hardly any room left, or all that it needs.
    pub(crate) fn set_full(&mut self, full: bool) {
        let room = self.random.below(2 * self.settings.segment_bytes);
        self.disk.set_capacity(full.then(|| self.disk.used_bytes() + room));
    }

    /// The newest record that was ever given to the disk.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// How the log is.
    pub(crate) fn health(&self) -> Health {
        self.log.as_ref().map_or(Health::Open, Log::health)
    }

    /// What is drawn for this disk alone.
    pub(crate) const fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}
