use cluster::{
    client::{Client, Publish},
    load::{Load, Pace, Seen, sweep},
    relay::{Conditions, Direction, TcpRelay, UdpRelay},
    target::Target,
};
use e2e::{Node, binary, soon, target, visit};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{interval, timeout},
};

/// How long what has to happen may take: debug builds, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const DOWNLOAD_BYTES: u64 = 20 << 20;

/// A node that clients reach by relays of one port, as through a firewall, and a client behind it.
struct Scene {
    node: Node,
    udp: UdpRelay,
    tcp: TcpRelay,
    folder: TempDir,
}

impl Scene {
    /// With a firewall that lets no UDP through.
    async fn start() -> Self {
        let node = Node::start().await;
        // Another port is drawn when somebody has the first for the other protocol.
        let (udp, tcp) = loop {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let tcp = TcpRelay::start(any, node.address, 1, Conditions::default()).await.expect("a relay");
            if let Ok(udp) = UdpRelay::start(tcp.address, node.address, 1, Conditions::default()).await {
                break (udp, tcp);
            }
        };
        udp.cut(Direction::Both);
        Self { node, udp, tcp, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    async fn client(&self, tunnels: &[String]) -> Client {
        let publish = Publish {
            program: binary::client_lite(),
            folder: self.folder.path(),
            port: self.tcp.address.port(),
            links: None,
            authority: &self.node.ca(),
            tunnels,
            log: "debug",
        };
        Client::start("client", &publish).await.expect("a client")
    }

    fn authority(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.node.ca()).expect("the node's CA")
    }
}

/// Waits until a client's log has a text so often.
async fn logged(client: &Client, text: &str, times: usize) {
    let seen = async {
        let mut pace = interval(Duration::from_millis(100));
        while log_of(client).matches(text).count() < times {
            pace.tick().await;
        }
    };
    timeout(LIMIT, seen).await.unwrap_or_else(|_| panic!("{text:?} is not logged {times} times:\n{}", log_of(client)));
}

fn log_of(client: &Client) -> String {
    client.running().expect("it runs").log_text()
}

#[tokio::test]
async fn where_no_udp_gets_through_links_use_tcp_and_lose_nothing_of_what_they_carry() {
    let scene = Scene::start().await;
    let (pages, counting) = (target::Target::http().await, counting_target().await);
    let tunnels = [pages.url(), counting.tcp_url()].map(|url| format!("  - target: {url}\n"));
    let begun = Instant::now();
    let mut client = scene.client(&tunnels).await;
    println!("a new client serves over TCP after {} ms", begun.elapsed().as_millis());
    logged(&client, "way=Tcp", 1).await;
    client.kill().await.expect("it runs");
    let took = client.start_again().await.expect("the same hostnames");
    println!("a known client serves over TCP after {} ms", took.as_millis());

    let (host, counted) = (&client.hosts[0], &client.hosts[1]);
    let mut stream = visit::tls(&scene.node, host, &[b"http/1.1"]).await;
    let request = format!("GET /bytes/{DOWNLOAD_BYTES} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    let head = soon("the head", target::read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (mut at, mut buffer, begun) = (0, vec![0; 256 << 10], Instant::now());
    while at < DOWNLOAD_BYTES {
        let read = soon("more bytes", stream.read(&mut buffer)).await.expect("the download goes on");
        assert!(read > 0, "the download ended after {at} bytes");
        at = target::check_pattern(at, &buffer[..read]).expect("the right bytes");
    }
    println!("{DOWNLOAD_BYTES} bytes came in {} ms", begun.elapsed().as_millis());

    // The end of one direction leaves the other open.
    let mut stream = visit::tls(&scene.node, counted, &[]).await;
    let upload = vec![7; 5_000_000];
    soon("the upload", stream.write_all(&upload)).await.expect("the gateway reads");
    stream.shutdown().await.expect("an open stream");
    let mut answer = String::new();
    soon("the count", stream.read_to_string(&mut answer)).await.expect("a clean end");
    assert_eq!(answer, "5000000 bytes");
}

/// Reads everything first, then tells how many bytes came.
async fn counting_target() -> target::Target {
    target::Target::tcp(|mut stream| async move {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("a clean end");
        stream.write_all(format!("{} bytes", received.len()).as_bytes()).await.expect("the visitor reads");
    })
    .await
}

#[tokio::test]
async fn a_link_over_tcp_that_stands_still_is_given_up_and_one_that_breaks_is_replaced() {
    let scene = Scene::start().await;
    let target = Target::start().await.expect("a target");
    let client = scene.client(&[target.tunnel()]).await;
    let (gateways, authority) = ([scene.node.address], scene.authority());
    scene.tcp.cut();
    logged(&client, "way=Tcp", 2).await;
    sweep(&gateways, &client.hosts, &authority, LIMIT).await.expect("served after a break");
    let (began, lost) = (Instant::now(), log_of(&client).matches("no link").count());
    scene.tcp.freeze();
    logged(&client, "no link", lost + 1).await;
    println!("a silent link is given up after {} ms", began.elapsed().as_millis());
    scene.tcp.mend();
    sweep(&gateways, &client.hosts, &authority, LIMIT).await.expect("served after a silence");
}

#[tokio::test]
async fn a_link_goes_back_to_udp_when_it_works_and_to_tcp_when_it_does_not_and_visitors_see_nothing() {
    let scene = Scene::start().await;
    let target = Target::start().await.expect("a target");
    let client = scene.client(&[target.tunnel()]).await;
    let (gateways, authority) = ([scene.node.address], scene.authority());
    sweep(&gateways, &client.hosts, &authority, LIMIT).await.expect("served over TCP");
    let pace = Pace { visitors: 2, every: Duration::from_millis(50) };
    let load = Load::start(&gateways, &client.hosts, &authority, pace).expect("visitors");
    let began = Instant::now();
    scene.udp.mend();
    logged(&client, "leaving this link", 1).await;
    println!("back on UDP after {} ms", began.elapsed().as_millis());
    logged(&client, "way=Udp", 1).await;
    // As many pages again over UDP.
    let mut sum = Seen::default();
    let served = async {
        let mut paces = interval(Duration::from_millis(100));
        while sum.served < 100 {
            paces.tick().await;
            sum = Seen::sum([&sum, &Seen::sum(&load.report())]);
        }
    };
    timeout(LIMIT, served).await.expect("visitors are served");
    assert_eq!((sum.wrong, sum.failed), (0, 0), "{:?}", sum.errors);
    drop(load);
    // A network that stops to let UDP through costs the link, and the next one is there before it is missed for long.
    scene.udp.cut(Direction::Both);
    logged(&client, "way=Tcp", 2).await;
    sweep(&gateways, &client.hosts, &authority, LIMIT).await.expect("served over TCP again");
}
