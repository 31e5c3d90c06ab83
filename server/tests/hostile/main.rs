//! A node against peers that do not behave: all in this process, over loopback, on ports that the system draws.

use client_lite::{Event, TunnelOptions, run_tunnel};
use quinn::crypto::rustls::QuicClientConfig;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use specter_server::{
    config::{Advertise, Config, CredentialsSource, SyncPolicy},
    identity::{Credentials, pki, provider},
    run::{self, Running},
    shutdown::Shutdown,
};
use specter_wire::{
    codec,
    link::{ClientFrame, EXPORTER_BYTES, EXPORTER_LABEL, Request, signature_input},
    name::Hostname,
    version::ALPN_LINK,
};
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

mod carried;

/// Longest that a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

struct Node {
    folder: tempfile::TempDir,
    running: Option<Running>,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certs = folder.path().join("certs");
        pki::init(&certs, "localhost", SystemTime::now()).expect("certificates");
        let any = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let config = Config {
            advertise: Advertise { host: "localhost".to_owned(), port: 0 },
            listen_tcp: any.clone(),
            listen_udp: any.clone(),
            listen_http: any,
            data_dir: folder.path().join("node"),
            sync: SyncPolicy::default(),
            credentials: CredentialsSource::Directory(certs.clone()),
            apexes: vec![Hostname::parse("localhost").expect("a name")],
            certificates: Vec::new(),
            join: Vec::new(),
            log: "off".to_owned(),
            log_json: false,
            work_bits: 0,
            drain: Duration::from_secs(5),
            workers: 1,
        };
        let credentials = Credentials::from_directory(&certs).expect("credentials");
        let running = run::start(config, credentials, Shutdown::new()).await.expect("the node starts");
        Self { folder, running: Some(running) }
    }

    fn tcp(&self) -> SocketAddr {
        self.running.as_ref().expect("running").tcp[0]
    }

    fn udp(&self) -> SocketAddr {
        self.running.as_ref().expect("running").udp[0]
    }

    fn roots(&self) -> RootCertStore {
        let pem = std::fs::read(self.folder.path().join("certs/gateway-ca.crt")).expect("the CA");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a CA");
        roots
    }

    fn tls(&self, alpn: &[u8]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    /// A visitor's connection.
    async fn visit(&self, host: &str, alpn: &[u8]) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.tcp()).await.expect("the node listens");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(self.tls(alpn))).connect(name, tcp).await.expect("TLS")
    }

    /// The status line that a visitor gets for one request on a connection of its own.
    async fn status(&self, host: &str) -> String {
        self.ask(host, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }

    /// The same for a request that nobody may repeat.
    async fn post(&self, host: &str) -> String {
        self.ask(host, &format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
            .await
    }

    async fn ask(&self, host: &str, request: &str) -> String {
        let mut stream = self.visit(host, b"http/1.1").await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        soon("the answer", stream.read_to_end(&mut answer)).await.ok();
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    }

    /// An endpoint that dials the node without any certificate.
    fn strangers(&self) -> quinn::Endpoint {
        let mut tls = self.tls(ALPN_LINK);
        tls.resumption = rustls::client::Resumption::disabled();
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_secs(8)));
        config.transport_config(Arc::new(transport));
        let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("an endpoint");
        endpoint.set_default_client_config(config);
        endpoint
    }

    fn client_config(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let apex = self.tcp().port();
        let text = format!("version: 2\napex: localhost:{apex}\ncaFile: certs/gateway-ca.crt\ntunnels:\n{text}");
        std::fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The runtime of the test ends what still runs.
        self.running.take();
    }
}

/// A client on a runtime of its own, so that it can be killed without a word.
struct Client {
    runtime: Option<Runtime>,
    host: String,
}

impl Client {
    async fn start(config: PathBuf) -> Self {
        Self::start_with(config, 1).await.0
    }

    /// A client and the hosts of its tunnels, in the order of the file.
    async fn start_with(config: PathBuf, tunnels: usize) -> (Self, Vec<String>) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (sender, mut events) = mpsc::channel(64);
        runtime.spawn(async move {
            let outcome = run_tunnel(TunnelOptions::new(config), sender, CancellationToken::new()).await;
            panic!("the client ended: {outcome:?}");
        });
        let published = async {
            let mut hosts = Vec::new();
            while hosts.len() < tunnels {
                if let Event::Published { url, .. } = events.recv().await.expect("the client runs") {
                    let host = url.split("://").nth(1).and_then(|rest| rest.split(':').next()).expect("a host");
                    hosts.push(host.to_owned());
                }
            }
            hosts
        };
        let hosts = soon("the tunnels", published).await;
        // Nobody listens any more, which holds nothing up.
        drop(events);
        (Self { runtime: Some(runtime), host: hosts[0].clone() }, hosts)
    }

    /// As `kill -9` does: the node hears nothing.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Answers each request on a connection by its number, counted from 0; None hangs up.
