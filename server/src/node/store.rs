//! The one thread that owns the store's state, and how it is started and stopped.
//!
//! All calls that wait are applied in memory in their order, written in one transaction, and answered after it is on
//! disk. A transaction that fails is taken back in memory as well.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet},
    io,
    path::Path,
    thread,
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::{
    Error, Handle, Key, OpId,
    call::{Call, Question, Reply, Request, answer_to},
    limits,
    register::{Change, Head, Register, Write, WriteAnswer},
};
use crate::storage::{
    folder::{Folder, FolderError},
    snapshot::{self, CommitError, LoadError, Snapshot},
};

/// The running store of this node. Dropping it and every [`Handle`] ends it as well.
#[derive(Debug)]
pub struct Node {
    calls: mpsc::Sender<Call>,
}

impl Node {
    /// Opens the store in a data directory and starts its thread.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is running then.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        Self::start(Snapshot::open(Folder::open(data_dir)?)?)
    }

    pub(super) fn start(snapshot: Snapshot) -> Result<Self, OpenError> {
        let (sender, calls) = mpsc::channel(limits::QUEUE);
        let store = Store::load(snapshot, calls, Instant::now())?;
        thread::Builder::new().name("store".to_owned()).spawn(move || store.run()).map_err(OpenError::Thread)?;
        Ok(Self { calls: sender })
    }

    /// What others ask the store through.
    pub fn handle(&self) -> Handle {
        Handle::new(self.calls.clone())
    }

    /// Ends the store: calls that wait are still done, later ones get [`Error::Draining`]. Returns when the file is
    /// closed and the data directory is free.
    pub async fn stop(self) {
        let (reply, closed) = oneshot::channel();
        let request = Request::Stop(reply);
        // Both fail only if the thread has ended already.
        self.calls.send(Call { key: Key::new([]), request, deadline: Instant::now() }).await.ok();
        closed.await.ok();
    }
}

