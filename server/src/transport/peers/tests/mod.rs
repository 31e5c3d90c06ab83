//! Nodes that exchange packets over loopback, and others that try to.

use super::{
    line::send,
    queue::{QUEUE_BYTES, QUEUE_PACKETS},
    *,
};
use crate::{
    acme::certs::Certificates,
    identity::{Credentials, pki, tls},
    transport::{
        accept::{Accepted, Acceptor},
        endpoint::{self, CLOSE_VIOLATION},
    },
};
use quinn::{Connection, ConnectionError};
use specter_wire::name::Hostname;
use std::{net::UdpSocket, sync::atomic::AtomicUsize, time::SystemTime};
use tokio::time::timeout;

mod hostile;

/// Longest that a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// The authorities of a cluster, which make as many nodes as a test needs.
struct Cluster {
    folder: tempfile::TempDir,
    nodes: AtomicUsize,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        pki::init(&folder.path().join("0"), "localhost", SystemTime::now()).expect("certificates");
        Self { folder, nodes: AtomicUsize::new(1) }
    }

    fn credentials(&self) -> Credentials {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed).to_string();
        let out = self.folder.path().join(number);
        pki::node(&self.folder.path().join("0"), &out, "localhost", SystemTime::now()).expect("certificates");
        Credentials::from_directory(&out).expect("credentials")
    }

    fn node(&self) -> Node {
        Node::start(&self.credentials(), ANY, 64)
    }
}

/// What a node has for its packets, and nothing above it.
struct Node {
    peers: Arc<Peers>,
    arrivals: mpsc::Receiver<Arrival>,
    address: SocketAddr,
}

impl Node {
    fn start(credentials: &Credentials, address: SocketAddr, inbox: usize) -> Self {
        let endpoint = endpoint(credentials, address);
        let address = endpoint.local_addr().expect("an address");
        let dial = Arc::new(tls::dial(credentials).expect("TLS"));
        let (inbox, arrivals) = mpsc::channel(inbox);
        let shutdown = Shutdown::new();
        let peers = Peers::start(vec![endpoint.clone()], dial, inbox, shutdown.clone()).expect("started");
        let readers = peers.clone();
        let acceptor = Acceptor::new(shutdown.clone(), move |accepted| match accepted {
            Accepted::Link(connection, _place) => drop(connection),
            Accepted::Node(connection) => readers.accepted(connection),
            Accepted::Relay(connection) => drop(connection),
        });
        shutdown.spawn(acceptor.accept(endpoint));
        Self { peers, arrivals, address }
    }

    async fn arrival(&mut self) -> Arrival {
        soon("an arrival", self.arrivals.recv()).await.expect("an open inbox")
    }

    async fn packet(&mut self) -> (SocketAddr, Bytes) {
        match self.arrival().await {
            Arrival::Packet { from, bytes } => (from, bytes),
            Arrival::Unreachable { address } => panic!("{address} is unreachable"),
        }
    }

    /// Sends one packet to `other` and sees it arrive.
    async fn reaches(&self, other: &mut Self) {
        self.peers.send(other.address, Bytes::from_static(b"hello"));
        assert_eq!(other.packet().await, (self.address, Bytes::from_static(b"hello")));
    }
}

/// A node's endpoint. Nobody accepts on it yet.
fn endpoint(credentials: &Credentials, address: SocketAddr) -> Endpoint {
    let apexes = vec![Hostname::parse("localhost").expect("a name")];
    let certificates = Certificates::load(&[], credentials.gateway_ca.clone(), apexes).expect("certificates");
    let tls = tls::serve(credentials, Arc::new(certificates)).expect("TLS");
    let socket = endpoint::bind_udp(address).expect("bound");
    endpoint::serve(socket, Arc::new(tls), credentials.node_key.secret_der()).expect("an endpoint")
}

fn packet(length: usize) -> Bytes {
    vec![7; length].into()
}

