//! Which client certificates a link accepts.

use std::sync::Arc;

use rustls::server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier};

use super::{ClientCa, provider, roots};

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
