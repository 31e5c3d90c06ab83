use cluster::{
    client::{Client, Publish},
    load::{Load, Pace, Seen, sweep},
    network::Network,
    nodes::{Behind, Nodes, Plan},
    relay::{Conditions, Direction, TcpRelay, UdpRelay},
    target::Target,
};
use e2e::{binary, soon, target, tool::tool, visit};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    time::{interval, timeout},
};

/// How long a cluster may take until it is as it should be: debug builds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A few visitors at each gateway.
const PACE: Pace = Pace { visitors: 2, every: Duration::from_millis(100) };

/// Three nodes, and clients with two tunnels each.
struct Scene {
    nodes: Nodes,
    clients: Vec<Client>,
    hosts: Vec<String>,
    target: Target,
    folder: TempDir,
}

impl Scene {
    async fn start(clients: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nodes = Nodes::start(&plan(&folder)).await.expect("three nodes");
        let ports: Vec<u16> = nodes.addresses().iter().map(SocketAddr::port).collect();
        Self::with(folder, nodes, &ports, clients).await
    }

    async fn with(folder: TempDir, nodes: Nodes, ports: &[u16], clients: usize) -> Self {
        let target = Target::start().await.expect("a target");
        let mut scene = Self { nodes, clients: Vec::new(), hosts: Vec::new(), target, folder };
        for index in 0..clients {
            let client = scene.client(&format!("client-{index}"), ports[index % ports.len()], 2).await;
            scene.hosts.extend(client.hosts.clone());
            scene.clients.push(client);
        }
        scene.served("at first").await;
        scene.linked().await;
        scene
    }

    /// Waits until each client has a link to each node: the others follow the first.
    async fn linked(&self) {
        let links = 3 * self.clients.len();
        let linked = async {
            let mut pace = interval(Duration::from_millis(100));
            while self.links().await < links {
                pace.tick().await;
            }
        };
        timeout(LIMIT, linked).await.expect("each client has a link to each node");
    }

    async fn client(&self, name: &str, port: u16, tunnels: usize) -> Client {
        let publish = Publish {
            program: binary::client_lite(),
            folder: self.folder.path(),
            port,
            links: None,
            authority: &self.nodes.authority_file,
            tunnels: &vec![self.target.tunnel(); tunnels],
            log: "debug",
        };
        Client::start(name, &publish).await.expect("a client")
    }

    async fn links(&self) -> usize {
        let mut links = 0;
        for node in self.nodes.nodes.iter().filter(|node| node.running().is_ok()) {
            links += node.status().await.map_or(0, |status| status.link_count);
        }
        links
    }

    /// Every hostname is served at every gateway that runs, soon.
    async fn served(&self, when: &str) {
        let running = self.nodes.nodes.iter().filter(|node| node.running().is_ok());
        let gateways: Vec<SocketAddr> = running.map(|node| node.address).collect();
        self.served_at(&gateways, when).await;
    }

    async fn served_at(&self, gateways: &[SocketAddr], when: &str) {
        let swept = sweep(gateways, &self.hosts, &self.nodes.authority, LIMIT).await;
        swept.unwrap_or_else(|error| panic!("{when}: {error}"));
    }

    fn load(&self) -> Load {
        Load::start(&self.nodes.addresses(), &self.hosts, &self.nodes.authority, PACE).expect("visitors")
    }

    /// Waits until visitors were served so many pages.
    async fn visited(&self, load: &Load, pages: usize) -> Seen {
        let mut pace = interval(Duration::from_millis(100));
        let served = async {
            let mut sum = Seen::default();
            while sum.served < pages {
                pace.tick().await;
                sum = Seen::sum([&sum, &Seen::sum(&load.report())]);
            }
            sum
        };
        let seen = timeout(LIMIT, served).await.unwrap_or_else(|_| panic!("visitors are not served {pages} pages"));
        assert_eq!(seen.wrong, 0, "{:?}", seen.errors);
        seen
    }
}

