//! The thread that owns the log: whatever waits is written together and shares one sync.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    disk::Disk,
    log::{AppendError, Failure, Health, Log, Need},
    record::{Entry, size_bytes},
    settings::Policy,
    snapshot::Saved,
};

/// Most records that share a sync, so that the first of them does not wait long for the last.
pub const GROUP_RECORDS_MAX: usize = 512;

/// Most bytes that share a sync, unless one submission alone has more.
pub const GROUP_BYTES_MAX: usize = 1 << 20;

/// Most bytes that wait.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Most submissions that wait.
pub const QUEUE_MAX: usize = 65_536;

/// How long records stay unsynced with [`Policy::EverySecond`].
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A running log.
#[derive(Debug)]
pub struct Writer<D: Disk + Send + 'static>
where
    D::File: Send,
{
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Log<D>>>,
}

/// An [`Entry`] that owns its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnedEntry {
    /// What the payload is.
    pub kind: u8,
    /// The slot it concerns.
    pub slot: u16,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Why a submission was not taken. Its callback is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("too many records wait for the disk")]
pub struct Busy;

type Done = Box<dyn FnOnce(Result<u64, AppendError>) + Send>;

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Submission>,
    waiting_bytes: usize,
    asked: Asked,
    stopping: bool,
    durable_lsn: u64,
    log_bytes: u64,
}

/// What is asked of the log beside records; nobody waits for it.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    forget: Option<Saved>,
    begun_anew: bool,
}

struct Submission {
    entries: Vec<OwnedEntry>,
    size_bytes: usize,
    need: Need,
    done: Done,
}

