//! The configuration, checked: what the rest of the program may rely on. Raw text comes from the file or, for one
//! tunnel, from the command line.

pub(crate) mod raw;
#[cfg(test)]
mod tests;

use crate::{
    links::Transport,
    memory::Memory,
    target::{Authority, Target, TargetError},
    tls::{Trust, TrustError},
};
use raw::{At, RawConfig, RawTunnel};
use specter_wire::{
    limits::{AUTHORITY_BYTES, HEADER_TIMEOUT_MS_MAX},
    name::{Hostname, NameError, is_authority},
};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

/// A checked configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where the nodes are, and the domain that the client expects its tunnels under.
    pub(crate) apex: Authority,
    /// What a node's certificate is verified against.
    pub(crate) trust: Trust,
    /// The identity's certificate in PEM; empty before the first registration.
    pub(crate) certificate: String,
    /// The identity's key in PEM; empty before the first start.
    pub(crate) private_key: raw::Secret,
    pub(crate) tunnels: Vec<Tunnel>,
    /// How much may be on its way.
    pub(crate) memory: Memory,
    /// Nodes to keep a link to.
    pub(crate) links: usize,
    /// What may carry them.
    pub(crate) transport: Transport,
}

/// One tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    /// None until the node has given it one.
    pub(crate) hostname: Option<Hostname>,
    pub(crate) target: Target,
    pub(crate) host: Host,
    pub(crate) header_timeout_ms: u32,
}

/// Which `Host` the target is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The tunnel's own name.
    Hostname,
    /// This text.
    Fixed(String),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line, the key and its value, and says what to do.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::check(&Source::read(path)?, path)
    }

    /// Checks a text. `path` stands in errors, and relative paths in the text start at its folder.
    pub(crate) fn check(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw = raw::parse(text).map_err(|error| ConfigError::Syntax {
            place: Place { path: path.to_owned(), line: error.line },
            message: error.message,
        })?;
        Checker { path }.config(raw)
    }

    /// A configuration of one tunnel that lives in memory.
    pub(crate) fn single(apex: Authority, trust: Trust, tunnel: Tunnel) -> Self {
        let private_key = raw::Secret(String::new());
        Self {
            apex,
            trust,
            certificate: String::new(),
            private_key,
            tunnels: vec![tunnel],
            memory: Memory::default(),
            links: defaults::LINKS,
            transport: Transport::default(),
        }
    }

    /// Whether a first connection has something to write back.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.certificate.is_empty()
            || self.private_key.0.is_empty()
            || self.tunnels.iter().any(|tunnel| tunnel.hostname.is_none())
    }
}

impl Tunnel {
    /// A tunnel with every option at its default.
    pub(crate) fn new(target: Target) -> Self {
        let host = Host::Fixed(target.host_header());
        Self { hostname: None, target, host, header_timeout_ms: defaults::HEADER_TIMEOUT_MS }
    }
}

/// Reading, apart from checking: the writer reads the same file again later.
pub(crate) struct Source;

