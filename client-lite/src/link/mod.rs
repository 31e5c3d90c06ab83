//! Opens links: QUIC connections to a node, by the settings that were measured to serve many small streams well. Their packets
//! go over UDP, or over TLS on TCP where no UDP gets through.

use crate::{
    identity::{Certificate, Key},
    links::{Plan, Way},
    memory::{Budget, Memory},
    resolve::resolve,
    target::Authority,
    tls::Trust,
};
use quinn::{
    ClientConfig, ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TransportConfig,
    VarInt, crypto::rustls::QuicClientConfig,
};
use rustls::{AlertDescription, client::Resumption};
use socket2::{Domain, Protocol, Socket, Type};
use specter_carry::Carried;
use specter_wire::version::ALPN_LINK;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

mod dial;
mod runtime;

/// The sockets that all links share, one for each family of addresses, opened when it is needed.
#[derive(Debug)]
pub(crate) struct Dialer {
    apex: Authority,
    memory: Memory,
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
}

impl Dialer {
    pub(crate) fn new(apex: Authority, memory: Memory) -> Self {
        Self { apex, memory, v4: None, v6: None }
    }

    /// Every address of the apex, in the system's order of preference.
    pub(crate) fn look_up(&self) -> impl Future<Output = Result<Vec<SocketAddr>, LinkError>> + Send + use<> {
        let Authority { host, port } = self.apex.clone();
        async move {
            timeout(RESOLVE, resolve(&host, port))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
                .and_then(|resolved| resolved)
                .map_err(|source| LinkError::Resolve { host, source })
        }
    }

    /// What all links of one certificate share.
    pub(crate) fn settings(
        &self,
        trust: &Trust,
        identity: Option<(&Certificate, &Key)>,
    ) -> Result<Settings, SettingsError> {
        let mut tls = trust.client_config(ALPN_LINK, identity)?;
        // Each node would have tickets of its own, and the proof of work is bound to a session.
        tls.resumption = Resumption::disabled();
        self.settings_of(Arc::new(tls))
    }

    fn settings_of(&self, tls: Arc<rustls::ClientConfig>) -> Result<Settings, SettingsError> {
        let crypto = Arc::new(QuicClientConfig::try_from(tls.clone()).map_err(|_| SettingsError::Cipher)?);
        let quic = |transport| {
            let mut config = ClientConfig::new(crypto.clone());
            config.transport_config(Arc::new(transport));
            config
        };
        let budget = self.memory.budget();
        let mut carried = transport(&budget);
        specter_carry::tune(&mut carried);
        Ok(Settings { udp: quic(transport(&budget)), tcp: quic(carried), tls })
    }

    /// A link to the node at `address`, by the name of the apex.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        settings: Settings,
        plan: Plan,
    ) -> impl Future<Output = Result<Link, LinkError>> + Send + use<> {
        dial::dial((self.apex.clone(), address), self.endpoint(address), settings, plan)
    }

    fn endpoint(&mut self, remote: SocketAddr) -> Result<Endpoint, LinkError> {
        let family = if remote.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if let Some(endpoint) = family {
            return Ok(endpoint.clone());
        }
        let open = || {
            let socket = socket(remote, self.memory.budget().socket)?;
            Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(runtime::DeferRuntime::default()))
        };
        let endpoint = open().map_err(|source| LinkError::Socket { source })?;
        Ok(family.insert(endpoint).clone())
    }

    /// Goes on with new sockets, and asks every node behind them for a sign of life: after a sleep the old ones may lead
    /// nowhere.
    pub(crate) fn rebind(&self) {
        let endpoints = [(&self.v4, Ipv4Addr::UNSPECIFIED.into()), (&self.v6, Ipv6Addr::UNSPECIFIED.into())];
        for (endpoint, family) in endpoints {
            let Some(endpoint) = endpoint else { continue };
            let socket = socket(SocketAddr::new(family, 0), self.memory.budget().socket);
            if let Err(error) = socket.and_then(|socket| endpoint.rebind(socket)) {
                tracing::debug!(%error, "the old socket is kept");
            }
        }
    }

    /// Waits until the nodes know that links were closed, but not for long.
    pub(crate) async fn finish(self) {
        for endpoint in [self.v4, self.v6].into_iter().flatten() {
            timeout(CLOSE, endpoint.wait_idle()).await.ok();
        }
    }
}