async fn target<F>(answer: F) -> SocketAddr
where
    F: Fn(usize) -> Option<&'static str> + Send + Clone + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    match answer(number) {
                        Some(text) => stream.write_all(text.as_bytes()).await.expect("written"),
                        None => return,
                    }
                }
            });
        }
    });
    address
}

/// More than a node has room for from one address.
const STRANGERS: usize = 200;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn the_first_visitor_after_a_killed_client_came_back_is_served() {
    let node = Node::start().await;
    let address = target(|_| Some(HELLO)).await;
    let config = node.client_config("client.yaml", &format!("  - target: http://{address}\n"));
    let mut client = Client::start(config.clone()).await;
    assert_eq!(node.post(&client.host).await, "HTTP/1.1 200 OK");
    client.kill();
    let again = Client::start(config).await;
    assert_eq!(again.host, client.host);
    assert_eq!(node.post(&again.host).await, "HTTP/1.1 200 OK");
}

/// More unread answers than would have filled a window of 16 MiB.
const DEAF_VISITORS: usize = 40;

#[tokio::test]
async fn visitors_who_read_nothing_starve_no_other_tunnel_of_the_client() {
    let node = Node::start().await;
    let endless = endless_target().await;
    let quick = target(|_| Some(HELLO)).await;
    let config =
        node.client_config("client.yaml", &format!("  - target: http://{endless}\n  - target: http://{quick}\n"));
    let (client, hosts) = Client::start_with(config, 2).await;
    let mut deaf = Vec::new();
    for _ in 0..DEAF_VISITORS {
        let mut stream = node.visit(&hosts[0], b"http/1.1").await;
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", hosts[0]);
        stream.write_all(request.as_bytes()).await.expect("sent");
        // The answer has begun, and nobody reads on.
        soon("the first byte", stream.read_u8()).await.expect("an answer");
        deaf.push(stream);
    }
    assert_eq!(node.status(&hosts[1]).await, "HTTP/1.1 200 OK");
    drop(client);
}

#[tokio::test]
async fn a_websocket_whose_target_ended_first_still_carries_the_visitors_bytes() {
    let node = Node::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let target = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbye";
        stream.write_all(answer).await.expect("written");
        stream.shutdown().await.expect("our end is told");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("the visitor's bytes");
        rest
    });
    let client = Client::start(node.client_config("client.yaml", &format!("  - target: http://{address}\n"))).await;
    let mut stream = node.visit(&client.host, b"http/1.1").await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", client.host);
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    soon("the target's end", stream.read_to_string(&mut answer)).await.expect("a clean end");
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("bye"), "{answer}");
    stream.write_all(b"still here").await.expect("sent");
    stream.shutdown().await.expect("our end");
    assert_eq!(soon("the visitor's bytes", target).await.expect("the target"), "still here");
}

