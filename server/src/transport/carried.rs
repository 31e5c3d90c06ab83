//! Accepts links whose packets come over TLS on TCP, from clients in networks that let no UDP through.

use super::{
    accept::{Acceptor, HANDSHAKE_TIMEOUT},
    defer::DeferRuntime,
    endpoint::{self, BindError, CLOSE_DRAINING},
    room::Place,
};
use quinn::{Connection, ConnectionError, EndpointConfig, ServerConfig};
use specter_carry::{Carried, Stream};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Hands links over that came by TCP, each with a stream of its own.
#[derive(Debug)]
pub struct Carrier {
    acceptor: Arc<Acceptor>,
    config: ServerConfig,
}

/// How long what was said last may take to leave.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

impl Carrier {
    /// Gives links to `acceptor`, which sorts and counts them with those that come over UDP. `tls` is of the QUIC port:
    /// the TLS around the packets says nothing of who the client is.
    ///
    /// # Errors
    /// [`BindError::Tls`].
    pub fn new(acceptor: Arc<Acceptor>, tls: Arc<rustls::ServerConfig>) -> Result<Self, BindError> {
        Ok(Self { acceptor, config: endpoint::carried(tls)? })
    }

    /// Serves a link over `stream`, in a task of its own, until either ends.
    pub fn serve(&self, stream: impl Stream, peer: SocketAddr) {
        let acceptor = self.acceptor.clone();
        let Some(place) = acceptor.handshakes.enter(peer.ip()) else { return };
        let server = Some(self.config.clone());
        match Carried::new(stream, peer, EndpointConfig::default(), server, Arc::new(DeferRuntime)) {
            Ok(carried) => self.acceptor.shutdown.spawn(serve(acceptor, carried, place, peer)),
            Err(error) => tracing::warn!(%error, "a link over TCP cannot be set up"),
        }
    }
}

async fn serve(acceptor: Arc<Acceptor>, carried: Carried, place: Place, peer: SocketAddr) {
    tokio::select! {
        shaken = timeout(HANDSHAKE_TIMEOUT, handshake(&carried)) => match shaken {
            Ok(Ok(connection)) => {
                acceptor.sort(connection.clone(), place);
                tokio::select! {
                    _ = connection.closed() => {}
                    error = carried.lost() => tracing::debug!(%peer, %error, "a link's TCP connection ended"),
                    () = acceptor.shutdown.stopping() => {}
                }
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake over TCP failed"),
            Err(_) => tracing::debug!(%peer, "a handshake over TCP took too long"),
        },
        error = carried.lost() => tracing::debug!(%peer, %error, "a TCP connection carried no link"),
        () = acceptor.shutdown.stopping() => {}
    }
    carried.endpoint.close(CLOSE_DRAINING.into(), b"the node is shutting down");
    // In time or not, the connection to the client ends here.
    timeout(FAREWELL_TIMEOUT, carried.endpoint.wait_idle()).await.ok();
}

/// Takes one connection and no other.
async fn handshake(carried: &Carried) -> Result<Connection, ConnectionError> {
    let incoming = carried.endpoint.accept().await.ok_or(ConnectionError::LocallyClosed)?;
    let connecting = incoming.accept()?;
    carried.endpoint.set_server_config(None);
    connecting.await
}