/// What a link is dialled with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    udp: ClientConfig,
    tcp: ClientConfig,
    /// Around the packets on TCP. Nobody asks for a certificate there.
    tls: Arc<rustls::ClientConfig>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("the TLS provider lacks what QUIC needs")]
    Cipher,
}

/// A connection to a node, and what carries it. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    carried: Option<Carried>,
}

impl Link {
    pub(crate) fn way(&self) -> Way {
        if self.carried.is_some() { Way::Tcp } else { Way::Udp }
    }

    /// Waits until there is nothing any more that could carry the link. Over UDP that never happens.
    pub(crate) async fn lost(&self) -> io::Error {
        match &self.carried {
            Some(carried) => {
                let error = carried.lost().await;
                // What the node said last may still be on its way to the connection.
                timeout(LAST_WORDS, self.connection.closed()).await.ok();
                error
            }
            None => std::future::pending().await,
        }
    }

    /// Asks the node for a sign of life, if the dialler's sockets do not.
    pub(crate) fn ask(&self) {
        if let Some(carried) = &self.carried {
            carried.ask();
        }
    }

    /// Closes in good order: the node learns at once.
    pub(crate) async fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"shutdown");
        if let Some(carried) = &self.carried {
            // The dialler waits for all links over UDP together.
            tokio::select! {
                _ = timeout(CLOSE, carried.endpoint.wait_idle()) => {}
                _ = carried.lost() => {}
            }
        }
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
    #[error("{apex} does not answer: check `apex`, that the node runs, and that no firewall blocks both UDP and TCP")]
    Silent { apex: String },
    #[error(
        "the certificate of {apex} is not trusted: check the name in `apex` and this machine's clock, and give the cluster's CA as `caFile` or --ca if it is a private one"
    )]
    Untrusted { apex: String, source: Cause },
    #[error(
        "the node at {apex} does not serve this name: write the domain that its operator named as `apex`, not an address"
    )]
    UnknownName { apex: String },
    #[error("the node refuses this client's certificate")]
    CertificateRefused { source: ConnectionError },
    #[error(
        "{apex} answers, but does not take links of this version: check `apex`, or update this program or the node"
    )]
    Version { apex: String },
    #[error("the connection to {apex} was closed")]
    Closed { apex: String, source: Cause },
}

/// What ended a link, by what carried it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Quic(#[from] ConnectionError),
    #[error(transparent)]
    Tcp(#[from] io::Error),
}

impl LinkError {
    /// Sorts a connection's end by what the user can do about it.
    pub(crate) fn from_connection(source: ConnectionError, apex: &Authority) -> Self {
        let apex = apex.to_string();
        let alert = match &source {
            // We gave up: only about the node's certificate.
            ConnectionError::TransportError(error) => {
                if alert_of(error.code.into()).is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert)) {
                    return Self::Untrusted { apex, source: source.into() };
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
            // A node denies access when it has no certificate for the name, before it has seen ours.
            Some(ACCESS_DENIED) => Self::UnknownName { apex },
            Some(alert) if CERTIFICATE_ALERTS.contains(&alert) => Self::CertificateRefused { source },
            Some(_) | None => Self::Closed { apex, source: source.into() },
        }
    }

    /// The same for what happened on TCP, before there was a link or to its end.
    pub(crate) fn from_tcp(source: io::Error, apex: &Authority) -> Self {
        let apex = apex.to_string();
        match source.get_ref().and_then(|source| source.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_)) => Self::Untrusted { apex, source: source.into() },
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => Self::Version { apex },
            Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => Self::UnknownName { apex },
            Some(_) | None => Self::Closed { apex, source: source.into() },
        }
    }
}

