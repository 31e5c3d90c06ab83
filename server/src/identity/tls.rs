//! TLS between the programs of a cluster: what the node's QUIC port offers, and what the node shows when it dials another.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    server::{ClientHello, ResolvesServerCert, VerifierBuilderError},
    sign::CertifiedKey,
    version::TLS13,
};
use specter_wire::version::{ALPN_LINK, ALPN_NODE, ALPN_RELAY};

use super::{Credentials, provider, verifier};

/// Why the TLS settings cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A CA that judges others.
    #[error("the client CA or the cluster CA cannot be used")]
    Authority(#[from] VerifierBuilderError),
    /// The node's own certificate or its key.
    #[error("the TLS settings cannot be used")]
    Settings(#[from] rustls::Error),
}

/// TLS of the QUIC port: links and other nodes come in there. 1.3 alone, as QUIC has it.
///
/// A client sees a certificate of `certificates` and may come without one of its own, to register. A node sees our node
/// certificate. What the other side shows is verified, but whether its role fits its ALPN is asked only after the
/// handshake: `transport` does so.
///
/// # Errors
/// [`TlsError`].
pub fn serve(credentials: &Credentials, certificates: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, TlsError> {
    let verifier =
        verifier::clients_and_nodes(&credentials.client_ca, &credentials.cluster_ca, credentials.cluster_id)?;
    let (chain, key) = (credentials.node_chain.clone(), credentials.node_key.clone_key());
    let node = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(ByRole { node, certificates }));
    // The first of these that the other side offers is taken, as `ByRole` does.
    config.alpn_protocols = vec![ALPN_NODE.to_vec(), ALPN_RELAY.to_vec(), ALPN_LINK.to_vec()];
    Ok(config)
}

/// TLS for dialing another node of the cluster, to send it packets.
///
/// # Errors
/// [`TlsError`].
pub fn dial(credentials: &Credentials) -> Result<ClientConfig, TlsError> {
    dial_for(credentials, ALPN_NODE)
}

/// TLS for dialing another node of the cluster, to pass visitors' streams on.
///
/// # Errors
/// [`TlsError`].
pub fn relay(credentials: &Credentials) -> Result<ClientConfig, TlsError> {
    dial_for(credentials, ALPN_RELAY)
}

fn dial_for(credentials: &Credentials, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        // "Dangerous" is what rustls calls every verifier that is not its own.
        .dangerous()
        .with_custom_certificate_verifier(verifier::nodes(&credentials.cluster_ca, credentials.cluster_id))
        .with_client_auth_cert(credentials.node_chain.clone(), credentials.node_key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    // Nodes have no names, and dial so seldom that each handshake may be a whole one.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Shows nodes our node certificate and everybody else one for the name that they ask for.
struct ByRole {
    node: Arc<CertifiedKey>,
    certificates: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for ByRole {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN_NODE || name == ALPN_RELAY)) {
            return Some(self.node.clone());
        }
        self.certificates.resolve(hello)
    }
}

impl fmt::Debug for ByRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRole(…)")
    }
}
