//! Who this node is and whom it believes: certificates, keys and the authorities behind them.
//!
//! | part | does |
//! |---|---|
//! | [`Credentials`] | all of it, from a certificate directory or from the environment |
//! | [`authority`] | the client CA and the gateway CA, which sign |
//! | [`subject`] | what a certificate says about its holder |
//! | [`verifier`] | whose certificates are accepted |
//! | [`tls`] | settings of the QUIC port, and for dialing other nodes |
//! | [`pki`] | makes a certificate directory |

use std::{path::PathBuf, sync::Arc};

use rustls::{RootCertStore, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use specter_wire::id::NodeId;

pub mod authority;
mod load;
pub mod pki;
pub mod subject;
pub mod tls;
pub mod verifier;

pub use authority::{ClientCa, MintingCa};
pub use load::certified_key;
pub use subject::{ClusterId, client_id_of};

/// Everything a node needs to prove who it is and to judge others.
#[derive(Debug)]
pub struct Credentials {
    /// The CA of all nodes of the cluster.
    pub cluster_ca: CertificateDer<'static>,
    /// The CA of all clients of the cluster.
    pub client_ca: ClientCa,
    /// This node's certificate, and what stands between it and the cluster CA.
    pub node_chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub node_key: PrivateKeyDer<'static>,
    /// Signs certificates for visitors, where the operator has no other.
    pub gateway_ca: Option<MintingCa>,
    /// This node, as its certificate says.
    pub node_id: NodeId,
    /// The cluster, as the node's certificate says.
    pub cluster_id: ClusterId,
}

/// Why credentials cannot be used. Every message names the file or variable.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("the certificate file {} cannot be read; `specter-server pki init --cert-dir DIR --advertise HOST:PORT` \
        makes a directory with all files", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A variable is not set.
    #[error("the environment variable {variable} is not set, and --cert-env needs it: base64 of a PEM file")]
    Missing {
        /// The variable.
        variable: &'static str,
    },
    /// A variable is not base64.
    #[error("the environment variable {variable} is not base64 of a PEM file")]
    Base64 {
        /// The variable.
        variable: &'static str,
    },
    /// The PEM holds no certificate or key.
    #[error("{origin} holds no {what} in PEM")]
    Pem {
        /// Which file or variable.
        origin: String,
        /// What was looked for.
        what: &'static str,
    },
    /// Anybody may read a private key.
    #[error("the private key {} can be read by every user (mode {mode:04o}); run `chmod 600 {}`", path.display(),
        path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key does not belong to its certificate, or its algorithm is not supported.
    #[error("the key in {key} does not fit the certificate in {certificate}")]
    Mismatch {
        /// Where the certificate is from.
        certificate: String,
        /// Where the key is from.
        key: String,
    },
    /// A certificate says it is no authority.
    #[error("the certificate in {origin} is not that of a certificate authority")]
    NotAuthority {
        /// Which file or variable.
        origin: String,
    },
    /// The node's certificate was not made for a node.
    #[error(
        "the certificate in {origin} names no node (no URI specter://node/…); make one with \
        `specter-server pki node`"
    )]
    NotNode {
        /// Which file or variable.
        origin: String,
    },
    /// The node's certificate was signed by somebody else than the cluster CA, or has run out.
    #[error(
        "the node certificate in {origin} is not accepted by the cluster CA; make a new one with \
        `specter-server pki node`"
    )]
    NotTrusted {
        /// Which file or variable.
        origin: String,
        /// What verification says.
        source: rustls::Error,
    },
}

/// The cryptography this program uses everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots<'a>(authorities: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.into_iter().cloned());
    Arc::new(roots)
}

#[cfg(test)]
mod tests;
