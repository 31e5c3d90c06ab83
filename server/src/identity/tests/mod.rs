use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError,
    pki_types::{UnixTime, pem::PemObject},
};

use super::{
    authority::{CLIENT_LIFE, MINTED_LIFE},
    *,
};

mod handshake;

const HOUR: Duration = Duration::from_secs(3600);

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    pki::init(directory.path(), "node.example.com", SystemTime::now()).unwrap();
    directory
}

fn credentials() -> Credentials {
    Credentials::from_directory(directory().path()).unwrap()
}

fn issued(ca: &ClientCa, now: SystemTime) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(ca.issue(&[7; 32], now).unwrap().as_bytes()).unwrap()
}

fn verify(ca: &ClientCa, certificate: &CertificateDer<'static>, at: SystemTime) -> Result<(), rustls::Error> {
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    verifier::optional(ca).unwrap().verify_client_cert(certificate, &[], at).map(drop)
}

#[test]
fn a_client_certificate_is_accepted_for_as_long_as_it_says() {
    let (ca, now) = (credentials().client_ca, SystemTime::now());
    let certificate = issued(&ca, now);
    for at in [now, now - HOUR / 2, now + CLIENT_LIFE - HOUR] {
        verify(&ca, &certificate, at).unwrap();
    }
    // rustls turns these into the alerts that tell the client what to do.
    let expired = verify(&ca, &certificate, now + CLIENT_LIFE + HOUR).unwrap_err();
    assert!(
        matches!(
            expired,
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
        ),
        "{expired:?}"
    );
}

