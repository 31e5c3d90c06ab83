//! Credentials from files or from the environment, checked before anything starts.

use std::{fs, path::Path, sync::Arc};

use rcgen::KeyPair;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use tracing::warn;

use super::{ClientCa, Credentials, CredentialsError, MintingCa, authority::Authority, provider, roots, subject};
use crate::private;

impl Credentials {
    /// Reads `ca.crt`, `client-ca.crt`, `client-ca.key`, `node.crt`, `node.key` and, if there, `gateway-ca.crt` and
    /// `gateway-ca.key`.
    ///
    /// # Errors
    /// [`CredentialsError`], with the file's name.
    pub fn from_directory(directory: &Path) -> Result<Self, CredentialsError> {
        let read = |name: &str| Pem::read(&directory.join(name));
        let read_key = |name: &str| Pem::read_key(&directory.join(name));
        let gateway = if directory.join("gateway-ca.crt").exists() {
            Some((read("gateway-ca.crt")?, read_key("gateway-ca.key")?))
        } else {
            None
        };
        Self::check(
            &read("ca.crt")?,
            (&read("client-ca.crt")?, &read_key("client-ca.key")?),
            (&read("node.crt")?, &read_key("node.key")?),
            gateway.as_ref().map(|(certificate, key)| (certificate, key)),
        )
    }

    /// Reads base64 of the same files from `SPECTER_CERT_CA`, `_CLIENT_CA`, `_CLIENT_CA_KEY`, `_NODE`, `_NODE_KEY` and,
    /// if set, `_GATEWAY_CA` and `_GATEWAY_CA_KEY`. `variable` looks one up.
    ///
    /// # Errors
    /// [`CredentialsError`], with the variable's name.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CredentialsError> {
        let decode = |name: &'static str| {
            let text = variable(name).ok_or(CredentialsError::Missing { variable: name })?;
            Pem::decode(name, &text)
        };
        let gateway = match variable("SPECTER_CERT_GATEWAY_CA") {
            Some(_) => Some((decode("SPECTER_CERT_GATEWAY_CA")?, decode("SPECTER_CERT_GATEWAY_CA_KEY")?)),
            None => None,
        };
        Self::check(
            &decode("SPECTER_CERT_CA")?,
            (&decode("SPECTER_CERT_CLIENT_CA")?, &decode("SPECTER_CERT_CLIENT_CA_KEY")?),
            (&decode("SPECTER_CERT_NODE")?, &decode("SPECTER_CERT_NODE_KEY")?),
            gateway.as_ref().map(|(certificate, key)| (certificate, key)),
        )
    }

    fn check(
        cluster_ca: &Pem,
        client_ca: (&Pem, &Pem),
        node: (&Pem, &Pem),
        gateway_ca: Option<(&Pem, &Pem)>,
    ) -> Result<Self, CredentialsError> {
        let node_chain = node.0.certificates()?;
        let node_key = node.1.private_key()?;
        let cluster_ca = cluster_ca.certificate()?;
        let leaf = node_chain.first().ok_or_else(|| node.0.without("certificate"))?;
        check_pair(node.0, &node_chain, node.1, &node_key)?;
        check_node(leaf, &node_chain, &cluster_ca)
            .map_err(|source| CredentialsError::NotTrusted { origin: node.0.origin.clone(), source })?;
        let (cluster_id, node_id) =
            subject::node_of(leaf).ok_or_else(|| CredentialsError::NotNode { origin: node.0.origin.clone() })?;
        Ok(Self {
            client_ca: ClientCa::new(load_authority(client_ca.0, client_ca.1)?),
            gateway_ca: match gateway_ca {
                Some((certificate, key)) => Some(MintingCa::new(load_authority(certificate, key)?)),
                None => None,
            },
            cluster_ca,
            node_key,
            node_id,
            cluster_id,
            node_chain,
        })
    }
}

/// A certificate chain and key as rustls serves them, from two PEM files of an operator.
///
/// # Errors
/// [`CredentialsError`], with the file's name.
pub fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, CredentialsError> {
    let (certificate, key) = (Pem::read(certificate)?, Pem::read_key(key)?);
    check_pair(&certificate, &certificate.certificates()?, &key, &key.private_key()?)
}

/// The text of a PEM file and where it is from.
struct Pem {
    origin: String,
    text: Vec<u8>,
}

impl Pem {
    fn read(path: &Path) -> Result<Self, CredentialsError> {
        match fs::read(path) {
            Ok(text) => Ok(Self { origin: path.display().to_string(), text }),
            Err(source) => Err(CredentialsError::Unreadable { path: path.to_owned(), source }),
        }
    }

    fn read_key(path: &Path) -> Result<Self, CredentialsError> {
        let pem = Self::read(path)?;
        match private::exposure(path) {
            Ok(0) => {}
            // Secrets that are mounted into a container for a group look like this, so it is no error.
            Ok(bits) if bits & 0o007 == 0 => warn!(key = %path.display(), "a group of users can read a private key"),
            Ok(bits) => return Err(CredentialsError::Exposed { path: path.to_owned(), mode: 0o600 | bits }),
            Err(source) => return Err(CredentialsError::Unreadable { path: path.to_owned(), source }),
        }
        Ok(pem)
    }

    fn decode(variable: &'static str, text: &str) -> Result<Self, CredentialsError> {
        // Tools break base64 into lines.
        let text: String = text.split_whitespace().collect();
        match data_encoding::BASE64.decode(text.as_bytes()) {
            Ok(text) => Ok(Self { origin: variable.to_owned(), text }),
            Err(_) => Err(CredentialsError::Base64 { variable }),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
        match CertificateDer::pem_slice_iter(&self.text).collect::<Result<Vec<_>, _>>() {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            Ok(_) | Err(_) => Err(self.without("certificate")),
        }
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, CredentialsError> {
        CertificateDer::from_pem_slice(&self.text).map_err(|_| self.without("certificate"))
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, CredentialsError> {
        PrivateKeyDer::from_pem_slice(&self.text).map_err(|_| self.without("private key"))
    }

    fn without(&self, what: &'static str) -> CredentialsError {
        CredentialsError::Pem { origin: self.origin.clone(), what }
    }
}

fn load_authority(certificate: &Pem, key: &Pem) -> Result<Authority, CredentialsError> {
    let der = certificate.certificate()?;
    let text = std::str::from_utf8(&key.text).map_err(|_| key.without("private key"))?;
    let pair = KeyPair::from_pem(text).map_err(|_| key.without("private key"))?;
    let is_authority = x509_parser::parse_x509_certificate(&der).is_ok_and(|(_, parsed)| parsed.is_ca());
    if !is_authority {
        return Err(CredentialsError::NotAuthority { origin: certificate.origin.clone() });
    }
    Authority::new(der, pair).ok_or_else(|| mismatch(certificate, key))
}

fn check_pair(
    certificate: &Pem,
    chain: &[CertificateDer<'static>],
    key: &Pem,
    key_der: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CredentialsError> {
    CertifiedKey::from_der(chain.to_vec(), key_der.clone_key(), &provider()).map_err(|_| mismatch(certificate, key))
}

fn mismatch(certificate: &Pem, key: &Pem) -> CredentialsError {
    CredentialsError::Mismatch { certificate: certificate.origin.clone(), key: key.origin.clone() }
}

/// Verifies the node's own certificate as its peers will: better a sentence at the start than refused peers later.
fn check_node(
    leaf: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    cluster_ca: &CertificateDer<'static>,
) -> Result<(), rustls::Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots([cluster_ca]), Arc::clone(&provider()))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_client_cert(leaf, &chain[1..], UnixTime::now()).map(drop)
}
