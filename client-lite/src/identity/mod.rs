//! Who the client is: an Ed25519 key, and the certificate that the cluster gave it.

use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::fmt;

/// A private key.
pub(crate) struct Key {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
}

impl Key {
    /// Draws a new key.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; SEED_BYTES];
        SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::Random)?;
        let mut pkcs8 = PKCS8_PREFIX.to_vec();
        pkcs8.extend_from_slice(&seed);
        Self::from_pkcs8(pkcs8)
    }

    /// Reads the PEM of a PKCS#8 key, of RFC 8410 or RFC 5958.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        Self::from_pkcs8(der.secret_pkcs8_der().to_vec())
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|_| KeyError::Kind)?;
        Ok(Self { pkcs8, pair })
    }

    pub(crate) fn to_pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.clone()).into()
    }

    pub(crate) fn public_key(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        bytes
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Why there is no key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gives no randomness.
    #[error("the system gives no random numbers for a new key: check that /dev/urandom exists")]
    Random,
    /// Not PEM of a PKCS#8 key.
    #[error(
        "`privKey` is not a private key in PEM: restore it from a backup, or remove `privKey`, `certificate` and every `hostname` to start as a new client"
    )]
    Pem,
    /// Another algorithm, or damaged.
    #[error(
        "`privKey` is not an Ed25519 key in PKCS#8: restore it from a backup, or remove `privKey`, `certificate` and every `hostname` to start as a new client"
    )]
    Kind,
}

/// A certificate chain that is known to be for one key.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    validity: Validity,
}

impl Certificate {
    /// Reads a chain, leaf first, and checks that its leaf is for `key`.
    pub(crate) fn from_pem(pem: &str, key: &Key) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|_| CertificateError::Pem)?;
        let leaf = chain.first().ok_or(CertificateError::Pem)?;
        let fields = x509::Fields::parse(leaf).ok_or(CertificateError::Pem)?;
        // The key is the last thing in its own structure (RFC 8410 §4).
        if !fields.public_key_info.ends_with(&key.public_key()) {
            return Err(CertificateError::OtherKey);
        }
        Ok(Self { validity: fields.validity, chain })
    }

    /// Whether the certificate is past its end at a time in Unix seconds.
    pub(crate) fn is_expired(&self, now_unix_s: u64) -> bool {
        now_unix_s >= self.validity.not_after_unix_s
    }

    /// Whether less than a third of its life is left.
    pub(crate) fn is_due(&self, now_unix_s: u64) -> bool {
        let Validity { not_before_unix_s, not_after_unix_s } = self.validity;
        let life_s = not_after_unix_s.saturating_sub(not_before_unix_s);
        not_after_unix_s.saturating_sub(now_unix_s) < life_s / 3
    }
}

/// Why a certificate cannot be shown to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("it is not a certificate in PEM")]
    Pem,
    #[error("it belongs to another key")]
    OtherKey,
}

/// From when until when a certificate holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Validity {
    pub(crate) not_before_unix_s: u64,
    pub(crate) not_after_unix_s: u64,
}

/// Writes PEM with lines of 64 characters (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

const SEED_BYTES: usize = 32;

/// What stands before the seed in a PKCS#8 Ed25519 key (RFC 8410 §7): the form that other tools read, too.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(crate) mod x509;
