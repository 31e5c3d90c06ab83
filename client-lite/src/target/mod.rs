//! What a tunnel leads to: parsed from the configuration once, dialled for every stream.

use crate::{config::valid_host, resolve::resolve, tls::TargetTls};
use rustls_pki_types::ServerName;
use specter_wire::{error::ErrorCode, link::Carries, stream::StreamKind};
use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};

mod local;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use stream::TargetStream;

/// A service that the client can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As the user wrote it.
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tcp(Authority),
    Http(Authority),
    Https { authority: Authority, insecure: bool },
    Unix(PathBuf),
    Pipe(String),
}

/// A host without brackets and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// Parses a target of the configuration or the command line.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetError> {
        let kind = if text.starts_with(r"\\.\pipe\") {
            local::check_pipe().map(|()| Kind::Pipe(text.to_owned()))?
        } else {
            let (scheme, rest) = text.split_once("://").ok_or(TargetError::Scheme)?;
            match scheme {
                "tcp" => Kind::Tcp(Authority::parse(rest, None)?),
                "http" => Kind::Http(Authority::parse(without_slash(rest)?, Some(80))?),
                "https" => {
                    Kind::Https { authority: Authority::parse(without_slash(rest)?, Some(443))?, insecure: false }
                }
                "unix" => Kind::Unix(local::socket_path(rest)?),
                _ => return Err(TargetError::Scheme),
            }
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// Gives up verifying the certificate of an `https://` target.
    pub(crate) fn without_verification(mut self) -> Result<Self, TargetError> {
        match &mut self.kind {
            Kind::Https { insecure, .. } => *insecure = true,
            Kind::Tcp(_) | Kind::Http(_) | Kind::Unix(_) | Kind::Pipe(_) => return Err(TargetError::Insecure),
        }
        Ok(self)
    }

    /// Which protocols visitors may ask for.
    pub(crate) fn carries(&self) -> Carries {
        match self.kind {
            Kind::Tcp(_) => Carries::Raw,
            Kind::Http(_) | Kind::Https { .. } => Carries::Http,
            Kind::Unix(_) | Kind::Pipe(_) => Carries::Either,
        }
    }

    /// The `Host` that names this target: its port is left out when the scheme implies it.
    pub(crate) fn host_header(&self) -> String {
        match &self.kind {
            Kind::Tcp(authority) => authority.to_string(),
            Kind::Http(authority) => authority.header(80),
            Kind::Https { authority, .. } => authority.header(443),
            Kind::Unix(_) | Kind::Pipe(_) => "localhost".to_owned(),
        }
    }

    /// The scheme under which visitors reach it.
    pub(crate) fn visitor_scheme(&self) -> &'static str {
        match self.kind {
            Kind::Tcp(_) => "tcp",
            Kind::Http(_) | Kind::Https { .. } | Kind::Unix(_) | Kind::Pipe(_) => "https",
        }
    }

    /// Connects for one stream, within [`DIAL`] for the connection and as long again for TLS.
    ///
    /// # Errors
    /// What the visitor's side is to be told, with the cause for our own log.
    pub(crate) async fn dial(&self, kind: StreamKind, tls: &TargetTls) -> Result<TargetStream, DialError> {
        match (&self.kind, kind) {
            (Kind::Tcp(authority), StreamKind::Raw) => connect(authority).await.map(TargetStream::Tcp),
            (Kind::Http(authority), StreamKind::Http1 | StreamKind::Http2) => {
                connect(authority).await.map(TargetStream::Tcp)
            }
            (Kind::Https { authority, insecure }, StreamKind::Http1 | StreamKind::Http2) => {
                let http2 = kind == StreamKind::Http2;
                secure(authority, tls.config(http2, *insecure)?, http2).await
            }
            (Kind::Unix(path), StreamKind::Raw | StreamKind::Http1 | StreamKind::Http2) => {
                within(local::connect_socket(path)).await
            }
            (Kind::Pipe(name), StreamKind::Raw | StreamKind::Http1 | StreamKind::Http2) => {
                within(local::connect_pipe(name)).await
            }
            (_, StreamKind::Life)
            | (Kind::Tcp(_), StreamKind::Http1 | StreamKind::Http2)
            | (Kind::Http(_) | Kind::Https { .. }, StreamKind::Raw) => Err(DialError::code_only(ErrorCode::WrongKind)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Authority {
    /// Parses `host:port`, `[v6]:port`, or a bare host if there is a default port.
    pub(crate) fn parse(text: &str, default_port: Option<u16>) -> Result<Self, TargetError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or(TargetError::Host)?;
                match tail.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if tail.is_empty() => (host, None),
                    None => return Err(TargetError::Host),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if !valid_host(host) {
            return Err(TargetError::Host);
        }
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(TargetError::Port)?,
            None => default_port.ok_or(TargetError::Port)?,
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// As a `Host` header shows it.
    fn header(&self, implied_port: u16) -> String {
        let text = self.to_string();
        match text.strip_suffix(&format!(":{implied_port}")) {
            Some(host) => host.to_owned(),
            None => text,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why a text is no target. Reads as the end of a sentence that begins with the key and its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error(r"is no target: write tcp://HOST:PORT, http://HOST:PORT, https://HOST:PORT, unix:///PATH or \\.\pipe\NAME")]
    Scheme,
    #[error("names no host: write it as a name or an IP address, an IPv6 address in brackets")]
    Host,
    #[error("has no usable port: write one of 1 to 65535 behind the host, as in tcp://127.0.0.1:22")]
    Port,
    #[error("has a path: leave it out, visitors' paths reach the target as they are")]
    Path,
    #[error("needs an absolute path: unix:///run/app.sock")]
    Relative,
    #[error("may stand only with https:// targets: remove it")]
    Insecure,
    #[error("leads to something that this operating system does not have")]
    Platform,
}

/// A dial that failed.
#[derive(Debug)]
pub(crate) struct DialError {
    /// What travels.
    pub(crate) code: ErrorCode,
    /// What our log tells besides.
    pub(crate) cause: Option<io::Error>,
}

impl DialError {
    pub(crate) fn code_only(code: ErrorCode) -> Self {
        Self { code, cause: None }
    }

    fn protocol(cause: io::Error) -> Self {
        Self { code: ErrorCode::TargetProtocol, cause: Some(cause) }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied => ErrorCode::TargetRefused,
            io::ErrorKind::TimedOut => ErrorCode::TargetTimeout,
            // The standard library may name further kinds at any time.
            _ => ErrorCode::TargetUnreachable,
        };
        Self { code, cause: Some(error) }
    }
}

impl From<Elapsed> for DialError {
    fn from(_: Elapsed) -> Self {
        Self::code_only(ErrorCode::TargetTimeout)
    }
}

/// Longest wait for a target's connection, and again for its TLS handshake.
pub(crate) const DIAL: Duration = Duration::from_secs(3);

async fn within(dialled: impl Future<Output = io::Result<TargetStream>>) -> Result<TargetStream, DialError> {
    Ok(timeout(DIAL, dialled).await??)
}

/// Connects with the name resolved anew each time, so that a target that moves is found.
async fn connect(authority: &Authority) -> Result<TcpStream, DialError> {
    let stream = timeout(DIAL, async {
        let addresses = resolve(&authority.host, authority.port).await?;
        TcpStream::connect(addresses.as_slice()).await
    })
    .await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn secure(
    authority: &Authority,
    config: Arc<rustls::ClientConfig>,
    http2: bool,
) -> Result<TargetStream, DialError> {
    let name =
        ServerName::try_from(authority.host.clone()).map_err(|error| DialError::protocol(io::Error::other(error)))?;
    let stream = connect(authority).await?;
    let stream = timeout(DIAL, tokio_rustls::TlsConnector::from(config).connect(name, stream))
        .await?
        .map_err(DialError::protocol)?;
    if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(DialError::protocol(io::Error::other("the target does not offer HTTP/2")));
    }
    Ok(TargetStream::Tls(Box::new(stream)))
}

/// Drops the one slash that may end an HTTP target, and refuses what else may follow a host.
fn without_slash(text: &str) -> Result<&str, TargetError> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains(['/', '?', '#']) { Err(TargetError::Path) } else { Ok(text) }
}