#[tokio::test]
async fn two_nodes_exchange_packets_of_every_length_both_ways() {
    let cluster = Cluster::new();
    let (mut one, mut two) = (cluster.node(), cluster.node());
    for length in [0, 1, 1_200, 65_536, PACKET_BYTES] {
        one.peers.send(two.address, packet(length));
        assert_eq!(two.packet().await, (one.address, packet(length)));
        two.peers.send(one.address, packet(length));
        assert_eq!(one.packet().await, (two.address, packet(length)));
    }
    assert_eq!(one.peers.counts(), Counts { sent: 5, unsent: 0, received: 5, unread: 0 });
    one.peers.send(two.address, packet(PACKET_BYTES + 1));
    assert_eq!(one.peers.counts().unsent, 1);
}

#[tokio::test]
async fn three_nodes_exchange_packets_on_one_connection_each_way() {
    let cluster = Cluster::new();
    let mut nodes = [cluster.node(), cluster.node(), cluster.node()];
    let addresses = nodes.each_ref().map(|node| node.address);
    for round in 0..10_u8 {
        for node in &nodes {
            for to in addresses.iter().filter(|to| **to != node.address) {
                node.peers.send(*to, Bytes::from(vec![round]));
            }
        }
        for node in &mut nodes {
            let mut from = [node.packet().await, node.packet().await];
            from.sort();
            let mut others: Vec<_> = addresses.iter().copied().filter(|address| *address != node.address).collect();
            others.sort();
            assert_eq!(from.iter().map(|(from, _)| *from).collect::<Vec<_>>(), others);
            assert!(from.iter().all(|(_, bytes)| bytes[..] == [round]));
        }
    }
    for node in &nodes {
        assert_eq!(node.peers.connections(), (2, 2));
    }
}

#[tokio::test]
async fn a_node_that_was_killed_and_started_again_is_reached_at_once() {
    let cluster = Cluster::new();
    let mut one = cluster.node();
    let credentials = cluster.credentials();
    // On a runtime of its own, which ends as a killed process does: the other side hears nothing.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let mut two = {
        let _inside = runtime.enter();
        Node::start(&credentials, ANY, 64)
    };
    one.reaches(&mut two).await;
    {
        let _inside = runtime.enter();
        two.peers.send(one.address, packet(1));
    }
    assert_eq!(one.packet().await.0, two.address);
    let address = two.address;
    drop(two);
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.expect("ended");

    let mut two = Node::start(&credentials, address, 64);
    let again = async {
        loop {
            one.peers.send(address, Bytes::from_static(b"again"));
            // As the core does, which talks to its neighbours all the time.
            if let Ok(Some(Arrival::Packet { bytes, .. })) =
                timeout(Duration::from_millis(50), two.arrivals.recv()).await
            {
                return bytes;
            }
        }
    };
    // Much sooner than silence would tell.
    let bytes = timeout(SILENCE / 3, again).await.expect("in time");
    assert_eq!(bytes, "again");
    assert_eq!(one.arrivals.try_recv(), Err(mpsc::error::TryRecvError::Empty), "it was never unreachable");
    two.reaches(&mut one).await;
}

#[tokio::test]
async fn an_address_that_answers_nothing_is_told_and_holds_little() {
    let hole = UdpSocket::bind(ANY).expect("bound");
    let address = hole.local_addr().expect("an address");
    let mut node = Cluster::new().node();
    for _ in 0..100_000 {
        node.peers.send(address, packet(100));
    }
    let held = |dropped: u64| 100_000 - dropped;
    // One more may be in the hand of the address's task.
    assert!(held(node.peers.counts().unsent) <= QUEUE_PACKETS as u64 + 1);
    assert_eq!(node.arrival().await, Arrival::Unreachable { address });
    assert_eq!(node.peers.counts(), Counts { unsent: 100_000, ..Counts::default() });
    for _ in 0..1_000 {
        node.peers.send(address, packet(PACKET_BYTES));
    }
    assert!(node.peers.counts().unsent - 100_000 >= 1_000 - (QUEUE_BYTES / PACKET_BYTES) as u64 - 1);
    assert_eq!(node.arrival().await, Arrival::Unreachable { address }, "once for each attempt");
    assert_eq!(node.arrivals.try_recv(), Err(mpsc::error::TryRecvError::Empty));
}