fn plan(folder: &TempDir) -> Plan<'_> {
    let mut plan = Plan::loopback(binary::specter_server(), folder.path(), 3);
    plan.log = "debug";
    plan
}

#[tokio::test]
async fn nodes_restart_one_after_the_other_and_no_visitor_gets_an_error() {
    let mut scene = Scene::start(2).await;
    let load = scene.load();
    scene.visited(&load, 30).await;
    let mut seen = Seen::default();
    for index in 0..3 {
        let node = &mut scene.nodes.nodes[index];
        node.stop().await.expect("it stops in order");
        seen = Seen::sum([&seen, &scene.visited(&load, 30).await]);
        scene.nodes.nodes[index].start().await.expect("it starts with its data");
        scene.served("after a restart").await;
        scene.nodes.whole(LIMIT).await.expect("one ring");
        seen = Seen::sum([&seen, &scene.visited(&load, 30).await]);
    }
    assert_eq!((seen.failed, seen.wrong), (0, 0), "{:?}", seen.errors);
}

#[tokio::test]
async fn a_killed_node_costs_no_hostname_and_serves_again_with_its_data() {
    let mut scene = Scene::start(2).await;
    let load = scene.load();
    scene.visited(&load, 30).await;
    // The node that a client reached first, and another one.
    for index in [0, 2] {
        scene.nodes.nodes[index].kill().await.expect("it runs");
        scene.served("after a crash").await;
        scene.visited(&load, 30).await;
        scene.nodes.nodes[index].start().await.expect("it starts with its data");
        scene.served("after the return").await;
        scene.nodes.whole(LIMIT).await.expect("one ring");
    }
    scene.visited(&load, 30).await;
}

#[tokio::test]
async fn with_two_of_three_nodes_killed_the_last_one_serves_what_has_a_link_to_it() {
    let mut scene = Scene::start(2).await;
    let load = scene.load();
    for index in [0, 1] {
        scene.nodes.nodes[index].kill().await.expect("it runs");
    }
    scene.served("without a majority").await;
    scene.visited(&load, 30).await;
    for index in [0, 1] {
        scene.nodes.nodes[index].start().await.expect("it starts with its data");
    }
    scene.served("with all again").await;
    scene.nodes.whole(LIMIT).await.expect("one ring");
}

#[tokio::test]
async fn a_node_that_stands_still_is_gone_round_and_goes_on_where_it_was() {
    let scene = Scene::start(2).await;
    let load = scene.load();
    scene.visited(&load, 30).await;
    scene.nodes.nodes[1].pause().await.expect("it runs");
    let others: Vec<SocketAddr> = [0, 2].map(|index| scene.nodes.nodes[index].address).to_vec();
    scene.served_at(&others, "around a node that stands still").await;
    scene.nodes.nodes[1].resume().await.expect("it runs");
    scene.served("after it went on").await;
    scene.nodes.whole(LIMIT).await.expect("one ring");
    scene.visited(&load, 30).await;
}

#[tokio::test]
async fn all_nodes_killed_at_once_start_with_their_data_and_every_client_comes_back_to_its_hostnames() {
    let mut scene = Scene::start(6).await;
    for node in &mut scene.nodes.nodes {
        node.kill().await.expect("it runs");
    }
    scene.nodes.start_all().await.expect("they start with their data");
    scene.served("after all came back").await;
    scene.nodes.whole(LIMIT).await.expect("one ring");
    // And a client that knows nothing but its file has the same hostnames.
    let client = &mut scene.clients[0];
    client.kill().await.expect("it runs");
    client.start_again().await.expect("the same hostnames");
}

