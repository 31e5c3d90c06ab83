//! Routes: who owns a hostname, which links serve it, and a stream to its target.
//!
//! ```text
//! key      what the store holds about names, and under which keys
//! publish  claims, checks and releases names for clients (implements link::Directory)
//! table    what is known of names that no link here serves; a bounded cache over the store
//! pick     in which order links are tried (pure)
//! ```
//! The gateway asks [`Router`] and nothing below it.

mod key;
mod pick;
pub mod publish;
mod table;

pub use crate::link::{
    open::{LinkStream, Refusal, SILENCE, or_doubt, read_status},
    registry::{Link, Tunnel},
};

use crate::{
    link::{open, registry::Registry},
    node::Handle,
};
use pick::Candidate;
use specter_wire::{error::ErrorCode, name::Hostname, stream::StreamKind};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use table::Table;

/// Finds tunnels and opens streams to them.
pub struct Router {
    registry: Arc<Registry>,
    table: Table,
    turn: AtomicUsize,
}

impl Router {
    /// A router over the links of this node and the names in the store.
    pub fn new(registry: Arc<Registry>, store: Handle) -> Self {
        Self { registry, table: Table::new(store), turn: AtomicUsize::new(0) }
    }

    /// What is published under `hostname`.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHostname`], [`ErrorCode::NoLiveLink`], or [`ErrorCode::Unavailable`] when the store cannot tell.
    pub async fn find(&self, hostname: &Hostname) -> Result<Tunnel, Refusal> {
        match self.registry.serving(hostname) {
            Some((tunnel, _)) => Ok(tunnel),
            None => Err(self.absent(hostname).await),
        }
    }

    /// The ways to the target of `hostname` for streams of `kind`, in the order to try them; at least one.
    ///
    /// # Errors
    /// As [`Router::find`]; also [`ErrorCode::WrongKind`] when the tunnel does not carry `kind`.
    pub async fn ways(&self, hostname: &Hostname, kind: StreamKind) -> Result<(Tunnel, Vec<Way>), Refusal> {
        let Some((tunnel, links)) = self.registry.serving(hostname) else {
            return Err(self.absent(hostname).await);
        };
        let carried = match kind {
            StreamKind::Raw => tunnel.carries.raw(),
            StreamKind::Http1 | StreamKind::Http2 => tunnel.carries.http(),
        };
        if !carried {
            return Err(Refusal(ErrorCode::WrongKind));
        }
        // Most tunnels are served by one link.
        if links.len() == 1 {
            return Ok((tunnel, links.into_iter().map(|link| Way { link }).collect()));
        }
        let candidates: Vec<Candidate> =
            links.iter().map(|link| Candidate { link: link.id(), suspect: link.is_suspect() }).collect();
        let order = pick::order(&candidates, self.turn.fetch_add(1, Ordering::Relaxed));
        Ok((tunnel, order.into_iter().map(|index| Way { link: links[index].clone() }).collect()))
    }

    /// Opens a stream of raw bytes to the target of `hostname`, on the first link that takes it. The target's own answer
    /// is still to come: its first byte is read with [`read_status`].
    ///
    /// # Errors
    /// As [`Router::ways`] and [`Way::open`].
    pub async fn open(&self, hostname: &Hostname, visitor: SocketAddr) -> Result<LinkStream, Refusal> {
        let (_, ways) = self.ways(hostname, StreamKind::Raw).await?;
        let mut refusal = Refusal(ErrorCode::NoLiveLink);
        for way in ways {
            match way.open(hostname, StreamKind::Raw, visitor).await {
                Ok(stream) => return Ok(stream),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    async fn absent(&self, hostname: &Hostname) -> Refusal {
        match self.table.is_registered(hostname).await {
            Ok(true) => Refusal(ErrorCode::NoLiveLink),
            Ok(false) => Refusal(ErrorCode::UnknownHostname),
            Err(error) => {
                tracing::warn!(%error, "a visitor's hostname could not be looked up");
                Refusal(ErrorCode::Unavailable)
            }
        }
    }
}

/// One way to a target.
#[derive(Clone, Debug)]
pub struct Way {
    link: Arc<Link>,
}

impl Way {
    /// The link that it takes.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`ErrorCode::NoLiveLink`] or [`ErrorCode::Limit`], before anything of the visitor's was sent: another way may be
    /// tried.
    pub async fn open(
        &self,
        hostname: &Hostname,
        kind: StreamKind,
        visitor: SocketAddr,
    ) -> Result<LinkStream, Refusal> {
        open::open(&self.link, hostname, kind, visitor).await
    }
}
