//! Opens links: QUIC connections to a node, by the settings that were measured to serve many small streams well.

use crate::{
    memory::{Budget, Memory},
    resolve::resolve,
    target::Authority,
};
use quinn::{
    ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TransportConfig,
    VarInt, crypto::rustls::QuicClientConfig,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

mod runtime;

/// A connection with the socket that it runs on.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) endpoint: Endpoint,
}

impl Link {
    /// Dials the addresses of the apex, each a little after the one before; the first that answers is taken.
    ///
    /// A machine with a broken IPv6 loses a moment, not a timeout (RFC 8305).
    ///
    /// # Errors
    /// The most telling failure: what a node said before what a silence means.
    pub(crate) async fn dial(apex: &Authority, tls: &rustls::ClientConfig, memory: Memory) -> Result<Self, LinkError> {
        let budget = memory.budget();
        let addresses = timeout(RESOLVE, resolve(&apex.host, apex.port))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
            .and_then(|resolved| resolved)
            .map_err(|source| LinkError::Resolve { host: apex.host.clone(), source })?;
        let crypto = QuicClientConfig::try_from(tls.clone()).map_err(|_| LinkError::Cipher)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(&budget)));
        let mut attempts = JoinSet::new();
        for (index, address) in (0..).zip(addresses.into_iter().take(ADDRESSES)) {
            let (host, config) = (apex.host.clone(), config.clone());
            attempts.spawn(async move {
                sleep(STAGGER * index).await;
                (address, Self::dial_address(address, &host, config, budget.socket).await)
            });
        }
        let mut failure = LinkError::Silent { apex: apex.to_string() };
        while let Some(attempt) = attempts.join_next().await {
            // An attempt ends by itself or with this function.
            let Ok((address, outcome)) = attempt else { continue };
            let error = match outcome {
                Ok(link) => return Ok(link),
                Err(DialError::Connection(error)) => LinkError::from_connection(error, apex),
                Err(DialError::Timeout) => LinkError::Silent { apex: apex.to_string() },
                Err(DialError::Socket(source)) => LinkError::Socket { source },
                Err(DialError::Connect(source)) => LinkError::Name { host: apex.host.clone(), source },
            };
            tracing::debug!(%address, %error, "address failed");
            if let LinkError::Silent { .. } = failure {
                failure = error;
            }
        }
        Err(failure)
    }

    async fn dial_address(
        address: SocketAddr,
        host: &str,
        config: ClientConfig,
        buffer_bytes: usize,
    ) -> Result<Self, DialError> {
        let runtime = Arc::new(runtime::DeferRuntime::default());
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket(address, buffer_bytes)?, runtime)?;
        let connecting = endpoint.connect_with(config, address, host).map_err(DialError::Connect)?;
        match timeout(HANDSHAKE, connecting).await {
            Ok(Ok(connection)) => Ok(Self { connection, endpoint }),
            Ok(Err(ConnectionError::TimedOut)) | Err(_) => Err(DialError::Timeout),
            Ok(Err(error)) => Err(DialError::Connection(error)),
        }
    }

    /// Closes in good order: the node learns at once.
    pub(crate) async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"shutdown");
        // Nobody waits long for a node that does not acknowledge.
        timeout(CLOSE, self.endpoint.wait_idle()).await.ok();
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the name {host} cannot be resolved: check `apex` and the network")]
    Resolve { host: String, source: io::Error },
    #[error("{host} cannot be dialled: check `apex`")]
    Name { host: String, source: ConnectError },
    #[error("no UDP socket can be opened")]
    Socket { source: io::Error },
    #[error("{apex} does not answer on UDP: check `apex`, that the node runs, and that no firewall blocks UDP")]
    Silent { apex: String },
    #[error(
        "the certificate of {apex} is not trusted: check the name in `apex` and this machine's clock, and give the cluster's CA as `caFile` or --ca if it is a private one"
    )]
    Untrusted { apex: String, source: ConnectionError },
    #[error("the node refuses this client's certificate")]
    CertificateRefused { source: ConnectionError },
    #[error(
        "{apex} answers, but does not take links of this version: check `apex`, or update this program or the node"
    )]
    Version { apex: String },
    #[error("the connection to {apex} was closed")]
    Closed { apex: String, source: ConnectionError },
    #[error("the TLS provider lacks what QUIC needs")]
    Cipher,
}

