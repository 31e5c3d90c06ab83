//! Routes: who owns a hostname, which links of which nodes serve it, and a stream to its target.
//!
//! ```text
//! key       what the store holds about names, and under which keys
//! publish   claims, checks and releases names for clients (implements link::Directory)
//! announce  tells other nodes what the links of this one serve
//! table     which nodes have a link for a name; a bounded cache over the store
//! budget    how many questions may be asked in some time (pure)
//! pick      in which order the ways to a target are tried (pure)
//! ```
//! The gateway asks [`Router`] and nothing below it.

mod announce;
mod budget;
mod key;
mod pick;
pub mod publish;
mod table;
#[cfg(test)]
mod tests;

pub use crate::link::{
    open::{Carrier, LinkStream, Refusal, or_doubt, read_status},
    registry::Tunnel,
};

use crate::{
    link::{
        open,
        registry::{Link, Registry},
    },
    node::Handle,
    shutdown::Shutdown,
    transport::relay::{self, OpenError, Relays},
};
use pick::Candidate;
use specter_wire::{error::ErrorCode, id::LinkId, name::Hostname, stream::StreamKind};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use table::{Known, Table};
use tokio::time::timeout;

/// Finds tunnels and opens streams to them.
pub struct Router {
    registry: Arc<Registry>,
    relays: Arc<Relays>,
    table: Table,
    turn: AtomicUsize,
}

/// Ways to one target that are tried for one visitor.
pub const WAYS: usize = 5;

/// A visitor of a tunnel with a link here does not wait longer for news of others, even if that link may be dead.
const ASIDE: Duration = Duration::from_millis(200);

/// Nor does one for whom all ways led nowhere, until the store tells of another: it may be out of reach for the same reason.
const AGAIN: Duration = Duration::from_secs(1);

impl Router {
    /// A router over the links of this node, which others dial at `node`, and those of other nodes, as the store knows them.
    pub fn new(
        registry: Arc<Registry>,
        relays: Arc<Relays>,
        store: &Handle,
        node: SocketAddr,
        shutdown: Shutdown,
    ) -> Self {
        Self { registry, relays, table: Table::new(store, node, shutdown), turn: AtomicUsize::new(0) }
    }

    /// What is published under `hostname`.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHostname`], [`ErrorCode::NoLiveLink`], or [`ErrorCode::Unavailable`] when the store cannot tell.
    pub async fn find(&self, hostname: &Hostname) -> Result<Tunnel, Refusal> {
        if let Some(tunnel) = self.registry.tunnel(hostname) {
            return Ok(tunnel);
        }
        let known = self.look_up(hostname, false).await?;
        known.routes.first().map(|route| route.tunnel.clone()).ok_or_else(|| absent(&known))
    }

    /// The ways to the target of `hostname` for streams of `kind`.
    ///
    /// # Errors
    /// As [`Router::find`]; also [`ErrorCode::WrongKind`] when the tunnel does not carry `kind`.
    pub async fn search<'a>(&'a self, hostname: &'a Hostname, kind: StreamKind) -> Result<Search<'a>, Refusal> {
        let (tunnel, ways) = self.ways(hostname, kind, false).await?;
        Ok(Search {
            router: self,
            hostname,
            kind,
            tunnel,
            ways: ways.into_iter(),
            tried: Vec::new(),
            stage: Stage::First,
        })
    }

