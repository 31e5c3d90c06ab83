//! Ends visitors' TLS.

use super::{
    sniff::{ALPN_HTTP1, ALPN_HTTP2},
    socket::Socket,
};
use rustls::{ServerConfig, crypto::ring, server::ResolvesServerCert};
use specter_wire::version::{ALPN_CONNECT, ALPN_LINK};
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The whole handshake must be done in this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of all visitors' handshakes.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    pub(super) fn new(certificates: Arc<dyn ResolvesServerCert>) -> Self {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider serves TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = [ALPN_LINK, ALPN_CONNECT, ALPN_HTTP2, ALPN_HTTP1].map(<[u8]>::to_vec).to_vec();
        match ring::Ticketer::new() {
            Ok(ticketer) => config.ticketer = ticketer,
            Err(error) => tracing::warn!(%error, "visitors cannot resume TLS sessions"),
        }
        Self { acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    pub(super) async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        match timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(socket)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
