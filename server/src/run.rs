//! The composition root: builds a node of its parts, bottom up, and takes it down again.

use crate::{
    acme::certs::{Certificates, LoadError},
    config::{Advertise, Config},
    gateway::Gateway,
    identity::{self, Credentials, tls::TlsError},
    link::{accept::Links, passing::Passing, registry::Registry},
    node::{self, Handle, Key, Node, Opening, Tuning},
    route::{Router, publish::Names},
    shutdown::Shutdown,
    status,
    transport::{
        accept::{Accepted, Acceptor},
        carried::Carrier,
        endpoint::{self, BindError, Port},
        peers::Peers,
        relay::Relays,
    },
};
use join::{Own, Seeds};
use rustls::server::ResolvesServerCert;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::lookup_host,
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

mod join;

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
    names: Arc<Names>,
    node: Node,
    drain: Duration,
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

/// Time to tell the other sides that connections end. QUIC would wait longer, in case somebody has not heard it; such a one
/// finds nobody.
const FAREWELL: Duration = Duration::from_millis(400);

/// How long it may take until other nodes can know that this one serves nothing any more.
const WITHDRAW: Duration = Duration::from_secs(2);

/// How long the other nodes may take to go on without this one.
pub const LEAVE: Duration = Duration::from_secs(20);

/// How long a visitor's connection without a request is kept when the node is to stop. It is told with the answer to its next
/// request, if that comes in this time, that there are no more; a visitor who is hung up on may have one on the way.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long clients may take to open links to other nodes, when nothing is in progress on those that they have here.
const MOVE: Duration = Duration::from_millis(1500);

/// Longest that a start waits for the store to answer look-ups, and of how many names: they lie all around the ring.
const FOOTING: Duration = Duration::from_secs(5);
const FOOTING_LOOK_UPS: usize = 16;

/// The wait between two look-ups of a start.
const LOOK: Duration = Duration::from_millis(50);

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
    let http = config.listen_http.iter().map(|address| Port::take(*address)).collect::<Result<Vec<_>, _>>()?;
    let addresses = |ports: &[Port]| ports.iter().map(Port::address).collect();
    let (tcp_addresses, http_addresses): (Vec<SocketAddr>, Vec<SocketAddr>) = (addresses(&tcp), addresses(&http));
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
    let relays = Relays::new(endpoints.clone(), Arc::new(identity::tls::relay(&credentials)?), link_tasks.clone())?;
    let address = node_address(&config.advertise, &udp_addresses, port).await;
    let own = Own { addresses: udp_addresses.iter().copied().chain([address]).collect() };
    let seeds = Seeds::new(config.join, own);
    let found = seeds.look().await;
    let opening = Opening {
        data_dir: &config.data_dir,
        cluster: credentials.cluster_id.0,
        address,
        founds: found.nobody(),
        seeds: found.addresses,
        tuning: Tuning::with(config.sync),
    };
    let node = Node::open(opening, peers.clone(), arrivals, &peer_tasks)?;
    let (looking, stopping) = (seeds.keep_looking(node.handle(), node.neighbours()), peer_tasks.token());
    peer_tasks.spawn(async move { stopping.run_until_cancelled(looking).await.unwrap_or(()) });
    let registry = Arc::new(Registry::default());
    let names = Arc::new(Names::new(node.handle(), registry.clone(), relays.clone(), address, &link_tasks));
    let links = Arc::new(Links::new(
        names.clone(),
        registry.clone(),
        credentials.client_ca.clone(),
        (node.id(), node.neighbours()),
        (config.apexes[0].clone(), port),
        config.work_bits,
        link_tasks.clone(),
    ));
    let source = status::Source { store: node.handle(), peers: peers.clone(), registry: registry.clone() };
    status::serve(&config.data_dir, source, &peer_tasks);
    let passing = Passing::new(registry.clone(), relays.clone(), link_tasks.clone(), visitors.clone());
    let acceptor = Acceptor::new(link_tasks.clone(), move |accepted| match accepted {
        Accepted::Link(connection, place) => links.serve(connection, place),
        Accepted::Node(connection) => peers.accepted(connection),
        Accepted::Relay(connection) => passing.serve(connection),
    });
    for endpoint in endpoints {
        link_tasks.spawn(acceptor.clone().accept(endpoint));
    }
    let router = Arc::new(Router::new(registry.clone(), relays, &node.handle(), address, visitors.clone()));
    let carrier = Carrier::new(acceptor, tls)?;
    let gateway = Gateway::new(router, certificates, carrier, config.apexes, port, visitors.clone());
    find_footing(&node.handle()).await;
    for port in tcp {
        gateway.serve_tls(port.listen()?)?;
    }
    for port in http {
        gateway.serve_plain(port.listen()?)?;
    }
    Ok(Running {
        tcp: tcp_addresses,
        udp: udp_addresses,
        http: http_addresses,
        visitors,
        links: link_tasks,
        peers: peer_tasks,
        names,
        node,
        drain: config.drain,
    })
}

