//! The public listeners: whatever a visitor brings ends here and becomes a stream to a tunnel.
//!
//! ```text
//! listen   accepts TCP, holds the bound on visitors            → tls      ends TLS within a deadline
//!                                                              → sniff    SNI and ALPN decide what it is (pure)
//!   http    HTTP/1.1 and HTTP/2 connections, one call a request → proxy    request → tunnel → answer
//!                                                              → headers  what crosses, and what is added (pure)
//!                                                              → exchange one request: which link, when again
//!                                                              → pool     HTTP connections over links' streams
//!   tcp     raw bytes by SNI                                   → splice   both directions, half-close kept
//!   connect plain HTTP: CONNECT to a tunnel, else a redirect
//! status   how each failure looks to a visitor (pure)
//! answered a link's stream as an HTTP connection
//! body     bodies on their way, with their deadlines
//! socket   a visitor's TCP connection: large reads, bounded stalls
//! ```

mod answered;
mod body;
mod connect;
mod exchange;
mod headers;
mod http;
mod listen;
mod pool;
mod proxy;
mod sniff;
mod socket;
mod splice;
mod status;
mod tcp;
mod tls;

use crate::{
    route::Router,
    shutdown::Shutdown,
    transport::{carried::Carrier, room::Room},
};
use proxy::Proxy;
use rustls::server::ResolvesServerCert;
use specter_wire::name::Hostname;
use std::{
    net::TcpListener,
    sync::{Arc, atomic::AtomicU64},
};
use tls::Tls;
use tokio::sync::Semaphore;

/// Visitors' connections on all listeners together. Each costs about 20 KiB when idle.
const VISITORS: usize = 16_384;

/// Visitors' connections from one source: a proxy in front of all others may be one.
const VISITORS_EACH: usize = VISITORS / 2;

/// Everything a visitor's connection needs to know.
pub struct Gateway {
    router: Arc<Router>,
    proxy: Proxy,
    tls: Tls,
    carrier: Carrier,
    apexes: Vec<Hostname>,
    visitors: Arc<Semaphore>,
    sources: Room,
    /// Visitors so far, for the log.
    count: AtomicU64,
    shutdown: Shutdown,
}

impl Gateway {
    /// A gateway for tunnels under `apexes`, reached from outside at `port`. Clients that come instead of visitors are
    /// left to `carrier`.
    pub fn new(
        router: Arc<Router>,
        certificates: Arc<dyn ResolvesServerCert>,
        carrier: Carrier,
        apexes: Vec<Hostname>,
        port: u16,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let proxy = Proxy::new(router.clone(), port, shutdown.clone());
        let visitors = Arc::new(Semaphore::new(VISITORS));
        let sources = Room::new(VISITORS, VISITORS_EACH);
        Arc::new(Self {
            router,
            proxy,
            tls: Tls::new(certificates),
            carrier,
            apexes,
            visitors,
            sources,
            count: AtomicU64::new(0),
            shutdown,
        })
    }

    /// Serves TLS on `listener` until the node stops.
    ///
    /// # Errors
    /// The listener cannot be handed to the runtime.
    pub fn serve_tls(self: &Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        listen::spawn(self, listener, |gateway, socket, peer| async move { gateway.visit(socket, peer).await })
    }

    /// Serves plain HTTP on `listener` until the node stops.
    ///
    /// # Errors
    /// The listener cannot be handed to the runtime.
    pub fn serve_plain(self: &Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        listen::spawn(
            self,
            listener,
            |gateway, socket, peer| async move { connect::serve(&gateway, socket, peer).await },
        )
    }
}