impl Source {
    /// The text of a file.
    pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
        std::fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            // The standard library may name further kinds at any time.
            _ => ConfigError::Read { path: path.to_owned(), source },
        })
    }
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error(
        "the configuration {} does not exist: create it (`client-lite config-example` prints one to start from) or name another with --config",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file exists and cannot be read.
    #[error("the configuration {} cannot be read: check that it is a text file this user may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The text is no YAML, or holds a field or type that does not belong there.
    #[error("{place}: {message}; `client-lite config-example` shows every field")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A field is missing.
    #[error("{place}: `{key}` is missing: {remedy}")]
    Absent {
        /// Where it should be.
        place: Place,
        /// The field.
        key: &'static str,
        /// What to write.
        remedy: &'static str,
    },
    /// A field has a value that cannot be used.
    #[error("{place}: `{key}: {value}` {reason}")]
    Value {
        /// Where.
        place: Place,
        /// The field.
        key: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The file of trusted certificates cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

/// Turns raw fields into checked ones.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn config(&self, raw: RawConfig) -> Result<Config, ConfigError> {
        let version = raw.version.ok_or_else(|| self.absent(1, "version", "write `version: 2`"))?;
        if version.value != VERSION {
            let reason = "is a version this program does not know: write 2";
            return Err(self.value(version.line, "version", &version.value, reason));
        }
        let apex = raw.apex.ok_or_else(|| self.absent(version.line, "apex", "write `apex: example.com:443`"))?;
        let trust = self.trust(raw.ca_file, raw.pinned_key)?;
        let apex = Authority::parse(&apex.value, Some(defaults::APEX_PORT))
            .map_err(|error| self.value(apex.line, "apex", &apex.value, error))?;
        let memory = self.memory(raw.memory)?;
        let links = self.links(raw.links)?;
        let transport = self.transport(raw.transport)?;
        let mut tunnels = Vec::new();
        let mut lines = BTreeMap::new();
        for tunnel in raw.tunnels.unwrap_or_default() {
            let line = tunnel.hostname.as_ref().map(|at| at.line);
            let tunnel = self.tunnel(tunnel, version.line)?;
            if let (Some(line), Some(hostname)) = (line, &tunnel.hostname) {
                let full = full_name(hostname, &apex.host);
                if let Some(first) = lines.insert(full, line) {
                    let reason =
                        format!("stands on line {first} already: give each tunnel its own, or remove this one");
                    return Err(self.value(line, "hostname", hostname, reason));
                }
            }
            tunnels.push(tunnel);
        }
        Ok(Config {
            apex,
            trust,
            certificate: raw.certificate.map(|at| at.value).unwrap_or_default(),
            private_key: raw.priv_key.map_or(raw::Secret(String::new()), |at| at.value),
            tunnels,
            memory,
            links,
            transport,
        })
    }

    fn trust(&self, ca_file: Option<At<String>>, pinned_key: Option<At<String>>) -> Result<Trust, ConfigError> {
        match (ca_file, pinned_key) {
            (None, None) => Ok(Trust::PublicRoots),
            (Some(file), None) => {
                let folder = self.path.parent().unwrap_or(Path::new(""));
                Ok(Trust::read_file(&folder.join(&file.value))?)
            }
            (None, Some(key)) => Trust::pinned(&key.value)
                .ok_or_else(|| self.value(key.line, "pinnedKey", &key.value, "is not the base64 of a SHA-256 digest")),
            (Some(_), Some(key)) => {
                Err(self.value(key.line, "pinnedKey", &key.value, "excludes `caFile`: remove one of the two"))
            }
        }
    }

    fn links(&self, links: Option<At<String>>) -> Result<usize, ConfigError> {
        let Some(At { value, line }) = links else {
            return Ok(defaults::LINKS);
        };
        let count = value.parse().ok().filter(|count| (1..=LINKS_MAX).contains(count));
        count.ok_or_else(|| self.value(line, "links", &value, "is no number from 1 to 8"))
    }

    fn memory(&self, memory: Option<At<String>>) -> Result<Memory, ConfigError> {
        let Some(At { value, line }) = memory else {
            return Ok(Memory::default());
        };
        Memory::parse(&value).ok_or_else(|| {
            self.value(line, "memory", &value, "is no size: write small, normal or large, or leave it out")
        })
    }

    fn transport(&self, transport: Option<At<String>>) -> Result<Transport, ConfigError> {
        let Some(At { value, line }) = transport else {
            return Ok(Transport::default());
        };
        Transport::parse(&value)
            .ok_or_else(|| self.value(line, "transport", &value, "is none: write auto, quic or tcp, or leave it out"))
    }

    fn tunnel(&self, raw: RawTunnel, fallback_line: u64) -> Result<Tunnel, ConfigError> {
        let line = [raw.hostname.as_ref().map(|at| at.line), raw.header_mode.as_ref().map(|at| at.line)];
        let line = line.into_iter().flatten().min().unwrap_or(fallback_line);
        let text = raw.target.ok_or_else(|| self.absent(line, "target", "each tunnel needs one"))?;
        let bad_target = |error: TargetError| self.value(text.line, "target", &text.value, error);
        let mut target = Target::parse(&text.value).map_err(bad_target)?;
        if let Some(At { value, line }) = raw.insecure {
            let bad = |reason: &dyn fmt::Display| self.value(line, "insecure", &value, reason);
            target = match value.as_str() {
                "false" | "False" | "FALSE" => target,
                "true" | "True" | "TRUE" => target.without_verification().map_err(|error| bad(&error))?,
                _ => return Err(bad(&"is neither true nor false")),
            };
        }
        let mut tunnel = Tunnel::new(target);
        tunnel.hostname = match raw.hostname {
            Some(at) if !at.value.is_empty() => Some(
                Hostname::parse(&at.value)
                    .map_err(|error: NameError| self.value(at.line, "hostname", &at.value, error))?,
            ),
            Some(_) | None => None,
        };
        if let Some(at) = raw.header_timeout {
            tunnel.header_timeout_ms =
                duration_ms(&at.value).ok_or_else(|| self.value(at.line, "headerTimeout", &at.value, DURATION))?;
        }
        tunnel.host = self.host(&tunnel.target, raw.header_mode, raw.header_host, text.line)?;
        Ok(tunnel)
    }

    /// Which `Host` to show, by the modes of the original: empty takes `headerHost` if there is one.
    fn host(
        &self,
        target: &Target,
        mode: Option<At<String>>,
        host: Option<At<String>>,
        fallback_line: u64,
    ) -> Result<Host, ConfigError> {
        if let Some(at) = &host
            && !is_authority(&at.value)
        {
            let reason = format!("is no host for a header: at most {AUTHORITY_BYTES} letters, digits and `-._:[]`");
            return Err(self.value(at.line, "headerHost", &at.value, reason));
        }
        let mode_line = mode.as_ref().map_or(fallback_line, |at| at.line);
        let mode = mode.map(|at| at.value).unwrap_or_default();
        match (mode.as_str(), host) {
            ("" | "custom", Some(at)) => Ok(Host::Fixed(at.value)),
            ("custom", None) => Err(self.absent(mode_line, "headerHost", "`headerMode: custom` needs it")),
            ("" | "target", _) => Ok(Host::Fixed(target.host_header())),
            ("hostname", _) => Ok(Host::Hostname),
            (_, _) => {
                let reason = "is no mode: write hostname, target or custom, or leave it out";
                Err(self.value(mode_line, "headerMode", mode, reason))
            }
        }
    }

    fn absent(&self, line: u64, key: &'static str, remedy: &'static str) -> ConfigError {
        ConfigError::Absent { place: self.place(line), key, remedy }
    }

    fn value(&self, line: u64, key: &'static str, value: impl ToString, reason: impl ToString) -> ConfigError {
        ConfigError::Value { place: self.place(line), key, value: value.to_string(), reason: reason.to_string() }
    }

    fn place(&self, line: u64) -> Place {
        Place { path: self.path.to_owned(), line }
    }
}

