//! Whose certificates are accepted: of clients and nodes that come to us, and of nodes that we go to.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{ClientCa, ClusterId, provider, roots, subject};

/// A verifier that asks for a certificate of the client CA and lets clients without one in, so that they can register.
///
/// A certificate of another authority, or one that has run out, ends the handshake with the TLS alert that says so
/// (`unknown_ca`, `certificate_expired`). Not for visitors: browsers would ask them for a certificate.
///
/// # Errors
/// If the CA's certificate cannot be a trust anchor.
pub fn optional(client_ca: &ClientCa) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(roots([client_ca.certificate()]), provider())
        .allow_unauthenticated()
        .build()
}

/// As [`optional`], and nodes of the cluster are let in too.
///
/// A certificate that names a node must be of the cluster CA and of this cluster; any other must be of the client CA.
/// Every node holds the client CA's key, so what that one signs must never pass for a node.
///
/// # Errors
/// If a CA's certificate cannot be a trust anchor.
pub fn clients_and_nodes(
    client_ca: &ClientCa,
    cluster_ca: &CertificateDer<'static>,
    cluster: ClusterId,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let clients = optional(client_ca)?;
    let nodes = WebPkiClientVerifier::builder_with_provider(roots([cluster_ca]), provider()).build()?;
    let authorities = [&clients, &nodes].iter().flat_map(|verifier| verifier.root_hint_subjects()).cloned().collect();
    Ok(Arc::new(ClientsAndNodes { clients, nodes, cluster, authorities }))
}

/// A verifier for the servers that a node dials as nodes: a certificate of the cluster CA that names a node of `cluster`.
///
/// Nodes are reached by addresses that others told, so there is no name to hold the certificate to. What is left out is
/// that comparison alone: chain, validity, purpose and the handshake's signature are checked as for any server.
pub fn nodes(cluster_ca: &CertificateDer<'static>, cluster: ClusterId) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Nodes { roots: roots([cluster_ca]), provider: provider(), cluster })
}

#[derive(Debug)]
struct ClientsAndNodes {
    clients: Arc<dyn ClientCertVerifier>,
    nodes: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    authorities: Vec<DistinguishedName>,
}

impl ClientCertVerifier for ClientsAndNodes {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.authorities
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match subject::node_of(end_entity) {
            None => self.clients.verify_client_cert(end_entity, intermediates, now),
            Some((cluster, _)) => {
                let verified = self.nodes.verify_client_cert(end_entity, intermediates, now)?;
                check_cluster(cluster, self.cluster).map(|()| verified)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Nodes {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    cluster: ClusterId,
}

impl ServerCertVerifier for Nodes {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let (cluster, _) = subject::node_of(end_entity).ok_or_else(not_ours)?;
        check_cluster(cluster, self.cluster).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check_cluster(theirs: ClusterId, ours: ClusterId) -> Result<(), Error> {
    if theirs == ours { Ok(()) } else { Err(not_ours()) }
}

fn not_ours() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}