/// Why the store cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The file in it.
    #[error(transparent)]
    Snapshot(#[from] snapshot::OpenError),
    /// Its contents.
    #[error("the store's registers cannot be read; restore the data directory from a backup")]
    Load(#[from] LoadError),
    /// One register.
    #[error("the register of key {key:?} is damaged; restore the data directory from a backup")]
    Register {
        /// Its key.
        key: Key,
    },
    /// No thread.
    #[error("the store's thread cannot be started; the system has too many threads or too little memory")]
    Thread(#[source] io::Error),
}

struct Store {
    calls: mpsc::Receiver<Call>,
    snapshot: Snapshot,
    registers: HashMap<Key, Register>,
    /// Largest version or token given out.
    sequence: u64,
    disk: Disk,
    /// When to look at registers whose lease may end or that may be forgotten; one entry for each in `watched`.
    events: BinaryHeap<Reverse<(Instant, Key)>>,
    watched: HashSet<Key>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    Writable,
    /// Full, or locked by another program. Each write tries again.
    Full,
    /// Final: after a failed flush nobody knows what is on disk until the file is opened anew.
    Failed,
}

/// What one transaction will write, and what is needed to take it back.
#[derive(Default)]
struct Batch {
    calls: usize,
    bytes: usize,
    /// Heads as they were before the batch.
    heads: BTreeMap<Key, Option<Head>>,
    children: Vec<(Key, Vec<u8>, Change)>,
    forgotten: Vec<(Key, Register)>,
    replies: Vec<Answered>,
    /// Reads of keys that the batch has changed: answered when that is on disk.
    questions: Vec<(Key, Question)>,
}

struct Answered {
    op_id: OpId,
    reply: Reply,
    answer: Result<WriteAnswer, Error>,
    changed: bool,
}

impl Store {
    fn load(snapshot: Snapshot, calls: mpsc::Receiver<Call>, now: Instant) -> Result<Self, OpenError> {
        let (mut heads, mut children) = (Vec::new(), HashMap::<Key, BTreeSet<Vec<u8>>>::new());
        let sequence = snapshot.load(
            |key, head| heads.push((Key::new(key), head)),
            |key, child| {
                children.entry(Key::new(key)).or_default().insert(child);
            },
        )?;
        let mut store = Self {
            calls,
            snapshot,
            registers: HashMap::with_capacity(heads.len()),
            sequence,
            disk: Disk::Writable,
            events: BinaryHeap::new(),
            watched: HashSet::new(),
        };
        for (key, bytes) in heads {
            let head = postcard::from_bytes(&bytes).map_err(|_| OpenError::Register { key: key.clone() })?;
            let register = Register::restore(head, children.remove(&key).unwrap_or_default(), now);
            store.registers.insert(key.clone(), register);
            store.watch(key);
        }
        // Every write of a child writes its head as well, so a set without one was not written by us.
        match children.into_keys().next() {
            Some(key) => Err(OpenError::Register { key }),
            None => Ok(store),
        }
    }

    fn run(mut self) {
        while let Some(first) = self.calls.blocking_recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            let mut stop = None;
            while let Some(call) = next {
                if let Some(reply) = self.take(call, &mut batch) {
                    self.calls.close();
                    stop = Some(reply);
                }
                next = if batch.is_full() { None } else { self.calls.try_recv().ok() };
            }
            self.finish(batch);
            if let Some(reply) = stop {
                // Calls that came in before the queue was closed and did not fit into this batch.
                while let Ok(call) = self.calls.try_recv() {
                    call.request.refuse(Error::Draining);
                }
                drop(self.snapshot);
                // Whoever asked may have given up.
                reply.send(()).ok();
                return;
            }
        }
    }

    /// Applies one call; returns whom to tell when it asks to stop.
    fn take(&mut self, call: Call, batch: &mut Batch) -> Option<oneshot::Sender<()>> {
        let now = Instant::now();
        batch.calls += 1;
        match call.request {
            Request::Stop(reply) => return Some(reply),
            request if call.deadline <= now => request.refuse(Error::Unavailable),
            Request::Read(question) if batch.heads.contains_key(&call.key) => {
                batch.questions.push((call.key, question))
            }
            Request::Read(question) => self.answer(&call.key, question),
            Request::Write { reply, .. } if self.disk == Disk::Failed => answer_to(reply, Err(Error::ReadOnly)),
            Request::Write { op_id, write, reply } => {
                let (answer, change) = self.apply(now, &call.key, op_id, write, batch);
                batch.replies.push(Answered { op_id, reply, answer, changed: change != Change::Nothing });
                self.watch(call.key);
            }
        }
        None
    }

    fn apply(
        &mut self,
        now: Instant,
        key: &Key,
        op_id: OpId,
        write: Write,
        batch: &mut Batch,
    ) -> (Result<WriteAnswer, Error>, Change) {
        let before = self.registers.get(key).map(|register| register.head().clone());
        let child = write.child().cloned();
        let bytes = write.size_bytes();
        let register = self.registers.entry(key.clone()).or_default();
        let (answer, change) = register.apply(now, op_id, write, self.sequence + 1);
        if change == Change::Nothing {
            if before.is_none() {
                self.registers.remove(key);
            }
            return (answer, change);
        }
        self.sequence += 1;
        batch.bytes += bytes;
        batch.heads.entry(key.clone()).or_insert(before);
        if let Some(child) = child
            && change != Change::Head
        {
            batch.children.push((key.clone(), child, change));
        }
        (answer, change)
    }

    fn answer(&self, key: &Key, question: Question) {
        match self.registers.get(key) {
            Some(register) => question(Ok(register)),
            None => question(Ok(&Register::default())),
        }
    }

    /// Writes a batch and answers it.
    fn finish(&mut self, mut batch: Batch) {
        let failure = if batch.heads.is_empty() {
            None
        } else {
            self.sweep(&mut batch);
            self.commit(&batch).err()
        };
        let Some(failure) = failure else {
            for Answered { reply, answer, .. } in batch.replies {
                answer_to(reply, answer);
            }
            for (key, question) in batch.questions {
                self.answer(&key, question);
            }
            return;
        };
        let unknown = self.note_failure(failure) == Disk::Failed;
        self.undo(batch.heads, batch.children, batch.forgotten);
        // Answers without a change may rest on one that was taken back, so they are withdrawn as well.
        for Answered { op_id, reply, changed, answer: _ } in batch.replies {
            let error = if unknown && changed { Error::Unknown { op_id } } else { Error::ReadOnly };
            answer_to(reply, Err(error));
        }
        for (key, question) in batch.questions {
            self.answer(&key, question);
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut heads = Vec::with_capacity(batch.heads.len());
        for key in batch.heads.keys() {
            if let Some(register) = self.registers.get(key) {
                let bytes = postcard::to_stdvec(register.head()).expect("a head has only encodable fields");
                heads.push((key, bytes));
            }
        }
        let heads = heads.iter().map(|(key, head)| snapshot::Change::Head { key: key.as_bytes(), head });
        let children = batch.children.iter().map(|(key, child, change)| match change {
            Change::Removed => snapshot::Change::NoChild { key: key.as_bytes(), child },
            Change::Added | Change::Head | Change::Nothing => snapshot::Change::Child { key: key.as_bytes(), child },
        });
        let forgotten = batch.forgotten.iter().map(|(key, _)| snapshot::Change::NoHead { key: key.as_bytes() });
        self.snapshot.commit(self.sequence, heads.chain(children).chain(forgotten))?;
        if self.disk == Disk::Full {
            self.disk = Disk::Writable;
            info!("the store takes writes again");
        }
        Ok(())
    }

    fn note_failure(&mut self, failure: CommitError) -> Disk {
        let (disk, action) = match failure {
            CommitError::Full(_) => (Disk::Full, "make room on it"),
            CommitError::Busy(_) => (Disk::Full, "end the program that writes to it"),
            CommitError::Failed(_) => (Disk::Failed, "repair the disk and restart the node"),
        };
        if self.disk != disk {
            let cause = std::error::Error::source(&failure).map(ToString::to_string);
            error!(error = %failure, cause, action, "the store takes no writes");
        }
        self.disk = disk;
        disk
    }

    fn undo(
        &mut self,
        heads: BTreeMap<Key, Option<Head>>,
        children: Vec<(Key, Vec<u8>, Change)>,
        forgotten: Vec<(Key, Register)>,
    ) {
        let now = Instant::now();
        for (key, child, change) in children.into_iter().rev() {
            if let Some(register) = self.registers.get_mut(&key) {
                register.undo_child(child, change);
            }
        }
        for (key, before) in heads {
            match (before, self.registers.get_mut(&key)) {
                (Some(head), Some(register)) => register.undo_head(head, now),
                (None, _) => {
                    self.registers.remove(&key);
                }
                (Some(_), None) => {}
            }
        }
        for (key, register) in forgotten {
            self.registers.insert(key.clone(), register);
            self.watch(key);
        }
    }

    /// Ends leases whose time is up and forgets registers that are empty, some with each transaction.
    fn sweep(&mut self, batch: &mut Batch) {
        let now = Instant::now();
        for _ in 0..SWEEP {
            if self.events.peek().is_none_or(|Reverse((due, _))| *due > now) {
                return;
            }
            let Some(Reverse((_, key))) = self.events.pop() else { return };
            self.watched.remove(&key);
            let Some(register) = self.registers.get_mut(&key) else { continue };
            let before = register.head().clone();
            if register.expire(now) {
                batch.heads.entry(key.clone()).or_insert(Some(before));
            }
            if register.is_forgettable(now) && !batch.heads.contains_key(&key) {
                if let Some(register) = self.registers.remove(&key) {
                    batch.forgotten.push((key, register));
                }
            } else {
                self.watch(key);
            }
        }
    }

    /// Sees to it that the register is looked at when something about it will be due.
    fn watch(&mut self, key: Key) {
        if self.watched.contains(&key) {
            return;
        }
        if let Some(due) = self.registers.get(&key).and_then(Register::next_event) {
            self.watched.insert(key.clone());
            self.events.push(Reverse((due, key)));
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.calls >= limits::BATCH_CALLS || self.bytes >= limits::BATCH_BYTES
    }
}

/// Registers looked at with each transaction: more than a transaction of one call can add, so none pile up.
const SWEEP: usize = 2 * limits::BATCH_CALLS;
