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
    open::{LinkStream, Refusal, read_status},
    registry::Tunnel,
};

use crate::{
    link::{open, registry::Registry},
    node::Handle,
};
use pick::Candidate;
use specter_wire::{error::ErrorCode, id::LinkId, name::Hostname, stream::StreamKind};
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

    /// What is published under `hostname`, and the newest link that serves it. What was opened to the tunnel before that
    /// link came may lead to a client that is gone.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownHostname`], [`ErrorCode::NoLiveLink`], or [`ErrorCode::Unavailable`] when the store cannot tell.
    pub async fn find(&self, hostname: &Hostname) -> Result<(Tunnel, LinkId), Refusal> {
        if let Some((tunnel, links)) = self.registry.serving(hostname)
            && let Some(newest) = links.last()
        {
            return Ok((tunnel, newest.id()));
        }
        Err(self.absent(hostname).await)
    }

    /// Opens a stream to the target of `hostname`, on the first link that takes it. The target's own answer is still to
    /// come: its first byte is read with [`read_status`].
    ///
    /// # Errors
    /// As [`Router::find`]; also [`ErrorCode::WrongKind`] when the tunnel does not carry `kind`, and
    /// [`ErrorCode::Limit`] when every link has all the streams it allows.
    pub async fn open(
        &self,
        hostname: &Hostname,
        kind: StreamKind,
        visitor: SocketAddr,
    ) -> Result<LinkStream, Refusal> {
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
        let candidates: Vec<Candidate> =
            links.iter().map(|link| Candidate { link: link.id(), suspect: link.is_suspect() }).collect();
        let mut refusal = Refusal(ErrorCode::NoLiveLink);
        for index in pick::order(&candidates, self.turn.fetch_add(1, Ordering::Relaxed)) {
            match open::open(&links[index], hostname, kind, visitor).await {
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
