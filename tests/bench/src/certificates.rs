//! A throw-away authority, and one certificate for everything that the benchmark itself serves over TLS.

use crate::Outcome;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};

/// The name under which the target, nginx and the peers are visited.
pub(crate) const NAME: &str = "target.localhost";

/// Files of a certificate for [`NAME`].
pub(crate) struct Certificates {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Certificates {
    /// Makes them in `folder`.
    pub(crate) fn make(folder: &Path) -> Outcome<Self> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = parameters.self_signed(&key)?;
        let issuer = Issuer::new(parameters, key);
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &issuer)?;
        let files = (folder.join("target.crt"), folder.join("target.key"));
        std::fs::write(&files.0, leaf.pem())?;
        std::fs::write(&files.1, key.serialize_pem())?;
        Ok(Self { authority: authority.der().clone(), certificate: files.0, key: files.1 })
    }
}
