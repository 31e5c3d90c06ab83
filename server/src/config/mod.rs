//! The settings of a node, checked: what the program needs, not what somebody typed.
//!
//! What was typed is a [`Layer`] for each place it can be typed in: flags, environment, file. `Layer::or` gives the
//! first precedence over the second, and [`Config::check`] turns the result into a [`Config`] or a sentence that names
//! the place, the value and the way out.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use specter_wire::{limits::WORK_BITS_MAX, name::Hostname};

mod file;
mod layer;

pub use layer::{CertificateLayer, Layer, Origin, Stated};

/// Everything a node is told. No field means "use the default": defaults are already in it.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Where the node is reached from outside.
    pub advertise: Advertise,
    /// TLS over TCP: visitors, and links where UDP is blocked. Port 0 is drawn by the system.
    pub listen_tcp: Vec<SocketAddr>,
    /// QUIC. Port 0 at index *i* takes the port that `listen_tcp[i]` got.
    pub listen_udp: Vec<SocketAddr>,
    /// Nodes of the cluster to join; with none, a new data directory makes a new cluster.
    pub join: Vec<Advertise>,
    /// Plain HTTP: CONNECT and redirects. May be empty.
    pub listen_http: Vec<SocketAddr>,
    /// Where the store is.
    pub data_dir: PathBuf,
    /// When a write is on the disk.
    pub sync: SyncPolicy,
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
    /// How long streams in progress may take when the node stops. With zero it stops at once, and hands nothing over: for
    /// clusters whose nodes all stop together.
    pub drain: Duration,
    /// Threads of the runtime; 0 means as many as there are cores.
    pub workers: usize,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncPolicy {
    /// When it is on the disk.
    #[default]
    Always,
    /// When the system has it, which writes it to the disk within a second.
    EverySecond,
}

/// A host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advertise {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port; 0 means the TCP port that was drawn.
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

impl Config {
    /// Checks what was typed and fills in the defaults.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn check(layer: Layer) -> Result<Self, ConfigError> {
        let listen = layer.listen.map_or_else(|| Ok(vec![defaults::LISTEN]), addresses)?;
        let listen_tcp = layer.listen_tcp.map_or_else(|| Ok(listen.clone()), addresses)?;
        let listen_udp = layer.listen_udp.map_or_else(|| Ok(listen), addresses)?;
        let apexes = layer.apex.unwrap_or_default().into_iter().map(apex).collect::<Result<Vec<_>, _>>()?;
        let first = apexes.first().ok_or(ConfigError::Missing {
            what: "the domain under which tunnels live",
            flag: "--apex example.com",
            key: "apex = [\"example.com\"]",
        })?;
        let port = listen_tcp.first().map_or(defaults::LISTEN.port(), SocketAddr::port);
        let join = layer.join.unwrap_or_default().into_iter().map(advertise).collect::<Result<_, _>>()?;
        let advertise = match layer.advertise {
            Some(stated) => advertise(stated)?,
            None => Advertise { host: first.to_string(), port },
        };
        let data_dir = layer.data_dir.ok_or(ConfigError::Missing {
            what: "where the node keeps its store",
            flag: "--data-dir /var/lib/specter",
            key: "data_dir = \"/var/lib/specter\"",
        })?;
        Ok(Self {
            advertise,
            listen_tcp,
            listen_udp,
            listen_http: layer.listen_http.map_or_else(|| Ok(vec![defaults::LISTEN_HTTP]), addresses)?,
            join,
            data_dir: data_dir.path(),
            sync: layer.sync.map_or(Ok(SyncPolicy::default()), sync)?,
            credentials: credentials(layer.cert_dir, layer.cert_env)?,
            apexes,
            certificates: layer.certificates.iter().map(CertificateLayer::paths).collect(),
            log: layer.log.map_or_else(|| Ok(defaults::LOG.to_owned()), log)?,
            log_json: layer.log_json.map_or(Ok(false), boolean)?,
            work_bits: layer.work_bits.map_or(Ok(defaults::WORK_BITS), work_bits)?,
            drain: layer.drain.map_or(Ok(defaults::DRAIN), drain)?,
            workers: layer.workers.map_or(Ok(0), workers)?,
        })
    }
}

/// Settings that nobody typed.
mod defaults {
    use std::{
        net::{IpAddr, Ipv4Addr, SocketAddr},
        time::Duration,
    };

    pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443);
    pub(super) const LISTEN_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80);
    pub(super) const LOG: &str = "info";
    /// About a quarter of a million hashes: a fraction of a second on a computer, some seconds on a small router.
    pub(super) const WORK_BITS: u8 = 18;
    /// Some systems kill a service 30 s after they asked it to stop.
    pub(super) const DRAIN: Duration = Duration::from_secs(20);
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read; check the path given with --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} line {line}, `{text}`: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands in the line.
        text: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value that is not understood.
    #[error("{origin}: `{value}` {problem}")]
    Value {
        /// Where it was typed.
        origin: Origin,
        /// What was typed.
        value: String,
        /// What is wrong with it, and what to write instead.
        problem: String,
    },
    /// A value that has no default.
    #[error("{what} is not given; use {flag}, or write {key} into the file given with --config")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// A flag that gives it.
        flag: &'static str,
        /// A line of the file that gives it.
        key: &'static str,
    },
    /// Two sources of credentials.
    #[error("{first} and {second} are both given; the node takes its credentials from one place, so drop one of them")]
    TwoSources {
        /// The one.
        first: Origin,
        /// The other.
        second: Origin,
    },
}

