//! A way from a visitor to the target.

use crate::{Outcome, meter::Parts};
use rustls::{ClientConfig, RootCertStore, client::Resumption, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName};
use specter_wire::version::ALPN_CONNECT;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A visitor's connection.
pub(crate) type Stream = TlsStream<TcpStream>;

/// A way from a visitor to the target.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// Name asked for by TLS and in `Host`.
    pub(crate) host: String,
    pub(crate) speaks: Speaks,
    pub(crate) parts: Parts,
    /// Authorities that visitors trust on it.
    pub(crate) trust: Vec<CertificateDer<'static>>,
}

/// What a visitor says in its handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Speaks {
    /// HTTP/1.1 or HTTP/2, as the work needs.
    Http,
    /// HTTP/1.1 only: somebody else ends TLS.
    Http1,
    /// Raw bytes through the tunnel; one status byte comes first.
    Connect,
}

/// How visitors connect to a path.
pub(crate) struct Visitors {
    connector: TlsConnector,
    name: ServerName<'static>,
    address: SocketAddr,
}

impl Path {
    /// Visitors that speak HTTP of this version over it.
    pub(crate) fn visitors(&self, http2: bool) -> Outcome<Visitors> {
        let mut roots = RootCertStore::empty();
        for authority in &self.trust {
            roots.add(authority.clone())?;
        }
        let mut provider = ring::default_provider();
        // As browsers do on machines with AES instructions: all servers here follow the visitor's order.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        let mut tls = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each connection is a new visitor's.
        tls.resumption = Resumption::disabled();
        tls.alpn_protocols = vec![match (self.speaks, http2) {
            (Speaks::Http | Speaks::Http1, false) => b"http/1.1".to_vec(),
            (Speaks::Http | Speaks::Http1, true) => b"h2".to_vec(),
            (Speaks::Connect, _) => ALPN_CONNECT.to_vec(),
        }];
        let name = ServerName::try_from(self.host.clone())?;
        Ok(Visitors { connector: TlsConnector::from(Arc::new(tls)), name, address: self.address })
    }
}

impl Visitors {
    /// A new visitor: TCP and a full handshake.
    pub(crate) async fn connect(&self) -> Outcome<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }
}
