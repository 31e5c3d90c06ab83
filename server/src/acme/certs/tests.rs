use std::fs;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{ServerName, UnixTime},
};
use tempfile::TempDir;

use super::*;
use crate::identity::{Credentials, pki, provider};

fn gateway_ca() -> MintingCa {
    let directory = tempfile::tempdir().unwrap();
    pki::init(directory.path(), "localhost", SystemTime::now()).unwrap();
    Credentials::from_directory(directory.path()).unwrap().gateway_ca.unwrap()
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn minting(ca: &MintingCa) -> Certificates {
    Certificates::new(Vec::new(), Some(ca.clone()), vec![name("localhost"), name("example.com")]).unwrap()
}

/// Writes a self-signed certificate and key.
fn operator_files(directory: &TempDir, file: &str, names: &[&str]) -> CertificateFiles {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
    let path = |suffix: &str| directory.path().join(format!("{file}.{suffix}"));
    fs::write(path("crt"), pem).unwrap();
    crate::private::create_new(&path("key"), key.serialize_pem().as_bytes()).unwrap();
    CertificateFiles { certificate: path("crt"), key: path("key") }
}

fn names_of(certificate: Option<Arc<CertifiedKey>>) -> Vec<String> {
    certificate.map(|found| subject::dns_names(&found.cert[0])).unwrap_or_default()
}

#[test]
fn a_visitor_who_trusts_the_gateway_ca_accepts_a_minted_leaf() {
    let ca = gateway_ca();
    let now = SystemTime::now();
    let found = minting(&ca).find("Five-Words.localhost", now).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let verify = |name: &str, at: SystemTime| {
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        verifier.verify_server_cert(&found.cert[0], &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], at)
    };
    verify("five-words.localhost", now).unwrap();
    assert!(verify("other.localhost", now).is_err());
    assert!(verify("five-words.localhost", now + MINTED_LIFE + RENEW_BEFORE).is_err());
    found.keys_match().unwrap();
}

#[test]
fn only_names_right_under_an_apex_are_minted() {
    let certificates = minting(&gateway_ca());
    let now = SystemTime::now();
    for known in ["localhost", "a.localhost", "example.com", "a.example.com."] {
        assert!(certificates.find(known, now).is_some(), "{known}");
    }
    let minted = certificates.minted();
    for strange in ["example.org", "evil-example.com", "a.b.example.com", "com", "example.com.evil", "127.0.0.1", ""] {
        assert!(certificates.find(strange, now).is_none(), "{strange}");
    }
    assert_eq!(certificates.minted(), minted, "strangers leave nothing behind");
}

#[test]
fn a_leaf_is_kept_until_a_third_of_its_life_is_left() {
    let certificates = minting(&gateway_ca());
    let now = SystemTime::now();
    let first = certificates.find("a.localhost", now).unwrap();
    let replaced_at = now + MINTED_LIFE - RENEW_BEFORE;
    let later = certificates.find("a.localhost", replaced_at - Duration::from_secs(1)).unwrap();
    assert!(Arc::ptr_eq(&first, &later));
    let renewed = certificates.find("a.localhost", replaced_at).unwrap();
    assert_ne!(first.cert, renewed.cert);
}

#[test]
fn made_up_names_fill_a_bounded_cache() {
    let certificates = minting(&gateway_ca());
    for number in 0..LEAVES + 500 {
        certificates.find(&format!("n{number}.localhost"), SystemTime::now()).unwrap();
    }
    assert!(certificates.minted() <= LEAVES, "{}", certificates.minted());
}

#[test]
fn the_operators_certificate_comes_first_and_a_wildcard_stands_for_one_label() {
    let directory = tempfile::tempdir().unwrap();
    let files = [
        operator_files(&directory, "wild", &["example.com", "*.example.com"]),
        operator_files(&directory, "exact", &["special.example.com", "custom.org"]),
        operator_files(&directory, "late", &["custom.org"]),
    ];
    let certificates = Certificates::load(&files, Some(gateway_ca()), vec![name("example.com")]).unwrap();
    let now = SystemTime::now();
    let find = |text| names_of(certificates.find(text, now));
    assert_eq!(find("example.com"), ["example.com", "*.example.com"]);
    assert_eq!(find("any.EXAMPLE.com"), ["example.com", "*.example.com"]);
    assert_eq!(find("special.example.com"), ["special.example.com", "custom.org"]);
    assert_eq!(find("custom.org"), ["special.example.com", "custom.org"]);
    assert!(find("a.b.example.com").is_empty());
    assert!(find("b.custom.org").is_empty());
    assert_eq!(certificates.minted(), 0);
}

#[test]
fn a_node_with_nothing_to_show_says_so_at_the_start() {
    let error = Certificates::load(&[], None, vec![name("example.com")]).unwrap_err();
    assert!(error.to_string().contains("[[certificate]]"), "{error}");
    let missing = CertificateFiles { certificate: "/nonexistent.crt".into(), key: "/nonexistent.key".into() };
    let error = Certificates::load(&[missing], None, Vec::new()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent.crt"), "{error}");
}
