//! Three nodes over loopback that keep the same keys.

use std::net::{IpAddr, Ipv4Addr};

use specter_wire::name::Hostname;

use super::{
    super::{offline, restore},
    *,
};
use crate::{
    acme::certs::Certificates,
    transport::{
        accept::{Accepted, Acceptor},
        endpoint,
    },
};

/// A node with its socket.
struct Member {
    node: Node,
    address: SocketAddr,
    tasks: Shutdown,
    folder: TempDir,
}

impl Member {
    fn start(credentials: &Credentials, seeds: Vec<SocketAddr>) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), credentials, seeds)
    }

    fn start_on(folder: TempDir, credentials: &Credentials, seeds: Vec<SocketAddr>) -> Self {
        let apexes = vec![Hostname::parse("localhost").unwrap()];
        let certificates = Certificates::load(&[], credentials.gateway_ca.clone(), apexes).unwrap();
        let serve = tls::serve(credentials, Arc::new(certificates)).unwrap();
        let socket = endpoint::bind_udp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).unwrap();
        let endpoint = endpoint::serve(socket, Arc::new(serve), credentials.node_key.secret_der()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (inbox, arrivals) = mpsc::channel(1024);
        let tasks = Shutdown::new();
        let dial = Arc::new(tls::dial(credentials).unwrap());
        let peers = Peers::start(vec![endpoint.clone()], dial, inbox, tasks.clone()).unwrap();
        let readers = peers.clone();
        let acceptor = Acceptor::new(tasks.clone(), move |accepted| match accepted {
            Accepted::Link(connection, _place) => drop(connection),
            Accepted::Node(connection) => readers.accepted(connection),
            Accepted::Relay(connection) => drop(connection),
        });
        tasks.spawn(acceptor.accept(endpoint));
        let cluster = credentials.cluster_id.0;
        let opening = Opening {
            data_dir: folder.path(),
            cluster,
            address,
            founds: seeds.is_empty(),
            seeds,
            tuning: Tuning::hasty(),
        };
        let node = Node::open(opening, peers, arrivals, &tasks).unwrap();
        Self { node, address, tasks, folder }
    }

    /// How many registers its directory holds.
    fn held(&self) -> usize {
        offline::export(self.folder.path()).map_or(0, Iterator::count)
    }

    async fn stop(self) {
        self.node.stop().await;
        self.tasks.finish(Duration::from_secs(1)).await;
    }
}

/// Credentials of nodes of one cluster.
fn credentials() -> [Credentials; 3] {
    let certs = tempfile::tempdir().unwrap();
    let authority = certs.path().join("0");
    pki::init(&authority, "localhost", SystemTime::now()).unwrap();
    ["1", "2", "3"].map(|number| {
        let out = certs.path().join(number);
        pki::node(&authority, &out, "localhost", SystemTime::now()).unwrap();
        Credentials::from_directory(&out).unwrap()
    })
}

fn three() -> [Member; 3] {
    start_three(&credentials())
}

fn start_three([first, second, third]: &[Credentials; 3]) -> [Member; 3] {
    let first = Member::start(first, Vec::new());
    let seeds = vec![first.address];
    let second = Member::start(second, seeds.clone());
    let third = Member::start(third, seeds);
    [first, second, third]
}

const KEYS: usize = 40;

fn name(number: usize) -> Key {
    key(&format!("key {number}"))
}

async fn put_all(members: &[Member; 3]) {
    for number in 0..KEYS {
        let member = &members[number % 3];
        let value = format!("value {number}");
        // Which write of a change of members is under way nobody knows; writing the same again is as good.
        while store(&member.node).put(&name(number), value.clone(), None).await.is_err() {}
    }
}

async fn see_all(member: &Member) {
    for number in 0..KEYS {
        let value = store(&member.node).get(&name(number)).await.unwrap();
        assert_eq!(value, Some(format!("value {number}").into_bytes()), "key {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_keep_what_each_wrote_and_go_on_when_one_is_gone() {
    let members = three();
    put_all(&members).await;
    for member in &members {
        see_all(member).await;
    }
    directory::until("every node to keep every key", || members.iter().all(|member| member.held() == KEYS)).await;
    let [first, second, third] = members;
    // Without a word: the others have to find out.
    first.stop().await;
    see_all(&second).await;
    see_all(&third).await;
    store(&third.node).put(&key("later"), "x", None).await.unwrap();
    assert_eq!(store(&second.node).get(&key("later")).await.unwrap(), Some(b"x".to_vec()));
    second.stop().await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_takes_nothing_along() {
    let members = three();
    put_all(&members).await;
    let [first, second, third] = members;
    assert!(first.node.leave(LONG * 2).await, "the others have taken over");
    first.stop().await;
    see_all(&second).await;
    see_all(&third).await;
    second.stop().await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_tells_which_others_live() {
    let [first, second, third] = three();
    let told = |member: &Member, of: &[&Member]| {
        let mut expected: Vec<_> = of.iter().map(|other| (other.node.id(), other.address)).collect();
        expected.sort_unstable();
        let neighbours = member.node.neighbours();
        let known: Vec<_> = neighbours.borrow().iter().map(|known| (known.node, known.address.into())).collect();
        known == expected
    };
    directory::until("everybody to know everybody", || {
        told(&first, &[&second, &third]) && told(&second, &[&first, &third]) && told(&third, &[&first, &second])
    })
    .await;
    // One that is about to go is no longer told of, though it lives; one that died is not either.
    second.node.leave(LONG).await;
    directory::until("the second to be told of no more", || told(&first, &[&third]) && told(&third, &[&first])).await;
    second.stop().await;
    third.stop().await;
    directory::until("the third to be told of no more", || told(&first, &[])).await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_slots_nobody_takes_stops_when_its_patience_ends() {
    let members = three();
    put_all(&members).await;
    // Until then some slots may have no other member, and are nobody else's to take.
    directory::until("every node to keep every key", || members.iter().all(|member| member.held() == KEYS)).await;
    let [first, second, third] = members;
    second.stop().await;
    third.stop().await;
    assert!(!first.node.leave(Duration::from_secs(2)).await, "nobody has taken over");
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_lost_is_made_again_of_copies_of_all_nodes_but_one() {
    let credentials = credentials();
    let members = start_three(&credentials);
    put_all(&members).await;
    directory::until("every node to keep every key", || members.iter().all(|member| member.held() == KEYS)).await;
    let parent = tempfile::tempdir().unwrap();
    let copies = ["second", "third"].map(|name| parent.path().join(name));
    for (member, copy) in members[1..].iter().zip(&copies) {
        offline::copy(member.folder.path(), copy).unwrap();
    }
    for member in members {
        member.stop().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let wanted = restore::Wanted { from: copies.to_vec(), accepts_loss: false, is_dry: false };
    let json = restore::restore(&wanted, folder.path()).unwrap().to_json();
    assert!(json.contains(r#""may_have_forgotten":false"#) && json.contains(r#""records":0,"#), "{json}");
    let first = Member::start_on(folder, &credentials[0], Vec::new());
    see_all(&first).await;
    store(&first.node).put(&name(0), "value 0", None).await.unwrap();
    let second = Member::start(&credentials[1], vec![first.address]);
    directory::until("the other node to be filled", || second.held() == KEYS).await;
    see_all(&second).await;
    second.stop().await;
    first.stop().await;
}
