//! Packets between nodes: bytes of at most 1 MiB that mean nothing here, over QUIC between nodes of one cluster.
//!
//! ```text
//! send ──▶ queue ──▶ line ═══ a stream a packet ═══▶ reader ──▶ inbox      queue   what waits for one address
//!                                                                          line    one task an address, its connection
//!                                                                          reader  one task a connection that came in
//! ```
//! A packet may be lost, come late or come in another order; whoever sends it must live with that. So there is no retry,
//! nothing here waits for the reader of the inbox, and everything that is full drops what comes, and counts it.

mod line;
mod queue;
mod reader;

use super::{
    endpoint::{BindError, CLOSE_NORMAL},
    room::Room,
};
use crate::shutdown::Shutdown;
use bytes::Bytes;
use line::Line;
use queue::Queue;
use quinn::{Endpoint, IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use reader::Reader;
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Moves packets to and from other nodes.
pub struct Peers {
    endpoints: Vec<Endpoint>,
    settings: quinn::ClientConfig,
    inbox: mpsc::Sender<Arrival>,
    shutdown: Shutdown,
    lines: Mutex<Lines>,
    room: Room,
    counts: Counters,
}

/// What other nodes, or their silence, bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet of a node of this cluster.
    Packet {
        /// Where it came from: where that node listens, as nodes dial from the port on which they listen.
        from: SocketAddr,
        /// At most [`PACKET_BYTES`].
        bytes: Bytes,
    },
    /// Nobody answers there, or not as a node of this cluster, or the connection broke. Told once for each attempt;
    /// packets that waited for the address are lost, and the next one makes another attempt.
    Unreachable {
        /// As given to [`Peers::send`].
        address: SocketAddr,
    },
}

/// Packets so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent. Whether they arrived, only the other side knows.
    pub sent: u64,
    /// Dropped before they were sent: too long, no room, or the address cannot be reached.
    pub unsent: u64,
    /// Put into the inbox.
    pub received: u64,
    /// Dropped on arrival: broken off by the sender, too slow, or no room in the inbox.
    pub unread: u64,
}

/// Longest packet.
pub const PACKET_BYTES: usize = 1 << 20;

/// Addresses that packets can be under way to.
pub const ADDRESSES: usize = 1_024;

/// Connections of other nodes, all together and from one source: half, since a cluster may live in one building.
const CONNECTIONS: usize = 1_024;
const CONNECTIONS_EACH: usize = 512;

/// Packets that a node may have on the way to us on one connection, and their bytes.
const STREAMS: u32 = 256;
const WINDOW_BYTES: u32 = 16 << 20;

/// Bytes that were written to a connection and not acknowledged; more wait in the address's queue.
const SEND_WINDOW_BYTES: u64 = 4 << 20;

/// A connection on which the other node was not heard of for this long is dead. Less than a link has, since the node at
/// that address may be another by now that knows nothing of this connection.
const SILENCE: Duration = Duration::from_secs(15);

