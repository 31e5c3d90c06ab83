//! Connections to other nodes for visitors' streams: one a node, apart from those that carry packets. Who is alive, how
//! far away it is, and the first byte that says that a stream was taken.
//!
//! ```text
//! route ──▶ Relays ──▶ Node ──▶ line   one task a node: dials, watches, dials again while anybody is interested
//!                       └─▶ open       a stream: header out, first byte back, both within the node's patience
//! ```
//! A dead node is noticed by what does not come: every datagram is acknowledged by the other node's transport at once,
//! however slow the target behind it is. So a node from which nothing at all comes while something is asked of it is
//! doubted, until something comes. Each second it is asked for a sign of life, visitors or not: that measures the way, too.

mod line;
mod node;

pub use node::{Node, OpenError, Opened};

use super::{
    endpoint::{self, BindError},
    room::{Place, Room},
};
use crate::shutdown::Shutdown;
use line::Line;
use quinn::{Connection, Endpoint, IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Nodes that visitors' streams are passed on to. Cheap to share.
pub struct Relays {
    endpoints: Vec<Endpoint>,
    settings: quinn::ClientConfig,
    shutdown: Shutdown,
    nodes: Mutex<HashMap<SocketAddr, Arc<Node>>>,
    room: Room,
}

/// What is known of a node without asking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Time to the node and back, once measured.
    pub rtt: Option<Duration>,
    /// It goes away, or there is reason to think that it is dead, and it has not shown life since.
    pub is_suspect: bool,
    /// For how long it has been out of reach.
    pub unreachable: Option<Duration>,
}

/// Nodes that are known at a time.
const NODES: usize = 1_024;

/// Connections of other nodes, all together and from one source: half, since a cluster may live in one building.
const CONNECTIONS: usize = 1_024;
const CONNECTIONS_EACH: usize = 512;

/// Streams that another node may have under way to us at a time.
const STREAMS: u32 = 16_384;

/// How often something is said on a silent connection.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A connection on which nothing comes for this long is dead, with the streams in progress on it. New visitors do not wait
/// for it: see [`Node::is_suspect`]. Long enough for a machine that is short of time.
const SILENCE: Duration = Duration::from_secs(6);

/// Taken for the time to a node that was not measured yet: how soon a lost first packet is sent again.
const INITIAL_RTT: Duration = Duration::from_millis(60);

impl Relays {
    /// Dials from the first of `endpoints` whose family fits, with `tls` of [`crate::identity::tls::relay`].
    ///
    /// # Errors
    /// [`BindError::Tls`] if `tls` is not for QUIC.
    pub fn new(
        endpoints: Vec<Endpoint>,
        tls: Arc<rustls::ClientConfig>,
        shutdown: Shutdown,
    ) -> Result<Arc<Self>, BindError> {
        let mut settings = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        settings.transport_config(Arc::new(transport()));
        let room = Room::new(CONNECTIONS, CONNECTIONS_EACH);
        Ok(Arc::new(Self { endpoints, settings, shutdown, nodes: Mutex::default(), room }))
    }

    /// The node at `address`, which is dialed if it was not yet. None when too many are in use.
    pub fn node(self: &Arc<Self>, address: SocketAddr) -> Option<Arc<Node>> {
        let mut nodes = self.lock();
        if let Some(node) = nodes.get(&address) {
            node.touch();
            return Some(node.clone());
        }
        if nodes.len() >= NODES {
            return None;
        }
        let node = Arc::new(Node::new(address));
        nodes.insert(address, node.clone());
        self.shutdown.spawn(Line::new(self.clone(), node.clone()).run());
        Some(node)
    }

    /// What is known of the node at `address`.
    pub fn sight(&self, address: SocketAddr) -> Sight {
        let node = self.lock().get(&address).cloned();
        node.map(|node| node.sight()).unwrap_or_default()
    }

    /// Lets another node's connection, which came in, send streams at full speed; `None` if there is no room for it.
    pub fn admit(&self, connection: &Connection) -> Option<Place> {
        let place = self.room.enter(connection.remote_address().ip())?;
        endpoint::widen(connection);
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS));
        Some(place)
    }

    /// Nodes that are known, and connections that came in.
    pub fn connections(&self) -> (usize, usize) {
        (self.lock().len(), self.room.taken())
    }

    /// Forgets a node that nobody has asked for lately; false if somebody has.
    fn forget(&self, node: &Arc<Node>) -> bool {
        // Nodes are asked for under this lock.
        let mut nodes = self.lock();
        let idle = node.is_idle();
        if idle && nodes.get(&node.address()).is_some_and(|known| Arc::ptr_eq(known, node)) {
            nodes.remove(&node.address());
        }
        idle
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// For connections that we open. The other side opens one stream on them at most, with nothing in it, when it goes away.
fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .max_idle_timeout(Some(IdleTimeout::try_from(SILENCE).expect("6 s is far below the bound of 2^62 ms")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .receive_window(VarInt::from_u32(endpoint::LINK_RECEIVE_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    config
}
