//! Links: the connections that clients keep to this node.
//!
//! ```text
//! accept    one task a link: handshake, control stream, deadlines, probes
//! session   what a control message means in which state (pure)
//! budget    how much a client may ask (pure)
//! proof     checks a registration against its connection
//! neighbours  which other nodes a client is told of
//! registry  which links live, and which tunnels each serves
//! changes   hostnames that other nodes are to be told of anew
//! open      a visitor's stream, on a link or by way of another node
//! passing   streams that other nodes pass on to our links
//! join      carries bytes between two streams
//! ```
//! What hostnames are and who owns them is decided above, behind [`Directory`].

pub mod accept;
mod budget;
pub mod changes;
mod join;
mod neighbours;
pub mod open;
pub mod passing;
mod proof;
pub mod registry;
mod session;

use futures_util::future::BoxFuture;
use registry::Tunnel;
use specter_wire::{error::ErrorCode, id::ClientId, name::Hostname};

/// The names that clients own, as links need to ask for them. Implemented by `route`.
pub trait Directory: Send + Sync {
    /// Hostnames of `client` in order, after `after`; at most `limit`, and whether there are more.
    fn hostnames(
        &self,
        client: ClientId,
        after: Option<Hostname>,
        limit: usize,
    ) -> BoxFuture<'_, Result<(Vec<Hostname>, bool), ErrorCode>>;

    /// Gives `client` that many new hostnames.
    fn claim(&self, client: ClientId, count: usize) -> BoxFuture<'_, Result<Vec<Hostname>, ErrorCode>>;

    /// Whether `client` may serve each of these; one answer each, in order.
    fn authorize(&self, client: ClientId, tunnels: Vec<Hostname>) -> BoxFuture<'_, Vec<Option<ErrorCode>>>;

    /// Tells other nodes that a link here serves these hostnames. Returns when they can know; if the store cannot be had,
    /// after a moment, and tries on.
    fn announce(&self, hostnames: Vec<Hostname>) -> BoxFuture<'_, ()>;

    /// Takes these hostnames from `client`; one answer each, in order.
    fn release(&self, client: ClientId, hostnames: Vec<Hostname>) -> BoxFuture<'_, Vec<Option<ErrorCode>>>;
}

/// A request of a registered client, checked: nothing in it passes its bounds.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made for one request and gone with it")]
pub(crate) enum Ask {
    Hostnames { after: Option<Hostname> },
    Claim { count: usize },
    Publish { tunnels: Vec<Result<(Hostname, Tunnel), ErrorCode>> },
    Unpublish { hostnames: Vec<Result<Hostname, ErrorCode>> },
    Release { hostnames: Vec<Result<Hostname, ErrorCode>> },
}
