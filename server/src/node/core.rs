//! The one thread that owns the node's core: it feeds it what comes, and carries out what it wants.
//!
//! ```text
//! Handle ─▶ mailbox ─▶ core: dht::Node ─▶ records ─▶ the log's thread ─▶ mailbox (persisted)
//! peers  ─▶    "                       ─▶ packets ─▶ peers
//!                                      ─▶ replies ─▶ Handle
//! ```
//! The core holds back whatever rests on a record until the log says that it is on the disk, so this thread never waits
//! for the disk: what comes meanwhile is written together with the next sync.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use specter_dht::{Event, Failure, Input, NodeId, Output, Packet, Record, codec, kv::RequestId, ring::Destination};
use specter_storage::{
    disk::Disk,
    log::{AppendError, Health, Need},
    writer::{OwnedEntry, Writer},
};
use tokio::{runtime, sync::oneshot};
use tracing::{debug, error, info, warn};

use super::{
    Error,
    checkpoint::Checkpoints,
    limits,
    mailbox::{Batch, Call, Look, Mailbox},
    neighbours::Lookout,
    status::RingStatus,
};
use crate::transport::peers::Peers;

/// The kind of all our records in the log: the record itself says what it is.
pub(super) const RECORD: u8 = 1;

pub(super) struct Core<D: Disk<File: Send> + Send + 'static> {
    pub(super) me: NodeId,
    pub(super) node: specter_dht::Node,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) peers: Arc<Peers>,
    /// Sending needs the runtime that the connections live in.
    pub(super) runtime: runtime::Handle,
    pub(super) writer: Writer<D>,
    pub(super) checkpoints: Checkpoints,
    pub(super) lookout: Lookout,
    pub(super) started: Instant,
    pub(super) calls: HashMap<RequestId, oneshot::Sender<Result<specter_dht::Reply, Error>>>,
    pub(super) counted: u64,
    /// Records that wait until the log has answered those before them, and the position of the last.
    pub(super) records: Vec<OwnedEntry>,
    pub(super) position: u64,
    /// Records that the log has; kept, since a full disk takes none of them.
    pub(super) in_flight: Option<Submission>,
    pub(super) disk: Health,
    /// The disk is full, and so is what was kept in reserve.
    pub(super) has_no_reserve: bool,
    pub(super) wake: specter_dht::Instant,
    pub(super) left: Option<oneshot::Sender<()>>,
    pub(super) stopping: Option<Instant>,
}

/// Records on their way to the disk.
pub(super) struct Submission {
    entries: Vec<OwnedEntry>,
    last: u64,
    need: Need,
}

