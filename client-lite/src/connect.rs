//! `connect` and `listen`: the visitor's end of a tunnel, over TLS to the gateway.

use crate::{resolve::resolve, target::Authority, tls::Trust};
use rustls_pki_types::ServerName;
use specter_wire::{
    error::{ErrorCode, UnknownCode},
    stream,
    version::ALPN_CONNECT,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

/// A tunnel's name with the port of its gateway, and what the gateway is trusted by.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) gateway: Authority,
    pub(crate) trust: Trust,
}

/// Why a tunnel cannot be used, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{gateway} cannot be reached: check the hostname, the port and the network")]
    Unreachable { gateway: String, source: io::Error },
    #[error("{gateway} does not answer: check the hostname, the port and the network")]
    Silent { gateway: String },
    #[error(
        "{gateway} is not trusted or is no gateway: check the hostname, and give the CA as --ca if it is a private one"
    )]
    Tls { gateway: String, source: io::Error },
    #[error("{host} cannot be used")]
    Refused { host: String, source: Refusal },
    #[error("{host} sent an answer that this version does not know: update this program")]
    Answer { host: String, source: UnknownCode },
    #[error("the connection to {host} was cut")]
    Cut { host: String, source: io::Error },
    #[error("the hostname {host} cannot stand in a certificate")]
    Name { host: String },
    #[error("the given certificates cannot be used: give PEM files of X.509 version 3")]
    Config(#[from] rustls::Error),
    #[error("{address} cannot be listened on: choose another address or port")]
    Listen { address: String, source: io::Error },
}

/// What the far end says instead of taking a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(ErrorCode);

impl ConnectError {
    /// The exit code that stands for this failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { source: Refusal(code), .. } => match code {
                ErrorCode::UnknownHostname => 3,
                ErrorCode::NoLiveLink => 4,
                ErrorCode::TargetRefused
                | ErrorCode::TargetTimeout
                | ErrorCode::TargetUnreachable
                | ErrorCode::TargetProtocol => 5,
                ErrorCode::WrongKind
                | ErrorCode::Limit
                | ErrorCode::Malformed
                | ErrorCode::BadProof
                | ErrorCode::NotRegistered
                | ErrorCode::NotOwner
                | ErrorCode::Unavailable
                | ErrorCode::Draining
                | ErrorCode::Internal => 1,
            },
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Tls { .. } => 6,
            Self::Answer { .. } | Self::Cut { .. } | Self::Name { .. } | Self::Config(_) | Self::Listen { .. } => 1,
        }
    }
}

/// A way into one tunnel that can be used many times.
#[derive(Clone)]
struct Connector {
    gateway: Authority,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Connector {
    fn new(route: &Route) -> Result<Self, ConnectError> {
        let host = &route.gateway.host;
        let name = ServerName::try_from(host.clone()).map_err(|_| ConnectError::Name { host: host.clone() })?;
        let tls = TlsConnector::from(Arc::new(route.trust.client_config(ALPN_CONNECT, None)?));
        Ok(Self { gateway: route.gateway.clone(), name, tls })
    }

    /// A connection that the target behind the tunnel has taken.
    async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let gateway = self.gateway.to_string();
        let silent = |_| ConnectError::Silent { gateway: gateway.clone() };
        let tcp = timeout(REACH, self.reach()).await.map_err(silent)?;
        let tcp = tcp.map_err(|source| ConnectError::Unreachable { gateway: gateway.clone(), source })?;
        let tls = timeout(REACH, self.tls.connect(self.name.clone(), tcp)).await.map_err(silent)?;
        let mut tls = tls.map_err(|source| ConnectError::Tls { gateway: gateway.clone(), source })?;
        let status = timeout(ANSWER, tls.read_u8()).await.map_err(silent)?;
        let host = self.gateway.host.clone();
        // A gateway of another kind refuses the ALPN name only now, by an alert.
        let status = status.map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => ConnectError::Tls { gateway: gateway.clone(), source },
            _ => ConnectError::Cut { host: host.clone(), source },
        })?;
        match stream::status(status) {
            Ok(Ok(())) => Ok(tls),
            Ok(Err(code)) => Err(ConnectError::Refused { host, source: Refusal(code) }),
            Err(source) => Err(ConnectError::Answer { host, source }),
        }
    }

    async fn reach(&self) -> io::Result<TcpStream> {
        let addresses = resolve(&self.gateway.host, self.gateway.port).await?;
        let tcp = TcpStream::connect(addresses.as_slice()).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    fn cut(&self, source: io::Error) -> ConnectError {
        ConnectError::Cut { host: self.gateway.host.clone(), source }
    }
}

/// Joins standard input and output to a tunnel; ends when the far end does.
///
/// The thread that reads standard input may still wait then: the caller must leave by `std::process::exit`.
pub(crate) async fn connect(route: &Route) -> Result<(), ConnectError> {
    let connector = Connector::new(route)?;
    let (mut from_tunnel, mut to_tunnel) = tokio::io::split(connector.connect().await?);
    let up = async {
        // An error here means that the far end reads no more. What it still sends counts, and so does its own end.
        match copy(&mut tokio::io::stdin(), &mut to_tunnel).await {
            Ok(_) => to_tunnel.shutdown().await,
            Err(error) => Err(error),
        }
    };
    let down = async {
        let mut stdout = tokio::io::stdout();
        let copied = copy(&mut from_tunnel, &mut stdout).await;
        // What came before a cut is the user's, too, and another thread may still be writing it.
        stdout.flush().await?;
        copied.map(|_| ())
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => ended,
        ended = &mut up => {
            if let Err(error) = ended {
                tracing::debug!(%error, "the far end takes no more");
            }
            down.await
        }
    }
    .map_err(|source| connector.cut(source))
}

/// Binds an address to accept connections on.
pub(crate) async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), ConnectError> {
    let failed = |source| ConnectError::Listen { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Accepts connections and joins each to a tunnel, until `stop` is cancelled.
pub(crate) async fn listen(route: &Route, listener: TcpListener, stop: CancellationToken) -> Result<(), ConnectError> {
    let connector = Connector::new(route)?;
    let tasks = TaskTracker::new();
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            place = places.clone().acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((visitor, _)) => {
                let connector = connector.clone();
                tasks.spawn(async move {
                    if let Err(error) = join(&connector, visitor).await {
                        warn!(reason = crate::tunnel::sentence(&error), "a connection failed");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: those who are here must leave first.
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn join(connector: &Connector, mut visitor: TcpStream) -> Result<(), ConnectError> {
    let joined = async {
        visitor.set_nodelay(true).map_err(|source| connector.cut(source))?;
        let mut tunnel = connector.connect().await?;
        copy_bidirectional(&mut visitor, &mut tunnel).await.map_err(|source| connector.cut(source))
    }
    .await;
    if joined.is_err() {
        // Whoever connected must not take a failure for the end of the data.
        visitor.set_zero_linger().ok();
    }
    joined.map(|_| ())
}

/// Longest wait for a connection, and again for TLS.
const REACH: Duration = Duration::from_secs(10);

/// Longest wait for the target behind the tunnel: the gateway may try several links.
const ANSWER: Duration = Duration::from_secs(30);

/// Connections of `listen` at once.
const CONNECTIONS: usize = 1024;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
