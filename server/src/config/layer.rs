//! What was typed in one place: all of it optional, none of it checked.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{CertificateFiles, ConfigError};

/// Settings as they were typed.
#[derive(Clone, Default, Debug)]
pub struct Layer {
    /// Where the node is reached from outside, `HOST:PORT`.
    pub advertise: Option<Stated>,
    /// Addresses for both TCP and UDP.
    pub listen: Option<Vec<Stated>>,
    /// Addresses for TCP.
    pub listen_tcp: Option<Vec<Stated>>,
    /// Addresses for UDP.
    pub listen_udp: Option<Vec<Stated>>,
    /// Addresses for plain HTTP, or `none`.
    pub listen_http: Option<Vec<Stated>>,
    /// Nodes to join, `HOST:PORT`.
    pub join: Option<Vec<Stated>>,
    /// Where the store is.
    pub data_dir: Option<Stated>,
    /// When a write is on the disk.
    pub sync: Option<Stated>,
    /// Where the certificates are.
    pub cert_dir: Option<Stated>,
    /// Whether the certificates are in the environment.
    pub cert_env: Option<Stated>,
    /// Domains of tunnels.
    pub apex: Option<Vec<Stated>>,
    /// The operator's certificates for visitors.
    pub certificates: Vec<CertificateLayer>,
    /// Filter of the log.
    pub log: Option<Stated>,
    /// Whether the log is JSON.
    pub log_json: Option<Stated>,
    /// Zero bits of the proof of work.
    pub work_bits: Option<Stated>,
    /// How long streams in progress may take at the end, in seconds.
    pub drain: Option<Stated>,
    /// Threads of the runtime.
    pub workers: Option<Stated>,
}

impl Layer {
    /// These settings, and those of `other` where this has none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            advertise: self.advertise.or(other.advertise),
            // Listeners of one place go together: `--listen` beats a `listen_tcp` in the file.
            listen_tcp: self.listen_tcp.or(if self.listen.is_none() { other.listen_tcp } else { None }),
            listen_udp: self.listen_udp.or(if self.listen.is_none() { other.listen_udp } else { None }),
            listen: self.listen.or(other.listen),
            listen_http: self.listen_http.or(other.listen_http),
            join: self.join.or(other.join),
            data_dir: self.data_dir.or(other.data_dir),
            sync: self.sync.or(other.sync),
            // So do the two sources of certificates.
            cert_dir: if self.cert_env.is_none() { self.cert_dir.or(other.cert_dir) } else { self.cert_dir },
            cert_env: self.cert_env.or(other.cert_env),
            apex: self.apex.or(other.apex),
            certificates: if self.certificates.is_empty() { other.certificates } else { self.certificates },
            log: self.log.or(other.log),
            log_json: self.log_json.or(other.log_json),
            work_bits: self.work_bits.or(other.work_bits),
            drain: self.drain.or(other.drain),
            workers: self.workers.or(other.workers),
        }
    }
}

/// One `[[certificate]]`.
#[derive(Clone, Debug)]
pub struct CertificateLayer {
    /// The chain.
    pub cert: Stated,
    /// The key.
    pub key: Stated,
}

impl CertificateLayer {
    pub(super) fn paths(&self) -> CertificateFiles {
        CertificateFiles { certificate: self.cert.path(), key: self.key.path() }
    }
}

/// One value and where it was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stated {
    /// The value.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

impl Stated {
    /// A value of a flag.
    pub fn flag(name: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: Origin::Flag(name) }
    }

    /// A value of an environment variable.
    pub fn variable(name: &'static str, text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: Origin::Variable(name) }
    }

    /// The value as a path; in a file, relative to the file.
    pub fn path(&self) -> PathBuf {
        match &self.origin {
            Origin::Flag(_) | Origin::Variable(_) => PathBuf::from(&self.text),
            Origin::File { path, .. } => path.parent().unwrap_or(Path::new("")).join(&self.text),
        }
    }

    /// Says what is wrong with the value, and what to write instead.
    pub fn wrong(self, problem: impl Into<String>) -> ConfigError {
        ConfigError::Value { origin: self.origin, value: self.text, problem: problem.into() }
    }
}

/// Where something was typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// On the command line.
    Flag(&'static str),
    /// In the environment.
    Variable(&'static str),
    /// In the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line, key } => write!(f, "{} line {line}, {key}", path.display()),
        }
    }
}
