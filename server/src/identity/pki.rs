//! Makes certificate directories: `specter-server pki init` and `pki node`, and `dev`.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use specter_wire::id::NodeId;

use super::{
    authority::{self, Authority, DAY_SECONDS, SignError},
    subject::{self, ClusterId},
};
use crate::private;

/// Makes the CAs of a new cluster and the certificate of its first node, which is reached at `host`.
///
/// # Errors
/// [`PkiError`]; files that exist are never overwritten.
pub fn init(directory: &Path, host: &str, now: SystemTime) -> Result<(), PkiError> {
    refuse_existing(directory, &["ca", "client-ca", "gateway-ca", "node"])?;
    let cluster = ClusterId(random()?);
    // Each cluster's authorities have names of their own, or a certificate of another cluster would look forged instead
    // of foreign.
    let authority = |role: &str| authority::authority(&format!("Specter {role} CA {cluster}"), now);
    let mut params = authority("cluster")?;
    params.subject_alt_names = vec![SanType::URI(subject::cluster_uri(cluster).try_into().map_err(SignError::from)?)];
    let (ca_pem, ca_key) = self_signed(&params)?;
    let (client_pem, client_key) = self_signed(&authority("client")?)?;
    let (gateway_pem, gateway_key) = self_signed(&authority("gateway")?)?;
    let ca = join(directory, &ca_pem, ca_key)?;
    let (node_pem, node_key) = node_certificate(&ca.authority, cluster, host, now)?;

    make(directory)?;
    write(directory, "ca", &ca_pem, &ca.key_pem)?;
    write(directory, "client-ca", &client_pem, &client_key.serialize_pem())?;
    write(directory, "gateway-ca", &gateway_pem, &gateway_key.serialize_pem())?;
    write(directory, "node", &node_pem, &node_key.serialize_pem())?;
    private::sync_folder(directory).map_err(|source| unwritable(directory, source))
}

/// Makes the directory for another node of a cluster: `directory` is that of `init`, with `ca.key`. What the node needs
/// of it is copied; `ca.key` is not.
///
/// # Errors
/// [`PkiError`]; files that exist are never overwritten.
pub fn node(directory: &Path, out: &Path, host: &str, now: SystemTime) -> Result<(), PkiError> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).map_err(|source| PkiError::Unreadable { path, source })
    };
    let (ca_pem, ca_key) = (read("ca.crt")?, read("ca.key")?);
    let key = KeyPair::from_pem(&ca_key).map_err(|_| PkiError::NotCluster { path: directory.join("ca.key") })?;
    let ca = join(directory, &ca_pem, key)?;
    let not_cluster = || PkiError::NotCluster { path: directory.join("ca.crt") };
    let cluster = subject::cluster_of(&ca.certificate).ok_or_else(not_cluster)?;
    let (node_pem, node_key) = node_certificate(&ca.authority, cluster, host, now)?;
    let client_ca = (read("client-ca.crt")?, read("client-ca.key")?);
    let gateway_ca = (read("gateway-ca.crt").ok(), read("gateway-ca.key").ok());

    refuse_existing(out, &["ca", "client-ca", "gateway-ca", "node"])?;
    make(out)?;
    private::create_new(&out.join("ca.crt"), ca_pem.as_bytes()).map_err(|source| unwritable(out, source))?;
    write(out, "client-ca", &client_ca.0, &client_ca.1)?;
    if let (Some(certificate), Some(key)) = gateway_ca {
        write(out, "gateway-ca", &certificate, &key)?;
    }
    write(out, "node", &node_pem, &node_key.serialize_pem())?;
    private::sync_folder(out).map_err(|source| unwritable(out, source))
}

/// Why a certificate directory cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// There is one.
    #[error("{} exists and is not overwritten; move it away, or give another directory", path.display())]
    Exists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// The directory or a file in it cannot be written.
    #[error("the certificate directory {} cannot be written; make it writable for this user", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the cluster cannot be read.
    #[error("{} cannot be read; --cert-dir must be a directory made by `specter-server pki init`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what `pki init` makes.
    #[error("{} is not the file of a cluster made by `specter-server pki init`", path.display())]
    NotCluster {
        /// The file.
        path: PathBuf,
    },
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

struct ClusterCa {
    certificate: CertificateDer<'static>,
    authority: Authority,
    key_pem: String,
}

fn join(directory: &Path, pem: &str, key: KeyPair) -> Result<ClusterCa, PkiError> {
    let not_cluster = || PkiError::NotCluster { path: directory.join("ca.crt") };
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| not_cluster())?;
    let key_pem = key.serialize_pem();
    let authority = Authority::new(certificate.clone(), key).ok_or_else(not_cluster)?;
    Ok(ClusterCa { certificate, authority, key_pem })
}

fn self_signed(params: &CertificateParams) -> Result<(String, KeyPair), SignError> {
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key))
}

fn node_certificate(
    ca: &Authority,
    cluster: ClusterId,
    host: &str,
    now: SystemTime,
) -> Result<(String, KeyPair), PkiError> {
    let node = NodeId(random()?);
    let mut params = authority::leaf(&format!("Specter node {node}"), now, NODE_LIFE)?;
    let name = match host.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(host.try_into().map_err(SignError::from)?),
    };
    let uri = SanType::URI(subject::node_uri(cluster, node).try_into().map_err(SignError::from)?);
    params.subject_alt_names = vec![uri, name];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().map_err(SignError::from)?;
    Ok((ca.sign(&params, &key)?.pem(), key))
}

fn random() -> Result<[u8; 16], SignError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SignError::Random)?;
    Ok(bytes)
}

fn refuse_existing(directory: &Path, names: &[&str]) -> Result<(), PkiError> {
    for name in names {
        for suffix in ["crt", "key"] {
            let path = directory.join(format!("{name}.{suffix}"));
            if path.exists() {
                return Err(PkiError::Exists { path });
            }
        }
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), PkiError> {
    private::make_folder(directory).map_err(|source| unwritable(directory, source))
}

/// Both files are for this user only: the certificates are public, but nobody else has a use for them here.
fn write(directory: &Path, name: &str, certificate: &str, key: &str) -> Result<(), PkiError> {
    for (suffix, contents) in [("key", key), ("crt", certificate)] {
        let path = directory.join(format!("{name}.{suffix}"));
        private::create_new(&path, contents.as_bytes()).map_err(|source| unwritable(directory, source))?;
    }
    Ok(())
}

fn unwritable(directory: &Path, source: io::Error) -> PkiError {
    PkiError::Unwritable { path: directory.to_owned(), source }
}

/// How long a node's certificate is valid: ten years, as its CA. Nodes are few and known; there is no renewal yet.
const NODE_LIFE: Duration = Duration::from_secs(3640 * DAY_SECONDS);
