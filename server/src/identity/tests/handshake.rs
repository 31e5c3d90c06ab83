//! Whole TLS handshakes in memory, as a link makes them.

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};
use specter_wire::name::Hostname;

use super::*;
use crate::acme::certs::Certificates;

const NAME: &str = "a.localhost";

fn server(ours: &Credentials) -> ServerConfig {
    let apexes = vec![Hostname::parse("localhost").unwrap()];
    let certificates = Certificates::load(&[], ours.gateway_ca.clone(), apexes).unwrap();
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier::optional(&ours.client_ca).unwrap())
        .with_cert_resolver(Arc::new(certificates))
}

/// A client that trusts `trusted` and shows a certificate that `issuer` signed at `issued`.
fn client(trusted: &Credentials, issuer: Option<(&Credentials, SystemTime)>) -> (ClientConfig, [u8; 32]) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let public_key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots([trusted.gateway_ca.as_ref().unwrap().certificate()]));
    let config = match issuer {
        Some((issuer, issued)) => {
            let pem = issuer.client_ca.issue(&public_key, issued).unwrap();
            let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into())).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    (config, public_key)
}

/// Passes bytes both ways until nothing moves; returns the first error of each side.
fn handshake(client: ClientConfig, server: ServerConfig) -> (Option<Error>, Option<Error>, ServerConnection) {
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
        let mut bytes = there.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server_error = server_error.or(server.process_new_packets().err());
        }
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        let mut bytes = back.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client_error = client_error.or(client.process_new_packets().err());
        }
        if there.is_empty() && back.is_empty() {
            return (client_error, server_error, server);
        }
    }
}

#[test]
fn a_registered_client_is_known_and_a_new_one_is_let_in() {
    let ours = credentials();
    let (config, public_key) = client(&ours, Some((&ours, SystemTime::now())));
    let (client_error, server_error, connection) = handshake(config, server(&ours));
    assert_eq!((client_error, server_error), (None, None));
    let certificate = &connection.peer_certificates().unwrap()[0];
    assert_eq!(client_id_of(certificate), Some(subject::client_id_of_key(&public_key)));

    let (client_error, server_error, connection) = handshake(client(&ours, None).0, server(&ours));
    assert_eq!((client_error, server_error), (None, None));
    assert!(connection.peer_certificates().is_none());
}

#[test]
fn an_expired_client_is_told_that_it_expired() {
    let ours = credentials();
    let long_ago = SystemTime::now() - CLIENT_LIFE - HOUR;
    let (client_error, _, _) = handshake(client(&ours, Some((&ours, long_ago))).0, server(&ours));
    assert_eq!(client_error, Some(Error::AlertReceived(AlertDescription::CertificateExpired)));
}

#[test]
fn a_client_of_another_cluster_is_told_that_its_ca_is_unknown() {
    let (ours, theirs) = (credentials(), credentials());
    let (config, _) = client(&ours, Some((&theirs, SystemTime::now())));
    let (client_error, _, _) = handshake(config, server(&ours));
    assert_eq!(client_error, Some(Error::AlertReceived(AlertDescription::UnknownCA)));
}

#[test]
fn a_client_that_trusts_another_cluster_refuses_the_node() {
    let (ours, theirs) = (credentials(), credentials());
    let (client_error, server_error, _) = handshake(client(&theirs, None).0, server(&ours));
    assert_eq!(client_error, Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)));
    assert_eq!(server_error, Some(Error::AlertReceived(AlertDescription::UnknownCA)));
}
