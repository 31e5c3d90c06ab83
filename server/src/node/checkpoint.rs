//! Checkpoints: what changed goes into the snapshot, so that the log may forget it.
//!
//! ```text
//! core: gather what changed, as of the last record ─▶ that record is durable ─▶ thread: one transaction, read back
//!       ─▶ mailbox ─▶ core: the log forgets
//! ```
//! The core's thread never waits for the snapshot's disk, except when the node ends.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use specter_dht::{SlotId, Version};
use specter_storage::{
    identity::Identity,
    snapshot::{Saved, Snapshot as _, SnapshotError, checkpoint, is_due},
    sqlite::Sqlite,
};
use tracing::{debug, warn};

use super::{
    changes::{Changes, Gathered, Tracker},
    mailbox::Mailbox,
    rows::Encoded,
};

/// How long after a checkpoint that failed the next one is tried.
const RETRY: Duration = Duration::from_secs(30);

/// Where the snapshot is, and whose.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

/// What a snapshot is to take up.
#[derive(Debug)]
pub(super) struct Job {
    /// The record that it is then true up to.
    pub(super) lsn: u64,
    /// What it may be true up to before: one record, or after failures a later one.
    pub(super) before: RangeInclusive<u64>,
    pub(super) gathered: Gathered,
}

/// A snapshot that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) saved: Saved,
    /// Size of the file.
    bytes: u64,
    tenures: BTreeMap<SlotId, Option<Version>>,
}

/// What became of a job. What was not taken up comes back; what was ends on the thread that wrote it.
pub(super) type Outcome = Result<Made, (SaveError, Changes)>;

/// Why a snapshot was not made.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What the core never lets happen.
    #[error("a row of this node is larger than allowed")]
    Row(#[from] specter_dht::codec::CodecError),
}

/// Decides when there is a checkpoint, and carries it from the core's state to the snapshot.
pub(super) struct Checkpoints {
    place: Place,
    tracker: Tracker,
    /// Gathered, and perhaps still waiting for its last record to be durable.
    waiting: Option<Job>,
    /// Up to which record the one is that was begun and has not ended.
    under_way: Option<u64>,
    saved_lsn: RangeInclusive<u64>,
    snapshot_bytes: u64,
    last: Instant,
    retry_at: Option<Instant>,
    thread: Option<(SyncSender<Job>, JoinHandle<()>)>,
}

impl Checkpoints {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// What the system says when it has no more threads.
    pub(super) fn start(place: Place, tracker: Tracker, lsn: u64, mailbox: Arc<Mailbox>) -> io::Result<Self> {
        let (jobs, todo) = sync_channel(1);
        let there = place.clone();
        let thread = thread::Builder::new().name("snapshot".to_owned()).spawn(move || work(&there, &todo, &mailbox))?;
        let snapshot_bytes = fs::metadata(&place.path).map_or(0, |file| file.len());
        Ok(Self {
            place,
            tracker,
            waiting: None,
            under_way: None,
            saved_lsn: lsn..=lsn,
            snapshot_bytes,
            last: Instant::now(),
            retry_at: None,
            thread: Some((jobs, thread)),
        })
    }

    pub(super) fn tracker(&mut self) -> &mut Tracker {
        &mut self.tracker
    }

    /// Begins a checkpoint if it is time for one, and hands one that was begun to the thread once the log has its records.
    pub(super) fn go_on(&mut self, node: &specter_dht::Node, position: u64, durable_lsn: u64, log_bytes: u64) {
        let is_late = self.retry_at.is_none_or(|at| Instant::now() >= at);
        let is_due = || is_due(log_bytes, self.snapshot_bytes, self.last.elapsed());
        if self.under_way.is_none() && self.tracker.has_changes() && is_late && is_due() {
            self.waiting = Some(self.begin(node, position));
        }
        if let Some((jobs, _)) = &self.thread
            && let Some(job) = self.waiting.take_if(|job| job.lsn <= durable_lsn)
        {
            // There is room, since one is under way at a time; a thread that panicked has said so.
            jobs.try_send(job).ok();
        }
    }

    fn begin(&mut self, node: &specter_dht::Node, position: u64) -> Job {
        let gathered =
            self.tracker.gather(node.terms(), |slot| node.slots().get(&slot).map(specter_dht::kv::Slot::state));
        debug!(lsn = position, "a checkpoint begins");
        self.under_way = Some(position);
        Job { lsn: position, before: self.saved_lsn.clone(), gathered }
    }

    /// Takes in what became of a checkpoint, and tells what the log may forget.
    pub(super) fn ended(&mut self, outcome: Outcome) -> Option<Saved> {
        let lsn = self.under_way.take()?;
        self.last = Instant::now();
        match outcome {
            Ok(Made { saved, bytes, tenures }) => {
                debug!(lsn, snapshot_bytes = bytes, "a checkpoint is on the disk");
                self.tracker.saved(tenures);
                self.saved_lsn = lsn..=lsn;
                self.snapshot_bytes = bytes;
                self.retry_at = None;
                Some(saved)
            }
            Err((error, changes)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(%error, cause, "the log was not written down; it is tried again, and the log keeps everything until then");
                self.tracker.failed(changes);
                // It may have been done although it failed.
                self.saved_lsn = *self.saved_lsn.start()..=lsn;
                self.retry_at = Some(Instant::now() + RETRY);
                None
            }
        }
    }

    /// Ends the thread, after what it has to do. What became of that is in the mailbox.
    pub(super) fn end(&mut self) {
        if let Some((jobs, thread)) = self.thread.take() {
            drop(jobs);
            // A panic of the thread was reported when it happened.
            thread.join().ok();
        }
    }

    /// The last checkpoint, on this thread: the next start then has little to read. Everything is durable up to `position`.
    pub(super) fn last(&mut self, node: &specter_dht::Node, position: u64) -> Option<Saved> {
        if self.under_way.is_some() || !self.tracker.has_changes() {
            return None;
        }
        let job = self.begin(node, position);
        let outcome = save(&self.place, job);
        self.ended(outcome)
    }
}

fn work(place: &Place, todo: &Receiver<Job>, mailbox: &Mailbox) {
    for job in todo {
        mailbox.saved(save(place, job));
    }
}

/// Writes a checkpoint. The file is opened for each: after a failure nothing else tells what it holds.
pub(super) fn save(place: &Place, job: Job) -> Outcome {
    match write(place, &job) {
        Ok((saved, bytes)) => Ok(Made { saved, bytes, tenures: job.gathered.tenures }),
        Err(error) => Err((error, job.gathered.changes)),
    }
}

fn write(place: &Place, job: &Job) -> Result<(Saved, u64), SaveError> {
    let rows = job.gathered.rows().map(|row| row.encode()).collect::<Result<Vec<_>, _>>()?;
    let changes: Vec<_> = rows.iter().map(Encoded::change).collect();
    let mut snapshot = Sqlite::open(&place.path, &place.identity)?;
    let found = snapshot.lsn()?;
    if !job.before.contains(&found) {
        return Err(SnapshotError::ReadBack { written: *job.before.end(), found }.into());
    }
    let saved = checkpoint(&mut snapshot, job.lsn, &changes)?;
    drop(snapshot);
    Ok((saved, fs::metadata(&place.path).map_or(0, |file| file.len())))
}