    /// Opens a stream of raw bytes to the target of `hostname`, by the first way that takes it. The target's own answer is
    /// still to come: its first byte is read with [`read_status`].
    ///
    /// # Errors
    /// As [`Router::search`] and [`Way::open`].
    pub async fn open(&self, hostname: &Hostname, visitor: SocketAddr) -> Result<LinkStream, Refusal> {
        let mut search = self.search(hostname, StreamKind::Raw).await?;
        let mut refusal = Refusal(ErrorCode::NoLiveLink);
        while let Some(way) = search.next().await {
            match way.open(hostname, StreamKind::Raw, visitor).await {
                Ok(stream) => return Ok(stream),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The ways in the order to try them, at least one. `again` if others have led nowhere.
    async fn ways(&self, hostname: &Hostname, kind: StreamKind, again: bool) -> Result<(Tunnel, Vec<Way>), Refusal> {
        let own = self.registry.serving(hostname);
        if let Some(own) = own.as_ref().filter(|own| !again && !own.trusted.is_empty()) {
            check(&own.tunnel, kind)?;
            return Ok((own.tunnel.clone(), own.trusted.iter().cloned().map(|link| Way(Hop::Link(link))).collect()));
        }
        let known = match &own {
            None => Some(self.look_up(hostname, again).await?),
            Some(_) => timeout(ASIDE, self.look_up(hostname, again)).await.ok().and_then(Result::ok),
        };
        let (near, far) = known.as_ref().map(|known| self.nodes(hostname, known)).unwrap_or_default();
        let (tunnel, trusted, suspect) = match (own, &known) {
            (Some(own), _) => (own.tunnel, own.trusted, own.suspect),
            (None, Some(known)) => {
                let route = known.routes.first().ok_or_else(|| absent(known))?;
                (route.tunnel.clone(), Vec::new(), Vec::new())
            }
            (None, None) => return Err(Refusal(ErrorCode::NoLiveLink)),
        };
        check(&tunnel, kind)?;
        let links = |links: Vec<Arc<Link>>| links.into_iter().map(|link| Way(Hop::Link(link)));
        let ways: Vec<Way> = links(trusted).chain(near).chain(links(suspect)).chain(far).take(WAYS).collect();
        // None when there is no room for another node, most likely.
        if ways.is_empty() { Err(Refusal(ErrorCode::NoLiveLink)) } else { Ok((tunnel, ways)) }
    }

    async fn look_up(&self, hostname: &Hostname, again: bool) -> Result<Arc<Known>, Refusal> {
        let known = if again { self.table.look_again(hostname).await } else { self.table.look_up(hostname).await };
        known.map_err(|error| {
            tracing::warn!(%error, "a visitor's hostname could not be looked up");
            Refusal(ErrorCode::Unavailable)
        })
    }

    /// The other nodes that serve a name: those to try first, and those to try last.
    fn nodes(&self, hostname: &Hostname, known: &Known) -> (Vec<Way>, Vec<Way>) {
        if known.is_ours && self.registry.tunnel(hostname).is_none() {
            // An earlier life of this node, most likely.
            self.registry.changes().note(hostname);
        }
        let candidates: Vec<Candidate> = known
            .routes
            .iter()
            .map(|route| Candidate { sight: self.relays.sight(route.node), missed: known.is_missed(route.node) })
            .collect();
        let (near, far) = pick::order(&candidates, self.turn.fetch_add(1, Ordering::Relaxed));
        let way = |index: &usize| {
            // From now on it is dialed and measured, so that it is there when it is needed.
            let node = self.relays.node(known.routes[*index].node)?;
            Some(Way(Hop::Node { node, table: self.table.clone(), patient: false }))
        };
        (near.iter().take(WAYS).filter_map(way).collect(), far.iter().take(WAYS).filter_map(way).collect())
    }
}

/// The ways to one target, one after the other. When none of them leads there, the store is asked once more, for what may
/// have changed; at last, a node that was only too slow is given more time.
pub struct Search<'a> {
    router: &'a Router,
    hostname: &'a Hostname,
    kind: StreamKind,
    tunnel: Tunnel,
    ways: std::vec::IntoIter<Way>,
    tried: Vec<Way>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    Again,
    Last,
}

impl Search<'_> {
    /// What is known of the tunnel.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// The next way to try. Each but the last is to be left soon if it does not take the visitor.
    pub async fn next(&mut self) -> Option<Way> {
        loop {
            if let Some(way) = self.ways.next() {
                self.tried.push(way.clone());
                return Some(way);
            }
            match self.stage {
                Stage::First => {
                    self.stage = Stage::Again;
                    let again = self.router.ways(self.hostname, self.kind, true);
                    let found = timeout(AGAIN, again).await.ok().and_then(Result::ok);
                    let mut ways = found.map(|(_, ways)| ways).unwrap_or_default();
                    ways.retain(|way| self.tried.iter().all(|tried| tried.id() != way.id()));
                    self.ways = ways.into_iter();
                }
                Stage::Again => {
                    self.stage = Stage::Last;
                    let patiently = self.tried.iter().find_map(Way::patiently);
                    self.ways = patiently.into_iter().collect::<Vec<_>>().into_iter();
                }
                Stage::Last => return None,
            }
        }
    }
}

fn absent(known: &Known) -> Refusal {
    Refusal(if known.is_registered { ErrorCode::NoLiveLink } else { ErrorCode::UnknownHostname })
}

fn check(tunnel: &Tunnel, kind: StreamKind) -> Result<(), Refusal> {
    let carried = match kind {
        StreamKind::Raw => tunnel.carries.raw(),
        StreamKind::Http1 | StreamKind::Http2 => tunnel.carries.http(),
        StreamKind::Life => false,
    };
    if carried { Ok(()) } else { Err(Refusal(ErrorCode::WrongKind)) }
}

/// One way to a target.
#[derive(Clone, Debug)]
pub struct Way(Hop);

/// Where a way leads first.
#[derive(Clone, Debug)]
enum Hop {
    Link(Arc<Link>),
    Node { node: Arc<relay::Node>, table: Table, patient: bool },
}

/// Tells ways apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WayId {
    /// A link of this node.
    Link(LinkId),
    /// Another node, by its address.
    Node(SocketAddr),
}