impl<D: Disk<File: Send> + Send + 'static> Core<D> {
    /// Runs until it is told to stop and everything that was asked is answered or late.
    pub(super) fn run(mut self) {
        let runtime = self.runtime.clone();
        let _context = runtime.enter();
        self.drain();
        self.submit();
        while !self.is_done() {
            let batch = self.mailbox.take(self.wake_at());
            self.step(batch);
        }
        self.mailbox.close();
        for (_, reply) in self.calls.drain() {
            // Whoever asked may have given up.
            reply.send(Err(Error::Unknown)).ok();
        }
        self.save_the_rest();
        if let Err(failure) = self.writer.close() {
            warn!(error = %failure, "the log was not closed in order; the next start reads it as after a crash");
        }
    }

    /// Writes the log down, unless records still wait for a disk that does not take them.
    fn save_the_rest(&mut self) {
        self.checkpoints.end();
        let ended = self.mailbox.take(Some(Instant::now())).saved;
        let mut saved = ended.and_then(|outcome| self.checkpoints.ended(outcome));
        if self.disk != Health::Failed && self.writer.durable_lsn() >= self.position {
            saved = self.checkpoints.last(&self.node, self.position).or(saved);
        }
        if let Some(saved) = saved {
            self.writer.forget(saved);
        }
    }

    fn is_done(&self) -> bool {
        let Some(until) = self.stopping else { return false };
        Instant::now() >= until || (self.calls.is_empty() && self.in_flight.is_none())
    }

    fn now(&self) -> specter_dht::Instant {
        let micros = self.started.elapsed().as_micros();
        specter_dht::Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn wake_at(&self) -> Option<Instant> {
        let wake = (self.wake != specter_dht::Instant::FAR)
            .then(|| self.started.checked_add(Duration::from_micros(self.wake.as_micros())))
            .flatten();
        wake.into_iter().chain(self.stopping).min()
    }

    fn step(&mut self, batch: Batch) {
        let Batch { calls, packets, unreachable, written, health, saved, seeds, looks, leave, stop } = batch;
        if let Some(outcome) = written {
            self.written(outcome);
        }
        if let Some(health) = health {
            self.note_health(health);
        }
        if let Some(saved) = saved.and_then(|outcome| self.checkpoints.ended(outcome)) {
            self.writer.forget(saved);
        }
        for Call { ask, reply } in calls {
            self.counted += 1;
            let id = RequestId(self.counted);
            self.calls.insert(id, reply);
            self.input(Input::Request { id, ask });
        }
        for (from, packet) in packets {
            self.input(Input::Packet { from, packet });
        }
        for address in unreachable {
            let node = self.node.ring().neighbours().find(|peer| peer.address == address).map(|peer| peer.id);
            if let Some(node) = node {
                self.input(Input::Unreachable { node });
            }
        }
        if let Some(seeds) = seeds {
            self.input(Input::Seeds(seeds));
        }
        for Look { forces, reply } in looks {
            let status = RingStatus::of(&self.node, self.now());
            if forces {
                self.input(Input::Force);
            }
            // Whoever asked may have given up.
            reply.send(status).ok();
        }
        if let Some(left) = leave {
            self.left = Some(left);
            self.input(Input::Leave);
        }
        if stop && self.stopping.is_none() {
            self.stopping = Some(Instant::now() + limits::STOP);
        }
        if self.wake <= self.now() {
            self.input(Input::Timeout);
        }
        self.submit();
        let (durable_lsn, log_bytes) = (self.writer.durable_lsn(), self.writer.log_bytes());
        self.checkpoints.go_on(&self.node, self.position, durable_lsn, log_bytes);
        self.lookout.look(self.node.ring(), self.now());
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(self.now(), input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.node.poll_output() {
                Output::Transmit { to, packet } => self.send(to, packet),
                Output::Append { position, record } => self.append(position, &record),
                Output::Reply { id, reply } => {
                    if let Some(caller) = self.calls.remove(&id) {
                        // Whoever asked may have given up.
                        caller.send(reply.map_err(Error::from)).ok();
                    }
                }
                Output::Event(event) => self.note(&event),
                Output::Timeout(at) => {
                    self.wake = at;
                    return;
                }
            }
        }
    }

    fn send(&self, to: Destination, packet: Packet) {
        let address = match to {
            Destination::Node(_, address) | Destination::Address(address) => address,
        };
        let mut bytes = self.me.0.to_be_bytes().to_vec();
        match codec::encode(&packet, &mut bytes) {
            Ok(()) => self.peers.send(address, Bytes::from(bytes)),
            Err(error) => error!(%error, "a packet of this node is larger than allowed and was not sent"),
        }
    }

    fn append(&mut self, position: u64, record: &Record) {
        let slot = match record {
            Record::Slot { slot, .. } => slot.0,
            Record::Cluster { .. } | Record::Remember(_) | Record::Forget(_) => 0,
        };
        let mut payload = Vec::new();
        if let Err(error) = codec::encode(record, &mut payload) {
            // Kept as an empty place: the record and everything behind it never counts as persisted.
            error!(%error, "a record of this node is larger than allowed; it stops writing");
            self.note_health(Health::Failed);
            return;
        }
        self.checkpoints.tracker().note(record);
        self.position = position;
        self.records.push(OwnedEntry { kind: RECORD, slot, payload });
    }

    /// Hands what was appended to the log, unless that has not answered yet: what comes meanwhile shares the next sync.
    ///
    /// On a full disk nothing is accepted any more, so that what comes is small and cannot wait: promises, members. It goes
    /// into the reserve, behind what was accepted before.
    fn submit(&mut self) {
        let need = match self.disk {
            Health::Open => Need::Ordinary,
            Health::Full if !self.has_no_reserve => Need::Essential,
            Health::Full | Health::Failed => return,
        };
        if self.records.is_empty() || self.in_flight.is_some() {
            return;
        }
        let entries = std::mem::take(&mut self.records);
        let mailbox = self.mailbox.clone();
        if self.writer.submit(entries.clone(), need, move |outcome| mailbox.written(outcome)).is_err() {
            error!("the log takes no records although none wait");
            self.note_health(Health::Failed);
        }
        self.in_flight = Some(Submission { entries, last: self.position, need });
    }

    /// The log has answered.
    fn written(&mut self, outcome: Result<u64, AppendError>) {
        let Some(Submission { mut entries, last, need }) = self.in_flight.take() else { return };
        match outcome {
            Ok(_) => self.input(Input::Persisted { upto: last }),
            Err(AppendError::Full) => {
                // They go again, before all others, when there is room.
                entries.append(&mut self.records);
                self.records = entries;
                self.has_no_reserve = need == Need::Essential;
                self.note_health(Health::Full);
            }
            Err(error) => {
                error!(%error, "the log failed: this node keeps no more writes until it is started again");
                self.note_health(Health::Failed);
            }
        }
    }

    fn note_health(&mut self, health: Health) {
        if self.disk == health || self.disk == Health::Failed {
            return;
        }
        match health {
            Health::Open => info!("the log takes records again"),
            Health::Full => {
                warn!("the disk of the data directory is full: this node keeps no writes until there is room")
            }
            Health::Failed => error!("the log has failed: this node keeps no writes and has no vote on new ones"),
        }
        self.disk = health;
        self.has_no_reserve &= health != Health::Open;
        self.input(Input::ReadOnly(health != Health::Open));
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Joined => info!("this node is a member of the ring"),
            Event::Left => {
                if let Some(left) = self.left.take() {
                    // Whoever waited may have given up.
                    left.send(()).ok();
                }
            }
            Event::Forced { slot } => {
                warn!(slot = slot.0, "this node goes on alone with a slot, as an operator wished")
            }
            Event::Foreign { from } => debug!(node = %from, "a packet of another cluster was refused"),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable | Failure::Busy => Self::Unavailable,
            Failure::Unknown => Self::Unknown,
            Failure::ReadOnly => Self::ReadOnly,
            Failure::Invalid => Self::TooLarge { what: "the register", limit: limits::REGISTER_BYTES },
        }
    }
}
