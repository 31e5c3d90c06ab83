//! Accepts QUIC connections and sorts them by role: clients' links and other nodes come to the same port.

use super::{
    endpoint::{CLOSE_DRAINING, CLOSE_VIOLATION},
    room::{Place, Room},
};
use crate::{identity::subject, shutdown::Shutdown};
use quinn::{Connection, Endpoint, Incoming, crypto::rustls::HandshakeData};
use rustls_pki_types::CertificateDer;
use specter_wire::version::{ALPN_LINK, ALPN_NODE, ALPN_RELAY};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Accepts connections for all endpoints of a node.
pub struct Acceptor {
    serve: Box<dyn Fn(Accepted) + Send + Sync>,
    pub(super) shutdown: Shutdown,
    pub(super) handshakes: Room,
}

/// A connection whose certificate, if it has one, is verified and fits what it came for.
#[derive(Debug)]
pub enum Accepted {
    /// A client's link. Its place among the handshakes is to be kept until it is known who the client is.
    Link(Connection, Place),
    /// Another node of the cluster, that sends packets.
    Node(Connection),
    /// Another node of the cluster, that passes visitors' streams on to us.
    Relay(Connection),
}

/// Connections that have not said yet who they are, all together and from one source.
const HANDSHAKES: usize = 2_048;
const HANDSHAKES_EACH: usize = 128;

/// From this many handshakes on, whoever dials must first show that it receives at its address.
const HANDSHAKES_BEFORE_RETRY: usize = 256;

/// TLS must be done in this time.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl Acceptor {
    /// Hands what it accepts to `serve`, which must not block.
    pub fn new(shutdown: Shutdown, serve: impl Fn(Accepted) + Send + Sync + 'static) -> Arc<Self> {
        let handshakes = Room::new(HANDSHAKES, HANDSHAKES_EACH);
        Arc::new(Self { serve: Box::new(serve), shutdown, handshakes })
    }

    /// Accepts connections until the node stops, then tells the other sides and closes the endpoint.
    pub async fn accept(self: Arc<Self>, endpoint: Endpoint) {
        loop {
            let incoming = tokio::select! {
                () = self.shutdown.stopping() => break,
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => incoming,
                    None => break,
                },
            };
            self.admit(incoming);
        }
        endpoint.close(CLOSE_DRAINING.into(), b"the node is shutting down");
        endpoint.wait_idle().await;
    }

    fn admit(self: &Arc<Self>, incoming: Incoming) {
        if self.handshakes.taken() > HANDSHAKES_BEFORE_RETRY && incoming.may_retry() {
            // Fails only for a packet that was a retry's answer, which `may_retry` excludes.
            let _ = incoming.retry();
            return;
        }
        let peer = incoming.remote_address();
        let Some(place) = self.handshakes.enter(peer.ip()) else {
            incoming.refuse();
            return;
        };
        let acceptor = self.clone();
        self.shutdown.spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, async { incoming.accept()?.await }).await {
                Ok(Ok(connection)) => acceptor.sort(connection, place),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake failed"),
                Err(_) => tracing::debug!(%peer, "a handshake took too long"),
            }
        });
    }

    /// TLS has verified what was shown, but not asked whether it fits the ALPN.
    pub(super) fn sort(&self, connection: Connection, place: Place) {
        let peer = connection.remote_address();
        match (alpn(&connection).as_deref(), Role::of(&connection)) {
            // Other nodes are needed to the end: they take over what this one keeps.
            (Some(ALPN_LINK), Role::Client | Role::Nobody) if self.shutdown.is_draining() => {
                connection.close(CLOSE_DRAINING.into(), b"the node is shutting down");
            }
            (Some(ALPN_LINK), Role::Client | Role::Nobody) => (self.serve)(Accepted::Link(connection, place)),
            (Some(ALPN_NODE), Role::Node) => (self.serve)(Accepted::Node(connection)),
            (Some(ALPN_RELAY), Role::Node) => (self.serve)(Accepted::Relay(connection)),
            (_, role @ (Role::Client | Role::Nobody | Role::Node)) => {
                tracing::debug!(%peer, ?role, "a certificate does not fit what its holder came for");
                connection.close(CLOSE_VIOLATION.into(), b"the certificate does not fit the protocol");
            }
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("handshakes", &self.handshakes.taken()).finish_non_exhaustive()
    }
}

/// What a verified certificate makes of its holder.
#[derive(Debug)]
enum Role {
    Client,
    Node,
    /// Showed none.
    Nobody,
}

impl Role {
    fn of(connection: &Connection) -> Self {
        let identity =
            connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        match identity.as_deref().and_then(|chain| chain.first()) {
            None => Self::Nobody,
            Some(certificate) if subject::node_of(certificate).is_some() => Self::Node,
            Some(_) => Self::Client,
        }
    }
}

fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}