impl Peers {
    /// Sends from the first of `endpoints` whose family fits the address, with `tls` of [`crate::identity::tls::dial`].
    /// What arrives goes into `inbox`.
    ///
    /// # Errors
    /// [`BindError::Tls`] if `tls` is not for QUIC.
    pub fn start(
        endpoints: Vec<Endpoint>,
        tls: Arc<rustls::ClientConfig>,
        inbox: mpsc::Sender<Arrival>,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, BindError> {
        let mut settings = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        settings.transport_config(Arc::new(transport()));
        Ok(Arc::new(Self {
            endpoints,
            settings,
            inbox,
            shutdown,
            lines: Mutex::default(),
            room: Room::new(CONNECTIONS, CONNECTIONS_EACH),
            counts: Counters::default(),
        }))
    }

    /// Sends a packet to the node at `to`, or drops it: it never waits.
    pub fn send(self: &Arc<Self>, to: SocketAddr, packet: Bytes) {
        if packet.len() > PACKET_BYTES || !self.enqueue(to, packet) {
            self.counts.unsent.add(1);
        }
    }

    /// Reads the packets of a connection until it ends. It has shown a valid certificate of a node of this cluster, as
    /// those of [`super::accept::Accepted::Node`] have.
    pub fn accepted(self: &Arc<Self>, connection: quinn::Connection) {
        let from = connection.remote_address();
        self.seen(from);
        match self.room.enter(from.ip()) {
            Some(place) => self.shutdown.spawn(Reader::new(self.clone(), connection, place).run()),
            None => connection.close(CLOSE_NORMAL.into(), b"no room for another node"),
        }
    }

    /// A node has shown that it lives. A dial that it did not hear, because it had not started, would go on in vain for long.
    fn seen(&self, address: SocketAddr) {
        if let Some(known) = self.lock().by_address.get(&address) {
            known.queue.knock();
        }
    }

    /// Packets so far.
    pub fn counts(&self) -> Counts {
        let Counters { sent, unsent, received, unread } = &self.counts;
        Counts { sent: sent.read(), unsent: unsent.read(), received: received.read(), unread: unread.read() }
    }

    /// Addresses that are known, and connections that came in.
    pub fn connections(&self) -> (usize, usize) {
        (self.lock().by_address.len(), self.room.taken())
    }

    /// How long a round trip takes to each node to which there is a connection; at most [`ADDRESSES`].
    pub fn rtts(&self) -> Vec<(SocketAddr, Duration)> {
        let lines = self.lock();
        lines.by_address.iter().filter_map(|(address, known)| Some((*address, known.queue.rtt()?))).collect()
    }

    fn enqueue(self: &Arc<Self>, to: SocketAddr, packet: Bytes) -> bool {
        let mut lines = self.lock();
        if let Some(queue) = lines.used(to) {
            return queue.push(packet);
        }
        let Some(queue) = lines.enter(to) else { return false };
        self.shutdown.spawn(Line::new(self.clone(), to, queue.clone()).run());
        queue.push(packet)
    }

    /// Forgets an address to which nothing is to be sent; false if something is.
    fn forget(&self, address: SocketAddr, queue: &Arc<Queue>) -> bool {
        // Packets come in under this lock, so none is missed.
        let mut lines = self.lock();
        let idle = queue.is_idle();
        if idle && lines.by_address.get(&address).is_some_and(|known| Arc::ptr_eq(&known.queue, queue)) {
            lines.by_address.remove(&address);
        }
        idle
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// The addresses that have a task, at most [`ADDRESSES`].
#[derive(Debug, Default)]
struct Lines {
    by_address: HashMap<SocketAddr, Known>,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    queue: Arc<Queue>,
    /// The number of its last use.
    used: u64,
}

impl Lines {
    fn used(&mut self, address: SocketAddr) -> Option<&Queue> {
        self.uses += 1;
        let known = self.by_address.get_mut(&address)?;
        known.used = self.uses;
        Some(&known.queue)
    }

    /// A queue for a new address, perhaps in place of the idle one that was not used for the longest time.
    fn enter(&mut self, address: SocketAddr) -> Option<Arc<Queue>> {
        if self.by_address.len() >= ADDRESSES {
            let idle = self.by_address.iter().filter(|(_, known)| known.queue.is_idle());
            let (oldest, _) = idle.min_by_key(|(_, known)| known.used)?;
            let oldest = *oldest;
            if let Some(known) = self.by_address.remove(&oldest) {
                known.queue.close();
            }
        }
        self.uses += 1;
        let queue = Arc::<Queue>::default();
        self.by_address.insert(address, Known { queue: queue.clone(), used: self.uses });
        Some(queue)
    }
}

#[derive(Debug, Default)]
struct Counters {
    sent: Counter,
    unsent: Counter,
    received: Counter,
    unread: Counter,
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, packets: usize) {
        self.0.fetch_add(packets as u64, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// For connections that we open: the other side sends nothing on them.
fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::try_from(SILENCE).expect("15 s is far below the bound of 2^62 ms")))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    config
}

#[cfg(test)]
mod tests;