#[test]
fn a_certificate_of_another_cluster_is_refused() {
    let (ours, theirs) = (credentials(), credentials());
    let now = SystemTime::now();
    let stranger = verify(&ours.client_ca, &issued(&theirs.client_ca, now), now).unwrap_err();
    assert_eq!(stranger, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
    assert!(verify(&ours.client_ca, &ours.node_chain[0], now).is_err(), "a node is no client");
}

#[test]
fn a_client_is_known_by_its_key_whichever_certificate_it_shows() {
    let ca = credentials().client_ca;
    let now = SystemTime::now();
    let (first, second) = (issued(&ca, now), issued(&ca, now + HOUR));
    assert_ne!(first, second, "serial numbers differ");
    let id = client_id_of(&first).unwrap();
    assert_eq!(client_id_of(&second), Some(id));
    assert_eq!(id, subject::client_id_of_key(&[7; 32]));
    assert_eq!(client_id_of(&credentials().node_chain[0]), None, "not Ed25519");
    assert_eq!(client_id_of(&CertificateDer::from(vec![1, 2, 3])), None);
}

#[test]
fn a_client_certificate_fits_its_message() {
    let pem = credentials().client_ca.issue(&[7; 32], SystemTime::now()).unwrap();
    assert!(pem.len() < specter_wire::limits::CERTIFICATE_PEM_BYTES, "{}", pem.len());
}

#[test]
fn the_node_and_its_cluster_are_read_from_its_certificate() {
    let directory = directory();
    let first = Credentials::from_directory(directory.path()).unwrap();
    let out = directory.path().join("second");
    pki::node(directory.path(), &out, "2001:db8::2", SystemTime::now()).unwrap();
    let second = Credentials::from_directory(&out).unwrap();
    assert_eq!(first.cluster_id, second.cluster_id);
    assert_ne!(first.node_id, second.node_id);
    assert_eq!(subject::cluster_of(&first.cluster_ca), Some(first.cluster_id));
    assert!(!out.join("ca.key").exists(), "a node cannot make nodes");
}

#[test]
fn a_directory_is_never_overwritten() {
    let directory = directory();
    let before = fs::read(directory.path().join("ca.key")).unwrap();
    let error = pki::init(directory.path(), "localhost", SystemTime::now()).unwrap_err();
    assert!(matches!(error, pki::PkiError::Exists { .. }));
    assert_eq!(fs::read(directory.path().join("ca.key")).unwrap(), before);
}

#[test]
fn keys_are_made_for_their_user_only_and_refused_when_everybody_can_read_them() {
    let directory = directory();
    let key = directory.path().join("node.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Credentials::from_directory(directory.path()).unwrap_err().to_string();
    assert!(error.contains("mode 0644") && error.contains("chmod 600"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    Credentials::from_directory(directory.path()).unwrap();
}

#[test]
fn a_file_that_does_not_fit_is_named() {
    let (ours, theirs) = (directory(), directory());
    let swap = |name: &str| {
        let broken = directory();
        copy_all(ours.path(), broken.path());
        fs::copy(theirs.path().join(name), broken.path().join(name)).unwrap();
        Credentials::from_directory(broken.path()).unwrap_err()
    };
    assert!(matches!(swap("ca.crt"), CredentialsError::NotTrusted { .. }));
    assert!(matches!(swap("node.key"), CredentialsError::Mismatch { key, .. } if key.ends_with("node.key")));
    assert!(matches!(swap("client-ca.key"), CredentialsError::Mismatch { .. }));
    assert!(matches!(swap("gateway-ca.crt"), CredentialsError::Mismatch { .. }));

    let broken = directory();
    fs::copy(broken.path().join("node.crt"), broken.path().join("client-ca.crt")).unwrap();
    fs::copy(broken.path().join("node.key"), broken.path().join("client-ca.key")).unwrap();
    let error = Credentials::from_directory(broken.path()).unwrap_err();
    assert!(matches!(error, CredentialsError::NotAuthority { .. }));
    fs::write(broken.path().join("node.crt"), "garbage").unwrap();
    let error = Credentials::from_directory(broken.path()).unwrap_err();
    assert!(matches!(&error, CredentialsError::Pem { origin, .. } if origin.ends_with("node.crt")), "{error}");
    fs::remove_file(broken.path().join("node.crt")).unwrap();
    let error = Credentials::from_directory(broken.path()).unwrap_err();
    assert!(error.to_string().contains("pki init"), "{error}");
}

#[test]
fn the_gateway_ca_is_optional() {
    let directory = directory();
    fs::remove_file(directory.path().join("gateway-ca.crt")).unwrap();
    assert!(Credentials::from_directory(directory.path()).unwrap().gateway_ca.is_none());
}

#[test]
fn the_environment_holds_the_same_as_a_directory() {
    let directory = directory();
    let variable = |name: &str| {
        let file = match name.strip_prefix("SPECTER_CERT_").unwrap() {
            "CA" => "ca.crt",
            "CLIENT_CA" => "client-ca.crt",
            "CLIENT_CA_KEY" => "client-ca.key",
            "NODE" => "node.crt",
            "NODE_KEY" => "node.key",
            "GATEWAY_CA" => "gateway-ca.crt",
            "GATEWAY_CA_KEY" => "gateway-ca.key",
            _ => return None,
        };
        let mut text = data_encoding::BASE64.encode(&fs::read(directory.path().join(file)).unwrap());
        text.insert(76, '\n');
        Some(text)
    };
    let credentials = Credentials::from_environment(variable).unwrap();
    assert_eq!(credentials.node_id, Credentials::from_directory(directory.path()).unwrap().node_id);
    assert!(credentials.gateway_ca.is_some());
    let missing = |name: &str| if name == "SPECTER_CERT_NODE_KEY" { None } else { variable(name) };
    let error = Credentials::from_environment(missing).unwrap_err();
    assert!(matches!(error, CredentialsError::Missing { variable: "SPECTER_CERT_NODE_KEY" }));
    let error = Credentials::from_environment(|_| Some("%".to_owned())).unwrap_err();
    assert!(matches!(error, CredentialsError::Base64 { .. }));
}

#[test]
fn a_secret_never_shows_in_a_debug_text() {
    let text = format!("{:?}", credentials());
    assert!(text.contains("ClientCa(…)") && text.contains("MintingCa(…)"), "{text}");
    assert!(!text.to_lowercase().contains("private_key: ["), "{text}");
}

#[test]
fn lives_are_as_stated() {
    assert_eq!(CLIENT_LIFE, 90 * 24 * HOUR);
    assert_eq!(MINTED_LIFE, 30 * 24 * HOUR);
}

fn copy_all(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
