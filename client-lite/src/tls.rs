//! TLS settings: what a node is verified against, and what a target is.
//!
//! The provider is named at every use. A process may hold two providers, and then a default is a panic.

use crate::identity::{Certificate, Key, x509};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, KeyProvider,
        ring::{cipher_suite, default_provider, sign::any_eddsa_type},
        verify_tls12_signature, verify_tls13_signature,
    },
    sign::SigningKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What a node's certificate is verified against.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The authorities that browsers trust.
    PublicRoots,
    /// These authorities and no other.
    Authorities(Vec<CertificateDer<'static>>),
    /// A certificate for the key of this SHA-256 digest, whatever else it says.
    Pinned([u8; 32]),
}

impl Trust {
    /// Reads a file of one or more certificates in PEM.
    pub(crate) fn read_file(path: &Path) -> Result<Self, TrustError> {
        let text = std::fs::read(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::Authorities(certificates)),
            Ok(_) | Err(_) => Err(TrustError::Pem { path: path.to_owned() }),
        }
    }

    /// Reads the base64 of a SHA-256 digest over a public key with its header (RFC 7469 §2.4).
    pub(crate) fn pinned(text: &str) -> Option<Self> {
        let bytes = data_encoding::BASE64.decode(text.trim().as_bytes()).ok()?;
        bytes.try_into().ok().map(Self::Pinned)
    }

    /// Settings for a connection to a node. With an identity, its certificate is shown.
    pub(crate) fn client_config(
        &self,
        alpn: &[u8],
        identity: Option<(&Certificate, &Key)>,
    ) -> Result<ClientConfig, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(TLS13)?;
        let builder = match self {
            Self::PublicRoots => builder.with_root_certificates(public_roots()),
            Self::Authorities(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone())?;
                }
                builder.with_root_certificates(roots)
            }
            Self::Pinned(digest) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Verifier { provider, pinned: Some(*digest) })),
        };
        let mut config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(certificate.chain.clone(), key.to_der())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(config)
    }
}

/// Prints how much there is, not what.
impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicRoots => f.write_str("PublicRoots"),
            Self::Authorities(certificates) => write!(f, "Authorities({})", certificates.len()),
            Self::Pinned(_) => f.write_str("Pinned"),
        }
    }
}

/// Why a file of trusted certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("the CA file {} cannot be read: check the path given as `caFile` or --ca", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no certificate in it.
    #[error("the CA file {} holds no certificate in PEM: give the file that the node's operator made with `specter-server pki init`", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
}

/// Settings for `https://` targets, made when the first stream needs them.
#[derive(Debug, Default)]
pub(crate) struct TargetTls {
    configs: [OnceLock<Arc<ClientConfig>>; 4],
}

impl TargetTls {
    /// Settings that offer HTTP/2 alone or HTTP/1.1 alone; `insecure` takes any certificate.
    pub(crate) fn config(&self, http2: bool, insecure: bool) -> Result<Arc<ClientConfig>, std::io::Error> {
        let slot = &self.configs[usize::from(http2) * 2 + usize::from(insecure)];
        if let Some(config) = slot.get() {
            return Ok(config.clone());
        }
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?;
        let mut config = if insecure {
            let verifier = Arc::new(Verifier { provider, pinned: None });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            builder.with_root_certificates(public_roots()).with_no_client_auth()
        };
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(slot.get_or_init(|| Arc::new(config)).clone())
    }
}

/// Takes a pinned key, or any certificate where the user asked for that; signatures are verified all the same.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    pinned: Option<[u8; 32]>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(pinned) = self.pinned else {
            return Ok(ServerCertVerified::assertion());
        };
        let fields = x509::Fields::parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, fields.public_key_info);
        if digest.as_ref() == pinned {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The one kind of key that a client has. The provider's own loader brings the code to sign by every other kind.
#[derive(Debug)]
struct OwnKeys;

impl KeyProvider for OwnKeys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, TlsError> {
        match &key {
            PrivateKeyDer::Pkcs8(key) => any_eddsa_type(key),
            _ => Err(TlsError::General("the key of a client is one for Ed25519, in PKCS#8".into())),
        }
    }
}

/// ring, with the cheapest cipher of this processor first: AES costs a third of ChaCha20 where there are instructions
/// for it, and a multiple of it where there are none.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let mut provider = CryptoProvider { key_provider: &OwnKeys, ..default_provider() };
        let favourite = if processor::has_aes() {
            cipher_suite::TLS13_AES_128_GCM_SHA256
        } else {
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256
        };
        provider.cipher_suites.retain(|suite| *suite != favourite);
        provider.cipher_suites.insert(0, favourite);
        Arc::new(provider)
    };
    PROVIDER.get_or_init(make).clone()
}

fn public_roots() -> RootCertStore {
    RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned())
}

/// Links and `connect` are ours on both ends.
const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod processor {
    pub(super) fn has_aes() -> bool {
        std::arch::is_x86_feature_detected!("aes")
    }
}

#[cfg(target_arch = "aarch64")]
mod processor {
    pub(super) fn has_aes() -> bool {
        std::arch::is_aarch64_feature_detected!("aes")
    }
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
mod processor {
    pub(super) fn has_aes() -> bool {
        false
    }
}