/// The name of the handshake that a packet begins: it follows a byte of flags and four of the version.
async fn handshake(socket: &tokio::net::UdpSocket) -> Vec<u8> {
    let mut packet = [0; 2_000];
    soon("the first flight of a handshake", socket.recv_from(&mut packet)).await.expect("received");
    packet[6..6 + usize::from(packet[5])].to_vec()
}

#[tokio::test]
async fn an_address_is_dialed_anew_when_its_node_shows_that_it_lives_although_a_dial_is_under_way() {
    let node = Cluster::new().node();
    let silent = tokio::net::UdpSocket::bind(ANY).await.expect("bound");
    let address = silent.local_addr().expect("an address");
    node.peers.send(address, packet(1));
    let first = handshake(&silent).await;
    node.peers.seen(address);
    // There is but one packet: a dial that fails is not followed by another one.
    while handshake(&silent).await == first {}
}

#[tokio::test]
async fn an_address_of_a_family_without_a_socket_is_unreachable() {
    let mut node = Cluster::new().node();
    let address: SocketAddr = "[::1]:9".parse().expect("an address");
    node.peers.send(address, packet(1));
    assert_eq!(node.arrival().await, Arrival::Unreachable { address });
}

#[tokio::test]
async fn packets_are_under_way_to_so_many_addresses_only() {
    let hole = UdpSocket::bind(ANY).expect("bound");
    let port = hole.local_addr().expect("an address").port();
    let node = Cluster::new().node();
    // No answer comes from any of these either.
    for index in 0..1_500_u16 {
        let [high, low] = index.to_be_bytes();
        node.peers.send(SocketAddr::from(([127, 1, high, low], port)), packet(1));
    }
    assert_eq!(node.peers.connections().0, ADDRESSES);
    assert_eq!(node.peers.counts().unsent, 1_500 - ADDRESSES as u64);
}

#[test]
fn of_the_idle_addresses_the_one_not_used_for_longest_makes_room() {
    let mut lines = Lines::default();
    let address = |index: usize| SocketAddr::from(([10, 0, 0, 1], u16::try_from(index).expect("a port")));
    let queues: Vec<_> = (0..ADDRESSES).map(|index| lines.enter(address(index)).expect("room")).collect();
    assert!(queues[0].push(packet(1)), "busy");
    assert!(lines.used(address(1)).is_some(), "used again");
    assert!(lines.enter(address(ADDRESSES)).is_some());
    assert_eq!(lines.by_address.len(), ADDRESSES);
    assert!(lines.used(address(2)).is_none(), "forgotten");
    assert!(!queues[2].push(packet(1)), "its task ends");
    assert!(lines.used(address(0)).is_some() && lines.used(address(1)).is_some());
    for queue in &queues {
        queue.push(packet(1));
    }
    lines.used(address(ADDRESSES)).expect("known").push(packet(1));
    assert!(lines.enter(address(2)).is_none(), "none is idle");
}

#[tokio::test]
async fn an_address_is_forgotten_only_while_nothing_is_to_be_sent_there() {
    let node = Cluster::new().node();
    let queue = node.peers.lock().enter(ANY).expect("room");
    assert!(queue.push(packet(1)));
    assert!(!node.peers.forget(ANY, &queue));
    queue.clear();
    assert!(node.peers.forget(ANY, &Arc::default()), "a task whose address another has by now");
    assert_eq!(node.peers.connections().0, 1);
    assert!(node.peers.forget(ANY, &queue));
    assert_eq!(node.peers.connections().0, 0);
}