/// Answers without end, as fast as it is read.
async fn endless_target() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let piece = vec![0; 1 << 16];
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
                let mut written = stream.write_all(head).await;
                while written.is_ok() {
                    written = stream.write_all(&piece).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_visitor_never_pays_for_a_target_that_closes_idle_connections() {
    let node = Node::start().await;
    // Hangs up as soon as a second request comes: what a target's own timeout looks like when both cross on the way.
    let address = target(|number| (number == 0).then_some(HELLO)).await;
    let client = Client::start(node.client_config("client.yaml", &format!("  - target: http://{address}\n"))).await;
    for _ in 0..3 {
        assert_eq!(node.status(&client.host).await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn a_stranger_can_make_the_node_hold_little() {
    let node = Node::start().await;
    let dialled = node.strangers().connect(node.udp(), "localhost").expect("dialled");
    let connection = soon("the link", dialled).await.expect("connected");
    let taken = taken_from(&connection).await;
    assert!(taken <= 256 << 10, "{taken} bytes");
}

/// How much a node takes on all streams together that it lets somebody open.
async fn taken_from(connection: &quinn::Connection) -> usize {
    let mut taken = 0;
    let mut streams = Vec::new();
    let chunk = vec![7; 16 << 10];
    // Whatever is taken lies in the node's memory: nobody there reads these streams.
    while let Ok(Ok((mut stream, answer))) = timeout(Duration::from_secs(1), connection.open_bi()).await {
        while let Ok(Ok(count)) = timeout(Duration::from_secs(1), stream.write(&chunk)).await {
            taken += count;
        }
        streams.push((stream, answer));
    }
    taken
}

#[tokio::test]
async fn strangers_who_dawdle_keep_nobody_else_out() {
    let node = Node::start().await;
    let address = target(|_| Some(HELLO)).await;
    let config = node.client_config("client.yaml", &format!("  - target: http://{address}\n"));
    drop(Client::start(config.clone()).await);
    let endpoint = node.strangers();
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let Ok(connection) = soon("an answer", endpoint.connect(node.udp(), "localhost").expect("dialled")).await
        else {
            break;
        };
        let Some(control) = soon("a welcome", greet(&connection)).await else { break };
        strangers.push((connection, control));
    }
    assert!(strangers.len() < STRANGERS, "strangers from one address take all the room there is");
    let client = Client::start(config).await;
    assert_eq!(node.status(&client.host).await, "HTTP/1.1 200 OK");
}

/// Greets as a client without a certificate, and reads the answer.
async fn greet(connection: &quinn::Connection) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let (mut control, mut answers) = connection.open_bi().await.ok()?;
    let mut buffer = [0; 256];
    let hello = ClientFrame { id: 1, request: Request::Hello { instance: 1, agent: "stranger" } };
    control.write_all(codec::encode(&hello, &mut buffer).expect("fits")).await.ok()?;
    answers.read_chunk(1, true).await.ok()??;
    Some((control, answers))
}

#[tokio::test]
async fn a_target_over_http2_sees_one_host() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (seen, mut sees) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let seen = seen.clone();
                async move {
                    let authority = request.uri().authority().map(ToString::to_string);
                    let host = request.headers().get("host").map(|host| host.to_str().expect("text").to_owned());
                    seen.send((authority, host)).await.expect("the test waits");
                    Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
    let node = Node::start().await;
    let client = Client::start(node.client_config("client.yaml", &format!("  - target: http://{address}\n"))).await;
    let stream = node.visit(&client.host, b"h2").await;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://{}:{}/call", client.host, node.tcp().port()))
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .expect("a request");
    let response = soon("the answer", sender.send_request(request)).await.expect("answered");
    assert_eq!(response.status(), 200);
    let (authority, host) = soon("the request", sees.recv()).await.expect("seen");
    assert_eq!(authority, Some(address.to_string()), "the target's own name, as for HTTP/1.1");
    assert!(host.is_none_or(|host| host == address.to_string()));
}

#[tokio::test]
async fn an_http2_visitor_that_says_nothing_is_sent_away_within_the_time_of_a_head() {
    let node = Node::start().await;
    let mut stream = node.visit("nobody.localhost", b"h2").await;
    let mut answer = Vec::new();
    soon("the end", stream.read_to_end(&mut answer)).await.ok();
}

#[tokio::test]
async fn a_body_in_another_transfer_coding_than_chunks_is_refused() {
    let node = Node::start().await;
    let address = target(|_| Some(HELLO)).await;
    let client = Client::start(node.client_config("client.yaml", &format!("  - target: http://{address}\n"))).await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        client.host
    );
    assert_eq!(node.ask(&client.host, &request).await, "HTTP/1.1 501 Not Implemented");
}

/// Greets and registers a key; the node of these tests asks for no work.
async fn register(
    connection: &quinn::Connection,
    seed: [u8; 32],
    instance: u64,
) -> (quinn::SendStream, quinn::RecvStream) {
    let key = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key");
    let mut exporter = [0; EXPORTER_BYTES];
    connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").expect("an exporter");
    let signature = key.sign(&signature_input(&exporter));
    let (mut control, mut answers) = connection.open_bi().await.expect("a stream");
    let register =
        Request::Register { public_key: key.public_key().as_ref(), signature: signature.as_ref(), counter: 0 };
    for (id, request) in [(1, Request::Hello { instance, agent: "test" }), (2, register)] {
        let mut buffer = [0; 512];
        let frame = codec::encode(&ClientFrame { id, request }, &mut buffer).expect("fits");
        control.write_all(frame).await.expect("sent");
        let mut prefix = [0; codec::PREFIX_BYTES];
        answers.read_exact(&mut prefix).await.expect("an answer");
        let mut body = vec![0; usize::from(u16::from_le_bytes(prefix))];
        answers.read_exact(&mut body).await.expect("an answer");
    }
    (control, answers)
}

#[tokio::test]
async fn a_client_whose_answer_to_a_probe_is_held_up_is_not_taken_for_dead() {
    let node = Node::start().await;
    let endpoint = node.strangers();
    let dial = || async { endpoint.connect(node.udp(), "localhost").expect("dialled").await.expect("connected") };
    let first = dial().await;
    let (_control, mut answers) = register(&first, [7; 32], 1).await;
    let second = dial().await;
    let _other = register(&second, [7; 32], 2).await;
    // The probe comes, and is never answered: as when the answer waits behind bytes that visitors do not take.
    let mut ping = [0; 1];
    soon("a probe", answers.read_exact(&mut ping)).await.expect("a probe");
    assert!(timeout(Duration::from_secs(4), first.closed()).await.is_err(), "the link was cut");
}
