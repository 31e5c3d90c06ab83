//! The settings of a node, checked: what the program needs, not what somebody typed.

use std::{net::SocketAddr, path::PathBuf};

use specter_wire::name::Hostname;

/// Everything a node is told. No field means "use the default": defaults are already in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where the node is reached from outside.
    pub advertise: Advertise,
    /// TLS over TCP: visitors, and links where UDP is blocked. Port 0 is drawn by the system.
    pub listen_tcp: Vec<SocketAddr>,
    /// QUIC. Port 0 at index *i* takes the port that `listen_tcp[i]` got.
    pub listen_udp: Vec<SocketAddr>,
    /// Plain HTTP: CONNECT and redirects. May be empty.
    pub listen_http: Vec<SocketAddr>,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// Where the node's credentials are.
    pub credentials: CredentialsSource,
    /// Domains under which tunnels live, at least one.
    pub apexes: Vec<Hostname>,
    /// The operator's certificates for visitors.
    pub certificates: Vec<CertificateFiles>,
    /// Filter of the log, as `tracing` reads it: `info`, `specter_server=debug`.
    pub log: String,
    /// Whether the log is JSON lines.
    pub log_json: bool,
    /// Zero bits that a client must show to register.
    pub work_bits: u8,
    /// Threads of the runtime; 0 means as many as there are cores.
    pub workers: usize,
}

/// A host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertise {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Where a node's credentials are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CredentialsSource {
    /// Files in a directory, as `pki init` makes it.
    Directory(PathBuf),
    /// The `SPECTER_CERT_…` variables.
    Environment,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}
