//! Nodes on runtimes of their own, so that each can be killed without a word; clients and visitors for them.

use client_lite::{Event, TunnelOptions, run_tunnel};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use specter_server::{
    config::{Advertise, Config, CredentialsSource},
    identity::{Credentials, pki, provider},
    run::{self, Running},
    shutdown::Shutdown,
};
use specter_wire::{name::Hostname, version::ALPN_CONNECT};
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

/// Longest that a test waits for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// Asks until the answer is as wished.
pub(crate) async fn until<T, F: Future<Output = T>>(what: &str, ask: impl Fn() -> F, is_so: impl Fn(&T) -> bool) -> T {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    soon(what, async {
        loop {
            pace.tick().await;
            let answer = ask().await;
            if is_so(&answer) {
                return answer;
            }
        }
    })
    .await
}

pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) struct Node {
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: SocketAddr,
    running: Option<Running>,
    runtime: Option<Runtime>,
    thaw: Option<std::sync::mpsc::Sender<()>>,
    pub(crate) data_dir: PathBuf,
    certs: PathBuf,
    join: Vec<SocketAddr>,
}

fn multi_thread() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

impl Cluster {
    /// That many nodes of one cluster, of which all but the first join the first.
    pub(crate) async fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = folder.path().join("certs");
        pki::init(&authority, "localhost", SystemTime::now()).expect("certificates");
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..count {
            let certs = folder.path().join(format!("certs-{number}"));
            pki::node(&authority, &certs, "localhost", SystemTime::now()).expect("a node's certificate");
            let join = nodes.first().map(|first| first.udp).into_iter().collect();
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let data_dir = folder.path().join(format!("node-{number}"));
            let mut node = Node { tcp: any, udp: any, running: None, runtime: None, thaw: None, data_dir, certs, join };
            node.start().await;
            nodes.push(node);
        }
        Self { folder, nodes }
    }

    pub(crate) fn credentials(&self, number: usize) -> Credentials {
        Credentials::from_directory(&self.nodes[number].certs).expect("credentials")
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// A client's configuration that knows one node.
    pub(crate) fn client_config(&self, name: &str, node: usize, tunnels: &str) -> PathBuf {
        client_config(self.folder.path(), name, &self.nodes[node], tunnels)
    }

    /// A visitor's connection to a node's gateway.
    pub(crate) async fn visit(&self, node: usize, host: &str, alpn: &[u8]) -> TlsStream<TcpStream> {
        let pem = std::fs::read(self.authority().join("gateway-ca.crt")).expect("the CA");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("a CA");
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let tcp = TcpStream::connect(self.nodes[node].tcp).await.expect("the node listens");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("TLS")
    }

    /// A raw visitor's connection, once its target is connected.
    pub(crate) async fn connect(&self, node: usize, host: &str) -> TlsStream<TcpStream> {
        let mut stream = self.visit(node, host, ALPN_CONNECT).await;
        assert_eq!(soon("the status", stream.read_u8()).await.expect("a status"), 0);
        stream
    }

    /// The answer to a request on a connection of its own: status, body, and how long it took.
    pub(crate) async fn ask(&self, node: usize, host: &str, method: &str) -> Answer {
        let start = Instant::now();
        let mut stream = self.visit(node, host, b"http/1.1").await;
        let request = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        soon("the answer", stream.read_to_end(&mut answer)).await.ok();
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Answer { status, body, took: start.elapsed() }
    }

    pub(crate) async fn get(&self, node: usize, host: &str) -> Answer {
        self.ask(node, host, "GET").await
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Node {
    /// Starts the node.
    async fn start(&mut self) {
        let config = Config {
            advertise: Advertise { host: "localhost".to_owned(), port: 0 },
            listen_tcp: vec![self.tcp],
            listen_udp: vec![self.udp],
            listen_http: Vec::new(),
            data_dir: self.data_dir.clone(),
            credentials: CredentialsSource::Directory(self.certs.clone()),
            apexes: vec![Hostname::parse("localhost").expect("a name")],
            certificates: Vec::new(),
            join: self.join.iter().map(|seed| Advertise { host: seed.ip().to_string(), port: seed.port() }).collect(),
            log: "off".to_owned(),
            log_json: false,
            work_bits: 0,
            workers: 1,
            sync: Default::default(),
            drain: Duration::from_secs(5),
        };
        let credentials = Credentials::from_directory(&self.certs).expect("credentials");
        let runtime = multi_thread();
        let started = runtime.spawn(run::start(config, credentials, Shutdown::new()));
        let running = soon("the node", started).await.expect("no panic").expect("the node starts");
        (self.tcp, self.udp) = (running.tcp[0], running.udp[0]);
        (self.running, self.runtime) = (Some(running), Some(runtime));
    }

    /// The machine stands still: the sockets are there, and nothing answers.
    pub(crate) fn freeze(&mut self) {
        let (thaw, frozen) = std::sync::mpsc::channel::<()>();
        let runtime = self.runtime.as_ref().expect("running");
        runtime.spawn(async move {
            // Its only thread waits here, until the node is dropped.
            let _ = frozen.recv();
        });
        self.thaw = Some(thaw);
    }

    /// As `kill -9` does: nobody hears anything.
    pub(crate) fn kill(&mut self) {
        self.thaw = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.running = None;
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) {
        if let (Some(running), Some(runtime)) = (self.running.take(), self.runtime.take()) {
            soon("the node's end", runtime.spawn(running.stop())).await.expect("no panic");
            runtime.shutdown_background();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client on a runtime of its own.
pub(crate) struct Client {
    runtime: Option<Runtime>,
    pub(crate) host: String,
    events: mpsc::Receiver<Event>,
    stop: CancellationToken,
}

impl Client {
    /// A client with one tunnel, once it is published.
    pub(crate) async fn start(config: PathBuf) -> Self {
        let runtime = multi_thread();
        let (sender, events) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        runtime.spawn(async move {
            run_tunnel(TunnelOptions::new(config), sender, stopped).await.expect("the client ends in order");
        });
        let mut client = Self { runtime: Some(runtime), host: String::new(), events, stop };
        client.host = client.published().await;
        client
    }

    /// Ends the client in order.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        let ended = async { while self.events.recv().await.is_some() {} };
        soon("the client's end", ended).await;
    }

    /// The host of the next tunnel that is published.
    pub(crate) async fn published(&mut self) -> String {
        let published = async {
            loop {
                if let Event::Published { url, .. } = self.events.recv().await.expect("the client runs") {
                    let host = url.split("://").nth(1).and_then(|rest| rest.split(':').next()).expect("a host");
                    return host.to_owned();
                }
            }
        };
        soon("a published tunnel", published).await
    }

    /// The client's machine does nothing for so long.
    pub(crate) fn stand_still(&self, span: Duration) {
        let runtime = self.runtime.as_ref().expect("running");
        // Its only thread waits here.
        let (sender, nothing) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move {
            let _ = nothing.recv_timeout(span);
            drop(sender);
        });
    }

    pub(crate) fn kill(&mut self) {
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

pub(crate) fn client_config(folder: &Path, name: &str, node: &Node, tunnels: &str) -> PathBuf {
    let path = folder.join(name);
    let port = node.tcp.port();
    let text =
        format!("version: 2\napex: localhost:{port}\ncaFile: certs/gateway-ca.crt\nlinks: 1\ntunnels:\n{tunnels}");
    std::fs::write(&path, text).expect("written");
    path
}

/// Answers every HTTP request with this body.
pub(crate) async fn http_target(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// Answers every HTTP request after so long, and counts them.
pub(crate) async fn slow_target(wait: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        counter.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(wait).await;
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, asked)
}

/// Copies a client's configuration to one for another node.
pub(crate) fn moved(cluster: &Cluster, from: (&str, usize), to: (&str, usize)) -> PathBuf {
    let text = std::fs::read_to_string(cluster.folder.path().join(from.0)).expect("the file");
    let port = |node: usize| format!(":{}", cluster.nodes[node].tcp.port());
    let path = cluster.folder.path().join(to.0);
    std::fs::write(&path, text.replace(&port(from.1), &port(to.1))).expect("written");
    path
}

/// Counts the bytes that come until their end, answers with as many of its own, then ends.
pub(crate) async fn mirror_target() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                let mut count = 0_usize;
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    count += read;
                }
                let chunk = vec![b'm'; 64 << 10];
                while count > 0 {
                    let length = count.min(chunk.len());
                    if stream.write_all(&chunk[..length]).await.is_err() {
                        return;
                    }
                    count -= length;
                }
                stream.shutdown().await.ok();
            });
        }
    });
    address
}