/// The TLS alert in a QUIC error code (RFC 9001 §4.8).
fn alert_of(code: u64) -> Option<u8> {
    u8::try_from(code.checked_sub(0x100)?).ok()
}

fn transport(budget: &Budget) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(budget.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(FIRST_RTT)
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
const CERTIFICATE_ALERTS: [u8; 9] = [42, 43, 44, 45, 46, 48, ACCESS_DENIED, 51, 116];
const ACCESS_DENIED: u8 = 49;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A resolver that is down takes this long at most.
const RESOLVE: Duration = Duration::from_secs(5);
/// A node that is up answers within two round trips; lost datagrams are repeated several times in this span.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Longest wait for the node to acknowledge the end.
const CLOSE: Duration = Duration::from_secs(1);
/// Enough for another task of this program to take a turn.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// Keeps the binding of a NAT, the shortest of which last about 30 s, and finds out soon that a node died.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// Three keep-alives without an answer. Both ends take the shorter of their timeouts, so a node, too, gives up a client
/// that vanished by then.
const IDLE_MS: u32 = 12_000;
/// Nearer than most nodes are, so that the first datagram is repeated soon if a node starts just now. A far node gets
/// one datagram too many.
const FIRST_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::Transport;
    use rustls::RootCertStore;
    use rustls_pki_types::PrivatePkcs8KeyDer;

    /// A node that repeats what it is told, and a client's settings to reach it.
    fn node() -> (Endpoint, rustls::ClientConfig) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
        let certificate = own.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = quinn::ServerConfig::with_single_cert(vec![certificate], key).expect("a key");
        (Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a socket"), tls)
    }

    #[tokio::test]
    async fn a_name_that_the_node_does_not_serve_is_no_refusal_of_the_certificate() {
        let (_, tls) = node();
        // A node that has no certificate for any name.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let crypto = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a version")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(crypto).expect("settings");
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let node = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let address = node.local_addr().expect("an address");
        let mut dialer = Dialer::new(Authority { host: "localhost".to_owned(), port: address.port() }, Memory::Small);
        let settings = dialer.settings_of(Arc::new(tls)).expect("settings");
        let dialled = dialer.dial(address, settings, Plan::first(Transport::Quic));
        let (link, _) = tokio::join!(dialled, async { node.accept().await.expect("a client").await.map(drop) });
        let error = link.expect_err("there is no certificate");
        assert!(matches!(error, LinkError::UnknownName { .. }), "{error}");
        assert!(error.to_string().contains("does not serve this name"), "{error}");
    }

    #[tokio::test]
    async fn a_link_goes_on_over_new_sockets_and_its_node_is_asked_at_once() {
        let (node, tls) = node();
        let address = node.local_addr().expect("an address");
        let apex = Authority { host: "localhost".to_owned(), port: address.port() };
        let mut dialer = Dialer::new(apex, Memory::Small);
        let settings = dialer.settings_of(Arc::new(tls)).expect("settings");
        let dialled = dialer.dial(address, settings, Plan::first(Transport::Quic));
        let (link, accepted) = tokio::join!(dialled, async { node.accept().await.expect("a client").await });
        let (link, accepted) = (link.expect("a link"), accepted.expect("a link"));
        let connection = &link.connection;
        let (before, heard) = (accepted.remote_address(), connection.stats().udp_rx.datagrams);
        dialer.rebind();
        // The answer to the question is all that comes: nothing else is said.
        let answered = async {
            while connection.stats().udp_rx.datagrams == heard || accepted.remote_address() == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), answered).await.expect("the node answers");
        link.close().await;
        timeout(Duration::from_secs(10), accepted.closed()).await.expect("the node hears the end");
        dialer.finish().await;
    }
}