#[tokio::test]
async fn an_address_that_refuses_is_dialed_once_a_second_at_most() {
    let cluster = Cluster::new();
    let mut node = cluster.node();
    let busy = endpoint(&cluster.credentials(), ANY);
    let address = busy.local_addr().expect("an address");
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        node.peers.send(address, packet(1));
        soon("an attempt", busy.accept()).await.expect("open").refuse();
        assert_eq!(node.arrival().await, Arrival::Unreachable { address });
    }
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_connection_without_packets_is_closed() {
    let cluster = Cluster::new();
    let mut node = cluster.node();
    let other = endpoint(&cluster.credentials(), ANY);
    node.peers.send(other.local_addr().expect("an address"), packet(1));
    let connection = soon("a connection", other.accept()).await.expect("open").await.expect("connected");
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(1));
    let mut stream = soon("a packet", connection.accept_uni()).await.expect("open");
    assert_eq!(stream.read_to_end(10).await.expect("whole"), packet(1));
    let error = soon("the end", connection.closed()).await;
    assert!(matches!(&error, ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_NORMAL.into()));
    assert_eq!(node.arrivals.try_recv(), Err(mpsc::error::TryRecvError::Empty), "it is no failure");
}

#[tokio::test]
async fn a_packet_whose_sending_is_given_up_is_not_taken_for_a_whole_one() {
    let cluster = Cluster::new();
    let node = cluster.node();
    let other = endpoint(&cluster.credentials(), ANY);
    let address = other.local_addr().expect("an address");
    let connecting = node.peers.endpoints[0].connect_with(node.peers.settings.clone(), address, "node.invalid");
    let accept = async { other.accept().await.expect("open").await };
    let (ours, theirs) = soon("a connection", futures_util::future::join(connecting.expect("dialed"), accept)).await;
    let (ours, theirs) = (ours.expect("connected"), theirs.expect("connected"));
    theirs.set_max_concurrent_uni_streams(VarInt::from_u32(1));
    // Nobody reads, so that this cannot end.
    assert!(timeout(Duration::from_secs(1), send(&ours, packet(PACKET_BYTES))).await.is_err());
    let mut stream = soon("a stream", theirs.accept_uni()).await.expect("open");
    let error = soon("its end", stream.read_to_end(PACKET_BYTES)).await.expect_err("not whole");
    assert!(matches!(error, quinn::ReadToEndError::Read(quinn::ReadError::Reset(_))), "{error}");
}

#[tokio::test]
async fn a_full_inbox_loses_packets_and_holds_nothing_up() {
    let cluster = Cluster::new();
    let one = cluster.node();
    let mut two = Node::start(&cluster.credentials(), ANY, 1);
    let mut sent = 0;
    // Nobody reads the inbox of the second node until a packet was dropped.
    let dropped = async {
        while two.peers.counts().unread == 0 {
            one.peers.send(two.address, packet(1_000));
            sent += 1;
            tokio::task::yield_now().await;
        }
    };
    soon("a packet that is dropped", dropped).await;
    assert_eq!(two.packet().await.1, packet(1_000));
    let through = async {
        loop {
            one.peers.send(two.address, Bytes::from_static(b"last"));
            if two.packet().await.1 == "last" {
                return;
            }
        }
    };
    soon("the last packet", through).await;
    assert!(sent > 1);
}

#[tokio::test]
async fn stopping_ends_every_task() {
    let cluster = Cluster::new();
    let (mut one, mut two) = (cluster.node(), cluster.node());
    one.reaches(&mut two).await;
    two.reaches(&mut one).await;
    assert_eq!(one.peers.shutdown.finish(DEADLINE).await, 0);
    one.peers.send(two.address, packet(1));
    two.peers.send(one.address, packet(1));
    assert_eq!(two.arrival().await, Arrival::Unreachable { address: one.address });
}