impl Way {
    /// Which way it is.
    pub fn id(&self) -> WayId {
        match &self.0 {
            Hop::Link(link) => WayId::Link(link.id()),
            Hop::Node { node, .. } => WayId::Node(node.address()),
        }
    }

    /// Whether a connection that was made earlier by this way may be used: not if the other end may be dead.
    pub fn is_live(&self) -> bool {
        match &self.0 {
            Hop::Link(link) => !link.is_suspect(),
            Hop::Node { node, .. } => !node.is_suspect(),
        }
    }

    /// Whether what must not be lost may be sent on such a connection. Another node is asked for a sign of life, as it is for
    /// each new stream; for a link its own task looks after that.
    pub async fn proves_life(&self) -> bool {
        match &self.0 {
            Hop::Link(_) => true,
            Hop::Node { node, .. } => node.proves_life().await,
        }
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`ErrorCode::NoLiveLink`] or [`ErrorCode::Limit`] among others, before anything of the visitor's was sent: another way
    /// may be tried.
    pub async fn open(
        &self,
        hostname: &Hostname,
        kind: StreamKind,
        visitor: SocketAddr,
    ) -> Result<LinkStream, Refusal> {
        let (node, table, patient) = match &self.0 {
            Hop::Link(link) => return open::open(link, hostname, kind, visitor).await,
            Hop::Node { node, table, patient } => (node, table, *patient),
        };
        open::open_by(node, hostname, kind, visitor, patient).await.map_err(|error| {
            tracing::debug!(node = %node.address(), %hostname, %error, "a node did not take a visitor");
            match error {
                OpenError::Unreachable | OpenError::Slow => Refusal(ErrorCode::NoLiveLink),
                OpenError::Refused(code) => {
                    table.miss(hostname, node.address());
                    Refusal(code)
                }
            }
        })
    }

    /// What a visitor of `hostname` waits for by this way shows no life: for a moment others go by it last.
    pub fn miss(&self, hostname: &Hostname) {
        match &self.0 {
            // It is known to be suspect.
            Hop::Link(_) => {}
            Hop::Node { node, table, .. } => table.miss(hostname, node.address()),
        }
    }

    /// The same with more patience, for a node that takes all other ways.
    fn patiently(&self) -> Option<Self> {
        match &self.0 {
            Hop::Link(_) => None,
            Hop::Node { node, table, .. } => {
                Some(Self(Hop::Node { node: node.clone(), table: table.clone(), patient: true }))
            }
        }
    }
}