#[tokio::test]
async fn a_killed_client_is_back_under_its_hostnames_and_others_do_not_notice() {
    let mut scene = Scene::start(2).await;
    let others = scene.clients[1].hosts.clone();
    let load = Load::start(&scene.nodes.addresses(), &others, &scene.nodes.authority, PACE).expect("visitors");
    scene.visited(&load, 10).await;
    for _ in 0..2 {
        scene.clients[0].kill().await.expect("it runs");
        scene.clients[0].start_again().await.expect("the same hostnames");
        scene.served("after the client came back").await;
    }
    let seen = scene.visited(&load, 10).await;
    assert_eq!(seen.failed, 0, "{:?}", seen.errors);
}

#[tokio::test]
async fn a_ring_cut_in_two_serves_on_both_sides_and_is_one_again_when_mended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(network) = network().await else { return };
    let mut plan = plan(&folder);
    (plan.ips, plan.wrap) = (network.ips(), network.wrap());
    let nodes = Nodes::start(&plan).await.expect("three nodes");
    // Clients find their first node under a name, which leads to loopback: relays go on from there.
    let mut relays = Vec::new();
    for (seed, node) in (0..).zip(nodes.addresses()) {
        relays.push(UdpRelay::start(loopback(0), node, seed, Conditions::default()).await.expect("a relay"));
    }
    let ports: Vec<u16> = relays.iter().map(|relay| relay.address.port()).collect();
    let scene = Scene::with(folder, nodes, &ports, 2).await;
    let load = scene.load();
    scene.visited(&load, 30).await;
    network.cut(2).await.expect("a cut");
    // Both sides have noticed.
    scene.nodes.when(LIMIT, "cut off from another", |status| status.alive() < 2).await.expect("a cut that is noticed");
    scene.served("while cut in two").await;
    scene.visited(&load, 30).await;
    network.mend(2).await.expect("a mended network");
    scene.nodes.whole(LIMIT).await.expect("one ring");
    scene.served("after it was mended").await;
    scene.visited(&load, 30).await;
}

#[tokio::test]
async fn where_no_udp_gets_through_a_client_keeps_links_to_several_nodes_over_tcp() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(network) = network().await else { return };
    let mut plan = plan(&folder);
    (plan.ips, plan.wrap) = (network.ips(), network.wrap());
    let nodes = Nodes::start(&plan).await.expect("three nodes");
    network.block_udp().await.expect("a firewall");
    // The client finds its first node under a name, which leads to loopback: relays go on from there.
    let any = loopback(0);
    let (tcp, udp) = loop {
        let tcp = TcpRelay::start(any, nodes.nodes[0].address, 1, Conditions::default()).await.expect("a relay");
        // Another port is drawn when somebody has the first for the other protocol.
        if let Ok(udp) = UdpRelay::start(tcp.address, nodes.nodes[0].address, 1, Conditions::default()).await {
            break (tcp, udp);
        }
    };
    udp.cut(Direction::Both);
    let mut scene = Scene::with(folder, nodes, &[tcp.address.port()], 1).await;
    let log = |scene: &Scene| scene.clients[0].running().expect("it runs").log_text();
    assert!(!log(&scene).contains("way=Udp"), "{}", log(&scene));
    let load = scene.load();
    scene.visited(&load, 30).await;
    scene.nodes.nodes[1].kill().await.expect("it runs");
    scene.served("after a crash").await;
    scene.nodes.nodes[1].start().await.expect("it starts with its data");
    scene.visited(&load, 30).await;

    // It finds out by itself, too, the later the longer it was so. A start is soon.
    network.let_udp_through().await.expect("no firewall");
    udp.mend();
    scene.clients[0].kill().await.expect("it runs");
    scene.clients[0].start_again().await.expect("the same hostnames");
    let over_udp = async {
        let mut pace = interval(Duration::from_millis(100));
        while !log(&scene).contains("way=Udp") {
            pace.tick().await;
        }
    };
    timeout(LIMIT, over_udp).await.unwrap_or_else(|_| panic!("it stays on TCP:\n{}", log(&scene)));
    scene.served("over UDP").await;
    scene.visited(&load, 30).await;
}