/// A hostname with the apex behind it if it is a single label.
pub(crate) fn full_name(hostname: &Hostname, apex: &str) -> String {
    if hostname.is_label() { format!("{hostname}.{apex}") } else { hostname.to_string() }
}

/// Whether a text may name a host: an IP address without brackets, or letters, digits and `-._`.
///
/// Wider than [`Hostname`]: names on local networks and in containers hold underscores.
pub(crate) fn valid_host(text: &str) -> bool {
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    text.parse::<std::net::IpAddr>().is_ok() || (!text.is_empty() && text.len() <= 253 && text.bytes().all(named))
}

/// Parses a sum like `1m30s`, `1.5s` or `500ms`; a bare number counts seconds. At least one millisecond, at most an hour.
pub(crate) fn duration_ms(text: &str) -> Option<u32> {
    let mut total_ms = 0_u64;
    let mut rest = text.trim();
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest.get(..digits)?;
        let tail = rest.get(digits..)?;
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let unit_ms = match tail.get(..unit)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "" if text.trim().len() == digits => 1000,
            _ => return None,
        };
        total_ms = total_ms.checked_add(times(number, unit_ms)?)?;
        rest = tail.get(unit..)?;
        if rest.is_empty() {
            break;
        }
    }
    let total_ms = u32::try_from(total_ms).ok()?;
    (1..=HEADER_TIMEOUT_MS_MAX).contains(&total_ms).then_some(total_ms)
}

/// A decimal number of that many units, rounded. What the standard library needs to read a number with a fraction is
/// a hundredth of the smallest client.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let fraction = fraction.get(..fraction.len().min(FRACTION_DIGITS))?;
    let scale = fraction.bytes().fold(1, |scale, _| scale * 10);
    let part = (digits(fraction)? * unit + scale / 2) / scale;
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

/// More digits of a fraction than these tell less than a millisecond of any unit.
const FRACTION_DIGITS: usize = 9;

/// The only version of the file there is.
const VERSION: &str = "2";

/// Most nodes that a client may keep links to: as many links as a node lets one client have.
const LINKS_MAX: usize = 8;

const DURATION: &str = "is no duration: write 500ms, 15s or 2m, at most 1h";

/// What fields mean when they are left out.
pub(crate) mod defaults {
    /// Port of the nodes.
    pub(crate) const APEX_PORT: u16 = 443;
    /// Two may fail at once.
    pub(crate) const LINKS: usize = 3;
    /// Wait for the head of a target's answer, as the original has it.
    pub(crate) const HEADER_TIMEOUT_MS: u32 = 15_000;
}
