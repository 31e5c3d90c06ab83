//! The composition root: builds a node of its parts, bottom up, and takes it down again.

use crate::{
    acme::certs::{Certificates, LoadError},
    config::{Advertise, Config},
    gateway::Gateway,
    identity::{self, Credentials, tls::TlsError},
    link::{accept::Links, registry::Registry},
    node::{self, Node, Opening, Tuning},
    route::{Router, publish::Names},
    shutdown::Shutdown,
    transport::{
        accept::{Accepted, Acceptor},
        endpoint::{self, BindError},
        peers::Peers,
    },
};
use rustls::server::ResolvesServerCert;
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::{net::lookup_host, sync::mpsc};

/// A node that serves.
pub struct Running {
    /// Where visitors' TLS is accepted.
    pub tcp: Vec<SocketAddr>,
    /// Where links are accepted.
    pub udp: Vec<SocketAddr>,
    /// Where plain HTTP is accepted.
    pub http: Vec<SocketAddr>,
    visitors: Shutdown,
    links: Shutdown,
    peers: Shutdown,
    node: Node,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another program has the port, or the address is not ours.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener could not be used.
    #[error("a listening socket cannot be used")]
    Listener(#[from] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] node::OpenError),
    /// A node to join has no address.
    #[error("{name} of --join has no address that is known here; check its spelling and this machine's DNS")]
    Join {
        /// As given.
        name: String,
        /// What the resolver says.
        source: Option<io::Error>,
    },
    /// The certificates for visitors.
    #[error(transparent)]
    Certificates(#[from] LoadError),
    /// The TLS settings of the QUIC port.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Visitors' requests and streams in progress get this long to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// Links have nothing left to finish when the visitors are gone: time to tell the clients.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long the other nodes may take to go on without this one.
const LEAVE: Duration = Duration::from_secs(20);

/// Packets of other nodes that may wait to be read.
const ARRIVALS: usize = 1024;

/// When port 0 was asked, the port drawn for TCP may be taken for UDP: how often another is drawn.
const DRAWS: usize = 16;

/// Starts a node. It serves until [`Running::stop`].
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(config: Config, credentials: Credentials, visitors: Shutdown) -> Result<Running, StartError> {
    let (tcp, udp) = bind(&config.listen_tcp, &config.listen_udp)?;
    let http =
        config.listen_http.iter().map(|address| endpoint::listen_tcp(*address)).collect::<Result<Vec<_>, _>>()?;
    let addresses =
        |listeners: &[TcpListener]| listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>();
    let (tcp_addresses, http_addresses): (Vec<SocketAddr>, Vec<SocketAddr>) = (addresses(&tcp)?, addresses(&http)?);
    let udp_addresses: Vec<SocketAddr> = udp.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
    let port = match (config.advertise.port, tcp_addresses.first()) {
        (0, Some(address)) => address.port(),
        (port, _) => port,
    };

    let certificates: Arc<dyn ResolvesServerCert> =
        Arc::new(Certificates::load(&config.certificates, credentials.gateway_ca.clone(), config.apexes.clone())?);
    let (link_tasks, peer_tasks) = (Shutdown::new(), Shutdown::new());
    let tls = Arc::new(identity::tls::serve(&credentials, certificates.clone())?);
    let secret = credentials.node_key.secret_der();
    let endpoints =
        udp.into_iter().map(|socket| endpoint::serve(socket, tls.clone(), secret)).collect::<Result<Vec<_>, _>>()?;
    let (inbox, arrivals) = mpsc::channel(ARRIVALS);
    let dial = Arc::new(identity::tls::dial(&credentials)?);
    let peers = Peers::start(endpoints.clone(), dial, inbox, peer_tasks.clone())?;
    let opening = Opening {
        data_dir: &config.data_dir,
        cluster: credentials.cluster_id.0,
        address: node_address(&config.advertise, &udp_addresses, port).await,
        seeds: resolve(&config.join).await?,
        tuning: Tuning::with(config.sync),
    };
    let node = Node::open(opening, peers.clone(), arrivals, &peer_tasks)?;
    let registry = Arc::new(Registry::default());
    let links = Arc::new(Links::new(
        Arc::new(Names::new(node.handle())),
        registry.clone(),
        credentials.client_ca.clone(),
        (config.apexes[0].clone(), port),
        config.work_bits,
        link_tasks.clone(),
    ));
    let acceptor = Acceptor::new(link_tasks.clone(), move |accepted| match accepted {
        Accepted::Link(connection, place) => links.serve(connection, place),
        Accepted::Node(connection) => peers.accepted(connection),
    });
    for endpoint in endpoints {
        link_tasks.spawn(acceptor.clone().accept(endpoint));
    }
    let router = Arc::new(Router::new(registry, node.handle()));
    let gateway = Gateway::new(router, certificates, config.apexes, port, visitors.clone());
    for listener in tcp {
        gateway.serve_tls(listener)?;
    }
    for listener in http {
        gateway.serve_plain(listener)?;
    }
    Ok(Running {
        tcp: tcp_addresses,
        udp: udp_addresses,
        http: http_addresses,
        visitors,
        links: link_tasks,
        peers: peer_tasks,
        node,
    })
}

/// Where other nodes reach this one: the address that it listens on, or if that is any address, the one it advertises.
async fn node_address(advertise: &Advertise, listening: &[SocketAddr], port: u16) -> SocketAddr {
    let bound = listening.iter().find(|address| !address.ip().is_unspecified()).copied();
    let advertised = async { lookup_host((advertise.host.as_str(), port)).await.ok()?.next() };
    match bound {
        Some(bound) => bound,
        None => advertised.await.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port))),
    }
}

