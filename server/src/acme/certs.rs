//! Picks the certificate for a handshake by its SNI: the operator's files first, then leaves minted by the gateway CA.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use quick_cache::sync::Cache;
use rcgen::KeyPair;
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::PrivateKeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};
use specter_wire::name::Hostname;
use tracing::warn;

use crate::{
    config::CertificateFiles,
    identity::{
        self, CredentialsError, MintingCa,
        authority::{MINTED_LIFE, SignError},
        subject,
    },
};

/// All certificates that a node can show.
#[derive(Debug)]
pub struct Certificates {
    /// By name; a wildcard under its whole text, `*.example.com`.
    given: HashMap<String, Arc<CertifiedKey>>,
    minter: Option<Minter>,
}

impl Certificates {
    /// Reads the operator's files and joins them with the gateway CA, if any, for names under the apexes.
    ///
    /// # Errors
    /// [`LoadError`], with the file's name.
    pub fn load(
        files: &[CertificateFiles],
        gateway_ca: Option<MintingCa>,
        apexes: Vec<Hostname>,
    ) -> Result<Self, LoadError> {
        if files.is_empty() && gateway_ca.is_none() {
            return Err(LoadError::NoSource);
        }
        let given = files
            .iter()
            .map(|files| identity::certified_key(&files.certificate, &files.key))
            .collect::<Result<_, _>>()?;
        Ok(Self::new(given, gateway_ca, apexes)?)
    }

    /// Joins the operator's certificates, if any, and a gateway CA, if any, for names under the apexes.
    ///
    /// # Errors
    /// If the key for minted leaves cannot be made.
    pub fn new(
        given: Vec<CertifiedKey>,
        gateway_ca: Option<MintingCa>,
        apexes: Vec<Hostname>,
    ) -> Result<Self, SignError> {
        let mut names = HashMap::new();
        for certificate in given.into_iter().map(Arc::new) {
            let Some(leaf) = certificate.cert.first() else { continue };
            for name in subject::dns_names(leaf) {
                // The first file that names a host wins, as an operator would expect of a list.
                names.entry(name.to_ascii_lowercase()).or_insert_with(|| Arc::clone(&certificate));
            }
        }
        let minter = gateway_ca.map(|ca| Minter::new(ca, apexes)).transpose()?;
        Ok(Self { given: names, minter })
    }

    /// The certificate for a name, if there is one or one may be made.
    pub fn find(&self, name: &str, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        let name = Hostname::parse(name).ok()?;
        if let Some(certificate) = self.given.get(name.as_str()) {
            return Some(Arc::clone(certificate));
        }
        // A wildcard stands for exactly one label (RFC 6125 §6.4.3).
        if let Some((_, parent)) = name.as_str().split_once('.')
            && let Some(certificate) = self.given.get(&format!("*.{parent}"))
        {
            return Some(Arc::clone(certificate));
        }
        self.minter.as_ref()?.find(&name, now)
    }

    /// The operator's certificates and minted leaves that are kept.
    #[cfg(test)]
    fn minted(&self) -> usize {
        self.minter.as_ref().map_or(0, |minter| minter.leaves.len())
    }
}

/// Why there are no certificates for visitors.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Neither files nor an authority.
    #[error(
        "there is no certificate to show visitors; name one with [[certificate]] in the configuration, or put \
        gateway-ca.crt and gateway-ca.key into the certificate directory"
    )]
    NoSource,
    /// A file.
    #[error(transparent)]
    Files(#[from] CredentialsError),
    /// The minting key.
    #[error(transparent)]
    Key(#[from] SignError),
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()?, SystemTime::now())
    }
}

/// Makes one leaf for each name that is asked for under an apex.
///
/// All leaves of a run share one key, so a name that was never seen costs a handshake one signature more than a known
/// one: strangers who make names up gain nothing over strangers who do not.
struct Minter {
    ca: MintingCa,
    apexes: Vec<Hostname>,
    pair: KeyPair,
    key: Arc<dyn SigningKey>,
    leaves: Cache<Hostname, Leaf>,
}

#[derive(Clone)]
struct Leaf {
    certificate: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl Minter {
    fn new(ca: MintingCa, apexes: Vec<Hostname>) -> Result<Self, SignError> {
        let pair = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let key = any_supported_type(&der).map_err(|_| rcgen::Error::KeyGenerationUnavailable)?;
        Ok(Self { ca, apexes, pair, key, leaves: Cache::new(LEAVES) })
    }

    fn find(&self, name: &Hostname, now: SystemTime) -> Option<Arc<CertifiedKey>> {
        if let Some(leaf) = self.leaves.get(name)
            && now < leaf.renew_at
        {
            return Some(leaf.certificate);
        }
        if !self.apexes.iter().any(|apex| name == apex || name.label_under(apex).is_some()) {
            return None;
        }
        match self.ca.mint(name, &self.pair, now) {
            Ok(der) => {
                let certificate = Arc::new(CertifiedKey::new(vec![der], Arc::clone(&self.key)));
                let leaf = Leaf { certificate: Arc::clone(&certificate), renew_at: now + MINTED_LIFE - RENEW_BEFORE };
                self.leaves.insert(name.clone(), leaf);
                Some(certificate)
            }
            Err(error) => {
                warn!(%error, "no certificate can be made for a visitor");
                None
            }
        }
    }
}

impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Minter({:?}, {} leaves)", self.apexes, self.leaves.len())
    }
}

/// Most minted leaves kept, about 1 KiB each. A name that is asked for again after it fell out is minted again.
const LEAVES: usize = 4096;

/// How long before its end a minted leaf is replaced: a third of its life.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 24 * 3600);

#[cfg(test)]
mod tests;
