//! What a certificate says about its holder.

use std::fmt;

use rustls_pki_types::CertificateDer;
use specter_wire::id::{ClientId, NodeId};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// Which cluster a node belongs to: 128 random bits, drawn when its CA is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// Parses 32 lower-case hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        // The same form as a node's.
        NodeId::from_hex(text).map(|NodeId(bytes)| Self(bytes))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&NodeId(self.0), f)
    }
}

/// The client that a verified certificate belongs to: SHA-256 of its Ed25519 key. `None` for a key of another kind.
pub fn client_id_of(certificate: &CertificateDer<'_>) -> Option<ClientId> {
    public_key_of(certificate).as_ref().map(client_id_of_key)
}

/// The raw Ed25519 key of a certificate. `None` for a key of another kind.
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let key = &certificate.tbs_certificate.subject_pki;
    if key.algorithm.algorithm != x509_parser::oid_registry::OID_SIG_ED25519 {
        return None;
    }
    key.subject_public_key.data.as_ref().try_into().ok()
}

/// The client that a raw Ed25519 public key belongs to.
pub fn client_id_of_key(public_key: &[u8; 32]) -> ClientId {
    let digest = ring::digest::digest(&ring::digest::SHA256, public_key);
    let mut id = [0; 32];
    id.copy_from_slice(digest.as_ref());
    ClientId(id)
}

/// The node that a verified certificate of the cluster CA belongs to, and its cluster.
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<(ClusterId, NodeId)> {
    uris(certificate).iter().find_map(|uri| {
        let (cluster, node) = uri.strip_prefix(NODE)?.split_once('/')?;
        Some((ClusterId::from_hex(cluster)?, NodeId::from_hex(node)?))
    })
}

/// The cluster that a cluster CA was made for.
pub fn cluster_of(certificate: &CertificateDer<'_>) -> Option<ClusterId> {
    uris(certificate).iter().find_map(|uri| ClusterId::from_hex(uri.strip_prefix(CLUSTER)?))
}

/// The DNS names a certificate is for, wildcards as they stand there.
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })
}

pub(super) fn client_uri(id: ClientId) -> String {
    format!("specter://client/{id}")
}

pub(super) fn node_uri(cluster: ClusterId, node: NodeId) -> String {
    format!("{NODE}{cluster}/{node}")
}

pub(super) fn cluster_uri(cluster: ClusterId) -> String {
    format!("{CLUSTER}{cluster}")
}

fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

fn alternative_names(
    certificate: &CertificateDer<'_>,
    pick: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().filter_map(pick).collect(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

const NODE: &str = "specter://node/";
const CLUSTER: &str = "specter://cluster/";