async fn resolve(names: &[Advertise]) -> Result<Vec<SocketAddr>, StartError> {
    let mut addresses = Vec::new();
    for name in names {
        let unknown = |source| StartError::Join { name: format!("{}:{}", name.host, name.port), source };
        let found: Vec<SocketAddr> =
            lookup_host((name.host.as_str(), name.port)).await.map_err(|error| unknown(Some(error)))?.collect();
        if found.is_empty() {
            return Err(unknown(None));
        }
        addresses.extend(found);
    }
    Ok(addresses)
}

impl Running {
    /// Accepts no more visitors, lets those in progress end within five seconds, then closes links and store.
    pub async fn stop(self) {
        let dropped = self.visitors.finish(DRAIN).await;
        if dropped > 0 {
            tracing::info!(dropped, "streams in progress were cut off");
        }
        if !self.node.leave(LEAVE).await {
            tracing::warn!("other nodes still count on this one; they go on without it as after a crash");
        }
        // The store comes before what carries its packets, and the links' end closes the sockets of both.
        self.node.stop().await;
        self.peers.finish(FAREWELL).await;
        self.links.finish(FAREWELL).await;
    }
}

/// Binds the TLS and QUIC ports. Where both are port 0, they get the same number, since clients know one port.
fn bind(tcp: &[SocketAddr], udp: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<UdpSocket>), BindError> {
    let mut draw = 0;
    loop {
        let listeners = tcp.iter().map(|address| endpoint::listen_tcp(*address)).collect::<Result<Vec<_>, _>>()?;
        let same_port = |(index, address): (usize, &SocketAddr)| {
            let mut address = *address;
            if address.port() == 0
                && let Some(Ok(drawn)) = listeners.get(index).map(TcpListener::local_addr)
            {
                address.set_port(drawn.port());
            }
            endpoint::bind_udp(address)
        };
        match udp.iter().enumerate().map(same_port).collect::<Result<Vec<_>, _>>() {
            Ok(sockets) => return Ok((listeners, sockets)),
            Err(_) if draw < DRAWS && udp.iter().any(|address| address.port() == 0) => draw += 1,
            Err(error) => return Err(error),
        }
    }
}