/// A network for three nodes; none, with a word, where none can be made.
async fn network() -> Option<Network> {
    tool("ip")?;
    match Network::make(3).await {
        Ok(network) => Some(network),
        Err(error) => {
            eprintln!("skipped: no network namespaces can be made here: {error}");
            None
        }
    }
}

#[tokio::test]
async fn a_node_of_another_authority_stays_outside_and_harms_nobody() {
    let scene = Scene::start(1).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stranger = Plan::loopback(binary::specter_server(), folder.path(), 1);
    let mut stranger = Nodes::prepare(&stranger).await.expect("certificates of its own");
    let node = &mut stranger.nodes[0];
    node.join(&scene.nodes.addresses()).expect("its settings");
    node.spawn().expect("it starts");
    let refused = async {
        let mut pace = interval(Duration::from_millis(100));
        while !node.log().contains("no node of --join answers") {
            pace.tick().await;
        }
    };
    timeout(LIMIT, refused).await.unwrap_or_else(|_| panic!("it never says that it is refused:\n{}", node.log()));
    scene.nodes.whole(LIMIT).await.expect("a ring of the three");
    scene.served("beside a stranger").await;
}

#[tokio::test]
async fn a_node_whose_clock_is_an_hour_off_is_one_like_the_others() {
    if tool("faketime").is_none() {
        return;
    }
    for offset in ["+1h", "-1h"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut nodes = Nodes::prepare(&plan(&folder)).await.expect("certificates");
        // The time of day alone: intervals are as they are.
        nodes.nodes[1].wrap(&["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", offset]);
        for node in &mut nodes.nodes {
            node.start().await.unwrap_or_else(|error| panic!("{offset}: {error}"));
        }
        let ports: Vec<u16> = nodes.addresses().iter().map(SocketAddr::port).collect();
        // The second client gets its certificate of the node that is off, the first one takes its own there.
        let mut scene = Scene::with(folder, nodes, &ports, 2).await;
        scene.nodes.whole(LIMIT).await.unwrap_or_else(|error| panic!("{offset}: {error}"));
        for index in [0, 1] {
            scene.clients[index].kill().await.expect("it runs");
            scene.clients[index].start_again().await.unwrap_or_else(|error| panic!("{offset}: {error}"));
        }
        scene.served(offset).await;
    }
}

#[tokio::test]
async fn with_two_nodes_gone_and_the_third_far_away_a_client_is_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Everybody reaches the first node through a relay.
    let own = UdpSocket::bind(loopback(0)).await.expect("a free port").local_addr().expect("bound");
    let far = Conditions { delay: Duration::from_millis(100), loss_per_mille: 20, ..Conditions::default() };
    let relay = UdpRelay::start(loopback(0), own, 1, far).await.expect("a relay");
    let mut plan = plan(&folder);
    plan.behind = Some(Behind { index: 0, port: own.port(), address: relay.address });
    let nodes = Nodes::start(&plan).await.expect("three nodes");
    let ports = [nodes.nodes[1].address.port()];
    let mut scene = Scene::with(folder, nodes, &ports, 1).await;
    for index in [1, 2] {
        scene.nodes.nodes[index].kill().await.expect("it runs");
    }
    scene.served("over a slow wire").await;
    let load =
        Load::start(&[scene.nodes.nodes[0].address], &scene.hosts, &scene.nodes.authority, PACE).expect("visitors");
    scene.visited(&load, 20).await;
}

/// Enough that a change of address falls into the middle.
const DOWNLOAD_BYTES: u64 = 100 << 20;

