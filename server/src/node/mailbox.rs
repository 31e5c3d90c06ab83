//! What waits for the core's thread. Each kind has a bound of its own, so that none keeps another out.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use specter_dht::{Ask, NodeId, Packet};
use specter_storage::log::{AppendError, Health};
use tokio::sync::oneshot;

use super::{Error, checkpoint, limits, status::RingStatus};

/// A user's question, and where its answer goes.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Result<specter_dht::Reply, Error>>,
}

/// Somebody looks at the ring.
#[derive(Debug)]
pub(super) struct Look {
    /// Whether this node is then to go on alone with the slots that are stranded in the picture.
    pub(super) forces: bool,
    pub(super) reply: oneshot::Sender<RingStatus>,
}

/// Everything that came since the core last looked.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) calls: Vec<Call>,
    pub(super) packets: Vec<(NodeId, Packet)>,
    pub(super) unreachable: Vec<SocketAddr>,
    /// What became of the records handed to the log.
    pub(super) written: Option<Result<u64, AppendError>>,
    pub(super) health: Option<Health>,
    /// What became of the checkpoint that was under way.
    pub(super) saved: Option<checkpoint::Outcome>,
    /// Where other nodes may be found.
    pub(super) seeds: Option<Vec<SocketAddr>>,
    pub(super) looks: Vec<Look>,
    pub(super) leave: Option<oneshot::Sender<()>>,
    pub(super) stop: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<Call>,
    packets: VecDeque<(NodeId, Packet)>,
    packet_bytes: usize,
    unreachable: VecDeque<SocketAddr>,
    written: Option<Result<u64, AppendError>>,
    health: Option<Health>,
    saved: Option<checkpoint::Outcome>,
    seeds: Option<Vec<SocketAddr>>,
    looks: Vec<Look>,
    leave: Option<oneshot::Sender<()>>,
    stop: bool,
    closed: bool,
}

/// What waits for the core's thread.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Mailbox {
    /// Waits until something comes, or for so long, and takes all of it, up to a bound on each kind.
    pub(super) fn take(&self, until: Option<Instant>) -> Batch {
        let mut waiting = self.lock();
        while waiting.is_empty() {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let calls = waiting.calls.len().min(limits::BATCH_CALLS);
        waiting.packet_bytes = 0;
        Batch {
            calls: waiting.calls.drain(..calls).collect(),
            packets: std::mem::take(&mut waiting.packets).into(),
            unreachable: std::mem::take(&mut waiting.unreachable).into(),
            written: waiting.written.take(),
            health: waiting.health.take(),
            saved: waiting.saved.take(),
            seeds: waiting.seeds.take(),
            looks: std::mem::take(&mut waiting.looks),
            leave: waiting.leave.take(),
            stop: waiting.stop,
        }
    }

    /// # Errors
    /// [`Error::Unavailable`] when too many wait, [`Error::Draining`] when the core has ended.
    pub(super) fn call(&self, call: Call) -> Result<(), Error> {
        self.put(|waiting| {
            if waiting.closed {
                return Err(Error::Draining);
            }
            if waiting.calls.len() >= limits::QUEUE {
                return Err(Error::Unavailable);
            }
            waiting.calls.push_back(call);
            Ok(())
        })
    }

    /// Takes a packet, or drops it when too many wait.
    pub(super) fn packet(&self, from: NodeId, packet: Packet, bytes: usize) {
        self.put(|waiting| {
            let has_room = waiting.packet_bytes + bytes <= limits::PACKETS_BYTES;
            if has_room && waiting.packets.len() < limits::PACKETS && !waiting.closed {
                waiting.packet_bytes += bytes;
                waiting.packets.push_back((from, packet));
            }
        });
    }

    pub(super) fn unreachable(&self, address: SocketAddr) {
        self.put(|waiting| {
            if waiting.unreachable.len() < limits::QUEUE {
                waiting.unreachable.push_back(address);
            }
        });
    }

    pub(super) fn written(&self, outcome: Result<u64, AppendError>) {
        self.put(|waiting| waiting.written = Some(outcome));
    }

    pub(super) fn health(&self, health: Health) {
        self.put(|waiting| waiting.health = Some(health));
    }

    pub(super) fn saved(&self, outcome: checkpoint::Outcome) {
        self.put(|waiting| waiting.saved = Some(outcome));
    }

    pub(super) fn seeds(&self, seeds: Vec<SocketAddr>) {
        self.put(|waiting| waiting.seeds = Some(seeds));
    }

    /// Asks for a picture of the ring; the sender is dropped when too many ask or the core has ended.
    pub(super) fn look(&self, look: Look) {
        self.put(|waiting| {
            if waiting.looks.len() < limits::LOOKS && !waiting.closed {
                waiting.looks.push(look);
            }
        });
    }

    pub(super) fn leave(&self, left: oneshot::Sender<()>) {
        self.put(|waiting| waiting.leave = Some(left));
    }

    pub(super) fn stop(&self) {
        self.put(|waiting| waiting.stop = true);
    }

    /// Nothing is taken any more; what waits is refused.
    pub(super) fn close(&self) {
        let calls = self.put(|waiting| {
            waiting.closed = true;
            waiting.looks.clear();
            std::mem::take(&mut waiting.calls)
        });
        for call in calls {
            // Whoever asked may have given up.
            call.reply.send(Err(Error::Draining)).ok();
        }
    }

    fn put<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        let Self {
            calls,
            packets,
            packet_bytes: _,
            unreachable,
            written,
            health,
            saved,
            seeds,
            looks,
            leave,
            stop,
            closed: _,
        } = self;
        let quiet = calls.is_empty() && packets.is_empty() && unreachable.is_empty() && written.is_none();
        let unasked = seeds.is_none() && looks.is_empty();
        quiet && unasked && health.is_none() && saved.is_none() && leave.is_none() && !stop
    }
}
