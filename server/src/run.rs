//! The composition root: builds a node of its parts, bottom up, and takes it down again.

use crate::{
    acme::certs::{Certificates, LoadError},
    config::Config,
    gateway::Gateway,
    identity::{self, Credentials, tls::TlsError},
    link::{accept::Links, registry::Registry},
    node::{self, Node},
    route::{Router, publish::Names},
    shutdown::Shutdown,
    transport::{
        accept::{Accepted, Acceptor},
        endpoint::{self, BindError},
    },
};
use rustls::server::ResolvesServerCert;
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

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
    let node = Node::open(&config.data_dir)?;
    let registry = Arc::new(Registry::default());
    let link_tasks = Shutdown::new();
    let links = Arc::new(Links::new(
        Arc::new(Names::new(node.handle())),
        registry.clone(),
        credentials.client_ca.clone(),
        (config.apexes[0].clone(), port),
        config.work_bits,
        link_tasks.clone(),
    ));
    let tls = Arc::new(identity::tls::serve(&credentials, certificates.clone())?);
    let secret = credentials.node_key.secret_der();
    let endpoints =
        udp.into_iter().map(|socket| endpoint::serve(socket, tls.clone(), secret)).collect::<Result<Vec<_>, _>>()?;
    let acceptor = Acceptor::new(link_tasks.clone(), move |accepted| match accepted {
        Accepted::Link(connection, place) => links.serve(connection, place),
        // Closed with that: this node keeps its store to itself and has nothing to say to others.
        Accepted::Node(connection) => drop(connection),
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
    Ok(Running { tcp: tcp_addresses, udp: udp_addresses, http: http_addresses, visitors, links: link_tasks, node })
}

impl Running {
    /// Accepts no more visitors, lets those in progress end within five seconds, then closes links and store.
    pub async fn stop(self) {
        let dropped = self.visitors.finish(DRAIN).await;
        if dropped > 0 {
            tracing::info!(dropped, "streams in progress were cut off");
        }
        self.links.finish(FAREWELL).await;
        self.node.stop().await;
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