/// Reads a filter as `tracing` does, but refuses what it would take for the name of a module by mistake.
///
/// # Errors
/// A [`ConfigError::Value`].
pub fn log(stated: Stated) -> Result<String, ConfigError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |text: &str| LEVELS.contains(&text.to_ascii_lowercase().as_str());
    let understood = stated.text.split(',').all(|part| match part.trim().split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level.trim()),
        None => is_level(part.trim()),
    });
    if understood {
        Ok(stated.text)
    } else {
        Err(stated
            .wrong("is no log filter; write a level (error, warn, info, debug, trace) or specter_server=debug,info"))
    }
}

fn addresses(stated: Vec<Stated>) -> Result<Vec<SocketAddr>, ConfigError> {
    if let [only] = stated.as_slice()
        && only.text == "none"
    {
        return Ok(Vec::new());
    }
    let parse = |stated: Stated| match stated.text.parse() {
        Ok(address) => Ok(address),
        Err(_) => Err(stated.wrong("is not IP:PORT; write for example 0.0.0.0:443 or [::]:443")),
    };
    stated.into_iter().map(parse).collect()
}

fn apex(stated: Stated) -> Result<Hostname, ConfigError> {
    match Hostname::parse(&stated.text) {
        Ok(name) => Ok(name),
        Err(error) => Err(stated.wrong(format!("is no domain: {error}; write for example example.com"))),
    }
}

/// Reads a host and port, as the flag `--advertise` has it.
///
/// # Errors
/// A [`ConfigError::Value`].
pub fn advertise(stated: Stated) -> Result<Advertise, ConfigError> {
    let wrong = "is not HOST:PORT; write for example node1.example.com:443 or [2001:db8::1]:443";
    let Some((host, port)) = stated.text.rsplit_once(':') else { return Err(stated.wrong(wrong)) };
    let Ok(port) = port.parse() else { return Err(stated.wrong(wrong)) };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(address) if matches!(address.parse(), Ok(IpAddr::V6(_))) => address.to_owned(),
        Some(_) => return Err(stated.wrong(wrong)),
        None if matches!(host.parse(), Ok(IpAddr::V4(_))) => host.to_owned(),
        None => match Hostname::parse(host) {
            Ok(name) => name.to_string(),
            Err(error) => return Err(stated.wrong(format!("{wrong} ({error})"))),
        },
    };
    Ok(Advertise { host, port })
}

fn credentials(directory: Option<Stated>, environment: Option<Stated>) -> Result<CredentialsSource, ConfigError> {
    let from_environment = environment.clone().map_or(Ok(false), boolean)?;
    match (directory, environment) {
        (Some(directory), Some(environment)) if from_environment => {
            Err(ConfigError::TwoSources { first: directory.origin, second: environment.origin })
        }
        (Some(directory), _) => Ok(CredentialsSource::Directory(directory.path())),
        (None, Some(_)) if from_environment => Ok(CredentialsSource::Environment),
        (None, _) => Err(ConfigError::Missing {
            what: "where the node's certificates are",
            flag: "--cert-dir /etc/specter/cert (made by `specter-server pki init`) or --cert-env",
            key: "cert_dir = \"/etc/specter/cert\"",
        }),
    }
}

fn boolean(stated: Stated) -> Result<bool, ConfigError> {
    match stated.text.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(stated.wrong("is neither true nor false")),
    }
}

fn sync(stated: Stated) -> Result<SyncPolicy, ConfigError> {
    match stated.text.as_str() {
        "always" => Ok(SyncPolicy::Always),
        "everysec" => Ok(SyncPolicy::EverySecond),
        _ => Err(stated.wrong("is neither always nor everysec")),
    }
}

fn work_bits(stated: Stated) -> Result<u8, ConfigError> {
    match stated.text.parse() {
        Ok(bits) if bits <= WORK_BITS_MAX => Ok(bits),
        Ok(_) | Err(_) => Err(stated.wrong(format!("is no number of bits from 0 to {WORK_BITS_MAX}"))),
    }
}

fn workers(stated: Stated) -> Result<usize, ConfigError> {
    match stated.text.parse() {
        Ok(threads) if threads <= WORKERS_MAX => Ok(threads),
        Ok(_) | Err(_) => {
            Err(stated.wrong(format!("is no number of threads from 0 to {WORKERS_MAX}; 0 means one a core")))
        }
    }
}

fn drain(stated: Stated) -> Result<Duration, ConfigError> {
    match stated.text.parse() {
        Ok(seconds) if seconds <= DRAIN_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err(stated.wrong(format!(
            "is no number of seconds from 0 to {DRAIN_SECONDS_MAX}; 0 means that streams in progress are cut off"
        ))),
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// An hour: longer than anybody waits for a node to stop.
const DRAIN_SECONDS_MAX: u64 = 3600;

/// More threads than any machine has cores for; a larger number is a slip.
const WORKERS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