impl<D: Disk + Send + 'static> Writer<D>
where
    D::File: Send,
{
    /// Starts the thread. `on_health` is called on it whenever the log's health changes, and must not wait.
    ///
    /// # Errors
    /// What the system says when it has no more threads.
    pub fn start(log: Log<D>, on_health: impl FnMut(Health) + Send + 'static) -> std::io::Result<Self> {
        let queue = Queue { durable_lsn: log.durable_lsn(), log_bytes: log.size_bytes(), ..Queue::default() };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let health = log.health();
        let task = Task { log, shared: Arc::clone(&shared), on_health, health, unsynced_since: None, reclaim_at: None };
        let thread = thread::Builder::new().name("log".to_owned()).spawn(|| task.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues records. `done` is called on the log's thread with the number of the last of them when they count as kept, in
    /// the order of the submissions; it must not wait.
    ///
    /// # Errors
    /// [`Busy`] at once if too much waits already.
    pub fn submit(
        &self,
        entries: Vec<OwnedEntry>,
        need: Need,
        done: impl FnOnce(Result<u64, AppendError>) + Send + 'static,
    ) -> Result<(), Busy> {
        let size_bytes = entries.iter().map(|entry| size_bytes(entry.payload.len())).sum::<usize>();
        let mut queue = self.shared.lock();
        if queue.waiting.len() >= QUEUE_MAX || queue.waiting_bytes + size_bytes > QUEUE_BYTES_MAX {
            return Err(Busy);
        }
        queue.waiting_bytes += size_bytes;
        queue.waiting.push_back(Submission { entries, size_bytes, need, done: Box::new(done) });
        drop(queue);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Lets the log remove what a snapshot has.
    pub fn forget(&self, saved: Saved) {
        self.shared.lock().asked.forget = Some(saved);
        self.shared.changed.notify_all();
    }

    /// Notes that the node has begun anew among its peers; see [`Log::begun_anew`].
    pub fn begun_anew(&self) {
        self.shared.lock().asked.begun_anew = true;
        self.shared.changed.notify_all();
    }

    /// The number of the last record that a power cut would leave.
    pub fn durable_lsn(&self) -> u64 {
        self.shared.lock().durable_lsn
    }

    /// What the log takes on the disk.
    pub fn log_bytes(&self) -> u64 {
        self.shared.lock().log_bytes
    }

    /// Writes what waits, answers it, and notes that nothing follows.
    ///
    /// # Errors
    /// [`Failure`]; the next start then reads the log as after a crash.
    pub fn close(mut self) -> Result<(), Failure> {
        match self.stop() {
            Some(log) => log.close(),
            None => Ok(()),
        }
    }

    fn stop(&mut self) -> Option<Log<D>> {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        // A panic of the thread was reported when it happened.
        self.thread.take()?.join().ok()
    }
}

impl<D: Disk + Send + 'static> Drop for Writer<D>
where
    D::File: Send,
{
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes what shares the next sync.
    fn group(&mut self) -> Vec<Submission> {
        let (mut records, mut bytes) = (0, 0);
        let mut group = Vec::new();
        while let Some(next) = self.waiting.front() {
            records += next.entries.len();
            bytes += next.size_bytes;
            if !group.is_empty() && (records > GROUP_RECORDS_MAX || bytes > GROUP_BYTES_MAX) {
                break;
            }
            self.waiting_bytes -= next.size_bytes;
            group.extend(self.waiting.pop_front());
        }
        group
    }
}

struct Task<D: Disk, H> {
    log: Log<D>,
    shared: Arc<Shared>,
    on_health: H,
    /// What was told last.
    health: Health,
    unsynced_since: Option<Instant>,
    /// When to look for room again, on a full disk.
    reclaim_at: Option<Instant>,
}

impl<D: Disk, H: FnMut(Health)> Task<D, H> {
    fn run(mut self) -> Log<D> {
        if self.health != Health::Open {
            (self.on_health)(self.health);
        }
        loop {
            let (group, asked, stopping) = self.wait();
            // Failures of what nobody waits for are kept by the log, and told as its health.
            if let Some(saved) = asked.forget {
                let _ = self.log.forget(saved);
                self.reclaim_at = Some(Instant::now());
            }
            if asked.begun_anew {
                let _ = self.log.begun_anew();
            }
            if !group.is_empty() {
                self.write(group);
            } else if stopping {
                return self.log;
            }
            self.tick();
            self.tell_health();
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> (Vec<Submission>, Asked, bool) {
        let deadline = self.deadline();
        let mut queue = self.shared.lock();
        loop {
            let group = queue.group();
            let asked = std::mem::take(&mut queue.asked);
            if !group.is_empty() || asked.forget.is_some() || asked.begun_anew || queue.stopping {
                return (group, asked, queue.stopping);
            }
            queue = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return (group, asked, false),
                Some(left) => self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let sync_at = self.unsynced_since.map(|since| since + SYNC_EVERY);
        match self.log.health() {
            Health::Open => sync_at,
            Health::Full => self.reclaim_at.into_iter().chain(sync_at).min(),
            Health::Failed => None,
        }
    }

    fn write(&mut self, group: Vec<Submission>) {
        let results = self.append(&group);
        let mut synced = Ok(());
        match self.log.settings().policy {
            Policy::Always => synced = self.log.sync().map(drop),
            Policy::EverySecond => {
                self.unsynced_since.get_or_insert_with(Instant::now);
            }
        }
        self.publish();
        for (submission, result) in group.into_iter().zip(results) {
            (submission.done)(match &synced {
                Ok(()) => result,
                Err(failure) => result.and_then(|_| Err(failure.clone().into())),
            });
        }
    }

    /// Writes a group in one go; if that is refused, each submission by itself.
    fn append(&mut self, group: &[Submission]) -> Vec<Result<u64, AppendError>> {
        let all_essential = group.iter().all(|submission| submission.need == Need::Essential);
        let entries: Vec<_> = group.iter().flat_map(Submission::entries).collect();
        let first = self.log.next_lsn();
        match self.log.append(&entries, if all_essential { Need::Essential } else { Need::Ordinary }) {
            Ok(_) => {
                let ends = group.iter().scan(first - 1, |last, submission| {
                    *last += u64::try_from(submission.entries.len()).expect("a length fits 64 bits");
                    Some(Ok(*last))
                });
                ends.collect()
            }
            Err(AppendError::Failed(failure)) => group.iter().map(|_| Err(failure.clone().into())).collect(),
            Err(AppendError::Full | AppendError::Size(_)) => {
                let each = group.iter().map(|submission| {
                    let entries: Vec<_> = submission.entries().collect();
                    self.log.append(&entries, submission.need)
                });
                each.collect()
            }
        }
    }

    /// Does what time alone makes due.
    fn tick(&mut self) {
        if self.unsynced_since.is_some_and(|since| since.elapsed() >= SYNC_EVERY) {
            self.unsynced_since = None;
            let _ = self.log.sync();
        }
        let (now, every) = (Instant::now(), self.log.settings().reclaim_every);
        if self.log.health() == Health::Full && *self.reclaim_at.get_or_insert(now + every) <= now {
            let _ = self.log.reclaim();
            self.reclaim_at = Some(now + every);
        }
        self.publish();
    }

    fn publish(&self) {
        let mut queue = self.shared.lock();
        queue.durable_lsn = self.log.durable_lsn();
        queue.log_bytes = self.log.size_bytes();
    }

    fn tell_health(&mut self) {
        let health = self.log.health();
        if health != self.health {
            self.health = health;
            (self.on_health)(health);
        }
    }
}

impl Submission {
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries.iter().map(|entry| Entry { kind: entry.kind, slot: entry.slot, payload: &entry.payload })
    }
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission").field("size_bytes", &self.size_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