/// Waits until names can be looked up. A node that has just started does not know yet who keeps what, and visitors go to
/// other nodes meanwhile; but not for long, since a node that is cut off still serves the links that it has.
async fn find_footing(store: &Handle) {
    let (store, began) = (store.within(FOOTING / 10), Instant::now());
    let looked_up = async {
        for number in 0..FOOTING_LOOK_UPS {
            let key = Key::new(format!("/footing/{number}"));
            while store.hint_get(&key).await.is_err() {
                sleep(LOOK).await;
            }
        }
    };
    if timeout(FOOTING, looked_up).await.is_err() {
        tracing::warn!("names cannot be looked up yet; visitors of clients that are linked here are served");
    }
    tracing::info!(elapsed_ms = began.elapsed().as_millis(), "visitors are served from now on");
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

impl Running {
    /// Takes the node down so that nobody misses it:
    ///
    /// 1. Clients hear of it at once, and open links to other nodes. No new visitors and links are accepted; visitors who are
    ///    connected hear with their next answer that they should connect anew. Other nodes take over the slots meanwhile.
    /// 2. When the clients have moved, or have not after a while, streams in progress have as long as the configuration says,
    ///    counted from the start; those among them that other nodes pass on to links of this one, too.
    /// 3. Links and store are closed.
    pub async fn stop(self) {
        self.links.drain();
        self.visitors.drain();
        let began = Instant::now();
        tokio::join!(self.hand_over(), async {
            self.let_clients_move().await;
            // What clients have not taken elsewhere: other nodes' visitors do not come for it any more.
            self.names.withdraw(WITHDRAW.min(self.drain)).await;
            self.finish_streams(began).await;
        });
        // The store comes before what carries its packets.
        self.node.stop().await;
        tokio::join!(self.peers.finish(FAREWELL), self.links.finish(FAREWELL));
    }

    async fn hand_over(&self) {
        // Without time for streams there is none for this: all nodes are stopped together.
        if self.drain.is_zero() {
            return;
        }
        let began = Instant::now();
        if self.node.leave(LEAVE).await {
            tracing::info!(elapsed_ms = began.elapsed().as_millis(), "no other node counts on this one any more");
        } else {
            tracing::warn!("other nodes still count on this one; they go on without it as after a crash");
        }
    }

    async fn finish_streams(&self, began: Instant) {
        let left = |span: Duration| span.min(self.drain).saturating_sub(began.elapsed());
        if !self.visitors.ended(left(LAST_CALL)).await {
            let dropped = self.visitors.finish(left(self.drain)).await;
            if dropped > 0 {
                tracing::info!(dropped, "streams in progress were cut off");
            }
        }
        tracing::info!(elapsed_ms = began.elapsed().as_millis(), "no stream is in progress any more");
    }

    /// Clients of a node alone have nowhere to go.
    async fn let_clients_move(&self) {
        if self.node.neighbours().borrow().is_empty() {
            return;
        }
        if timeout(MOVE.min(self.drain), self.names.served_elsewhere()).await.is_err() {
            tracing::debug!("some clients still have links nowhere else");
        }
    }
}

/// Binds the TLS and QUIC ports. Where both are port 0, they get the same number, since clients know one port.
fn bind(tcp: &[SocketAddr], udp: &[SocketAddr]) -> Result<(Vec<Port>, Vec<UdpSocket>), BindError> {
    let mut draw = 0;
    loop {
        let ports = tcp.iter().map(|address| Port::take(*address)).collect::<Result<Vec<_>, _>>()?;
        let same_port = |(index, address): (usize, &SocketAddr)| {
            let mut address = *address;
            if address.port() == 0
                && let Some(drawn) = ports.get(index).map(Port::address)
            {
                address.set_port(drawn.port());
            }
            endpoint::bind_udp(address)
        };
        match udp.iter().enumerate().map(same_port).collect::<Result<Vec<_>, _>>() {
            Ok(sockets) => return Ok((ports, sockets)),
            Err(_) if draw < DRAWS && udp.iter().any(|address| address.port() == 0) => draw += 1,
            Err(error) => return Err(error),
        }
    }
}