#[tokio::test]
async fn a_download_goes_on_when_the_address_of_the_client_changes() {
    let node = e2e::Node::start().await;
    let wide = Conditions { delay: Duration::from_millis(2), ..Conditions::default() };
    let relay = UdpRelay::start(loopback(0), node.address, 1, wide).await.expect("a relay");
    let (folder, target) = (tempfile::tempdir().expect("a temporary folder"), target::Target::http().await);
    let publish = Publish {
        program: binary::client_lite(),
        folder: folder.path(),
        port: relay.address.port(),
        links: None,
        authority: &node.ca(),
        tunnels: &[format!("  - target: {}\n", target.url())],
        log: "debug",
    };
    let client = Client::start("client", &publish).await.expect("a client");
    let host = &client.hosts[0];
    let mut stream = visit::tls(&node, host, &[b"http/1.1"]).await;
    let request = format!("GET /bytes/{DOWNLOAD_BYTES} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    let head = soon("the head", target::read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (mut at, mut buffer, mut moves) = (0, vec![0; 256 << 10], 0);
    while at < DOWNLOAD_BYTES {
        let read = soon("more bytes", stream.read(&mut buffer)).await.expect("the download goes on");
        assert!(read > 0, "the download ended after {at} bytes and {moves} changes of address");
        at = target::check_pattern(at, &buffer[..read]).expect("the right bytes");
        // Another network, and later another port of it.
        if at > DOWNLOAD_BYTES * (moves + 1) / 4 && moves < 3 {
            moves += 1;
            relay.roam(Ipv4Addr::new(127, 0, 0, [9, 9, 10][moves as usize - 1]).into()).await.expect("loopback");
        }
    }
    assert_eq!((moves, at), (3, DOWNLOAD_BYTES));
    assert_eq!(target.requests(), 1, "nothing was asked for twice");
}

#[tokio::test]
async fn several_clients_of_one_identity_serve_one_hostname_as_long_as_one_of_them_lives() {
    let mut scene = Scene::start(1).await;
    let other = Target::start().await.expect("a second target");
    let port = scene.nodes.nodes[1].address.port();
    let (from, to) = (scene.target.address.to_string(), other.address.to_string());
    let first_port = format!(":{}\n", scene.nodes.nodes[0].address.port());
    let edit = |text: String| text.replace(&from, &to).replacen(&first_port, &format!(":{port}\n"), 1);
    let mut twin = scene.clients[0].twin("twin", edit).await.expect("a second client");
    scene.served("by two clients").await;
    let load = scene.load();
    scene.visited(&load, 60).await;
    scene.clients[0].kill().await.expect("it runs");
    scene.served("by the second alone").await;
    scene.visited(&load, 30).await;
    assert!(other.requests() > 0, "the second client serves");
    scene.clients[0].start_again().await.expect("the same hostnames");
    twin.kill().await.expect("it runs");
    let before = scene.target.requests();
    scene.served("by the first alone").await;
    scene.visited(&load, 30).await;
    assert!(scene.target.requests() > before, "the first client serves");
}

#[tokio::test]
async fn a_node_with_a_new_certificate_is_the_node_it_was_and_links_to_the_others_go_on() {
    let mut scene = Scene::start(2).await;
    let load = scene.load();
    scene.visited(&load, 30).await;
    let links = |node: usize| scene.nodes.nodes[node].log().matches("a link is up").count();
    let (before, others) = (links(1), [links(0), links(2)]);
    scene.nodes.renew(1).await.expect("a certificate");
    let known = scene.nodes.nodes[0].status().await.expect("its status").members.len();
    scene.nodes.nodes[1].stop().await.expect("it stops in order");
    scene.nodes.nodes[1].start().await.expect("it starts with its data");
    scene.served("with a new certificate").await;
    scene.nodes.whole(LIMIT).await.expect("one ring");
    assert_eq!(scene.nodes.nodes[0].status().await.expect("its status").members.len(), known, "no node was added");
    scene.linked().await;
    scene.visited(&load, 30).await;
    let links = |node: usize| scene.nodes.nodes[node].log().matches("a link is up").count();
    assert!(links(1) > before, "clients came back to it");
    assert_eq!([links(0), links(2)], others, "no client left another node for it");
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
