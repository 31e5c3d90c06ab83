//! Certificates for visitors. [`certs`] picks one for each handshake.

pub mod certs;