impl LinkError {
    /// Sorts a connection's end by what the user can do about it.
    pub(crate) fn from_connection(source: ConnectionError, apex: &Authority) -> Self {
        let apex = apex.to_string();
        let alert = match &source {
            // We gave up: only about the node's certificate.
            ConnectionError::TransportError(error) => {
                if alert_of(error.code.into()).is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert)) {
                    return Self::Untrusted { apex, source };
                }
                alert_of(error.code.into())
            }
            ConnectionError::ConnectionClosed(close) => alert_of(close.error_code.into()),
            ConnectionError::VersionMismatch
            | ConnectionError::ApplicationClosed(_)
            | ConnectionError::Reset
            | ConnectionError::TimedOut
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => None,
        };
        match alert {
            Some(NO_APPLICATION_PROTOCOL) => Self::Version { apex },
            Some(alert) if CERTIFICATE_ALERTS.contains(&alert) => Self::CertificateRefused { source },
            Some(_) | None => Self::Closed { apex, source },
        }
    }
}

/// The TLS alert in a QUIC error code (RFC 9001 §4.8).
fn alert_of(code: u64) -> Option<u8> {
    u8::try_from(code.checked_sub(0x100)?).ok()
}

/// Why one address did not answer.
enum DialError {
    Timeout,
    Socket(io::Error),
    Connect(ConnectError),
    Connection(ConnectionError),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

fn transport(budget: &Budget) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(budget.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size(None)
        .initial_mtu(1200)
        .send_window(budget.send_window.into())
        .receive_window(VarInt::from_u32(budget.receive_window))
        .stream_receive_window(VarInt::from_u32(budget.stream_receive_window));
    transport
}

/// A socket of the address's family, with room for bursts of many datagrams.
fn socket(remote: SocketAddr, buffer_bytes: usize) -> io::Result<std::net::UdpSocket> {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = Socket::new(Domain::for_address(any), Type::DGRAM, Some(Protocol::UDP))?;
    // Linux grants less than asked without an error, other systems refuse; both work, only slower.
    let asked = socket.set_recv_buffer_size(buffer_bytes).and_then(|()| socket.set_send_buffer_size(buffer_bytes));
    let granted_bytes = socket.recv_buffer_size().unwrap_or(0);
    if asked.is_err() || granted_bytes < buffer_bytes {
        tracing::debug!(granted_bytes, "the system grants small UDP buffers: raise net.core.rmem_max for speed");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&any.into())?;
    Ok(socket.into())
}

/// Alerts about certificates (RFC 8446 §6.2): bad, unsupported, revoked, expired, unknown, unknown authority, access
/// denied, decrypt error, required.
const CERTIFICATE_ALERTS: [u8; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A resolver that is down takes this long at most.
const RESOLVE: Duration = Duration::from_secs(5);
/// A node that is up answers within two round trips; lost datagrams are repeated several times in this span.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried at once.
const ADDRESSES: usize = 8;
/// Head start of each address before the next, as RFC 8305 §5 recommends.
const STAGGER: Duration = Duration::from_millis(250);
/// Longest wait for the node to acknowledge the end.
const CLOSE: Duration = Duration::from_secs(1);
/// Keeps the binding of a NAT, the shortest of which last about 30 s, and finds out soon that a node died.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Three keep-alives without an answer. Both ends take the shorter of their timeouts, so a node, too, gives up a client
/// that vanished by then.
const IDLE_MS: u32 = 15_000;
