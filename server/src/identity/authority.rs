//! The authorities of a cluster, and what they sign.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use specter_wire::name::Hostname;

use super::subject::{client_id_of_key, client_uri};

/// Signs certificates for clients.
#[derive(Clone)]
pub struct ClientCa(Arc<Authority>);

impl ClientCa {
    pub(super) fn new(authority: Authority) -> Self {
        Self(Arc::new(authority))
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// Signs a certificate for a client's raw Ed25519 key, in PEM. It begins an hour before `now`, for clients whose
    /// clock is late, and ends [`CLIENT_LIFE`] after.
    ///
    /// # Errors
    /// [`SignError`]: nothing the client can do about it.
    pub fn issue(&self, public_key: &[u8; 32], now: SystemTime) -> Result<String, SignError> {
        let id = client_id_of_key(public_key);
        let mut params = leaf(&id.to_string(), now, CLIENT_LIFE)?;
        params.subject_alt_names = vec![SanType::URI(client_uri(id).try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(self.0.sign(&params, &Ed25519Key(*public_key))?.pem())
    }
}

/// Signs certificates that visitors are shown.
#[derive(Clone)]
pub struct MintingCa(Arc<Authority>);

impl MintingCa {
    pub(super) fn new(authority: Authority) -> Self {
        Self(Arc::new(authority))
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// Signs a certificate for exactly this name. It begins an hour before `now` and ends [`MINTED_LIFE`] after.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn mint(&self, name: &Hostname, key: &KeyPair, now: SystemTime) -> Result<CertificateDer<'static>, SignError> {
        // A common name has at most 64 characters and is not looked at where alternative names are.
        let mut params = leaf("Specter tunnel", now, MINTED_LIFE)?;
        params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(self.0.sign(&params, key)?.der().clone())
    }
}

/// A CA certificate with its key.
pub(super) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Joins a CA's certificate and key; `None` if they do not belong together or cannot sign.
    pub(super) fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        if parsed.tbs_certificate.subject_pki.subject_public_key.data.as_ref() != key.der_bytes() {
            return None;
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).ok()?;
        Some(Self { certificate, issuer })
    }

    pub(super) fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, SignError> {
        Ok(params.signed_by(key, &self.issuer)?)
    }
}

/// Why a certificate cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The library refuses.
    #[error("the certificate cannot be signed")]
    Sign(#[from] rcgen::Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// A client's public key, which is all that is known of the pair.
struct Ed25519Key([u8; 32]);

impl PublicKeyData for Ed25519Key {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl fmt::Debug for ClientCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCa(…)")
    }
}

impl fmt::Debug for MintingCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MintingCa(…)")
    }
}

/// What every certificate for an end has in common.
pub(super) fn leaf(common_name: &str, now: SystemTime, life: Duration) -> Result<CertificateParams, SignError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    let date = |time: SystemTime| date_time_ymd(1970, 1, 1) + time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (params.not_before, params.not_after) = (date(now - BACKDATED), date(now + life));
    Ok(params)
}

/// A CA that signs leaves only.
pub(super) fn authority(common_name: &str, now: SystemTime) -> Result<CertificateParams, SignError> {
    let mut params = leaf(common_name, now, AUTHORITY_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Random: two certificates of one CA with the same number are refused by browsers, and a key may be certified twice.
fn serial() -> Result<SerialNumber, SignError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SignError::Random)?;
    // Positive and of full length in DER.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// How long a client's certificate is valid. Clients renew when a third of it is left.
pub const CLIENT_LIFE: Duration = Duration::from_secs(90 * DAY_SECONDS);

/// How long a minted certificate is valid.
pub const MINTED_LIFE: Duration = Duration::from_secs(30 * DAY_SECONDS);

/// How long a CA made by `pki init` is valid: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * DAY_SECONDS);

/// How much earlier than now certificates begin, for peers whose clock is late.
const BACKDATED: Duration = Duration::from_secs(3600);

pub(super) const DAY_SECONDS: u64 = 24 * 3600;
