use e2e::{
    Client, Node, Process, binary,
    node::{pki_init, run_command, server},
    process, soon,
    target::Target,
    visit::{self, get},
};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
};

/// Runs a node that must refuse to start, and returns its one sentence.
async fn refusal(mut command: Command) -> String {
    let output = process::run(std::mem::replace(&mut command, Command::new("true")), b"").await;
    let complaint = process::stderr(&output);
    assert!(!output.status.success(), "it started: {}", process::stdout(&output));
    assert!(!process::stdout(&output).contains("ready"));
    // Log lines may stand before it; the sentence is the last.
    complaint.trim_end().lines().last().unwrap_or_default().to_owned()
}

async fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    pki_init(&folder.path().join("certs")).await;
    folder
}

#[tokio::test]
async fn garbage_on_its_ports_leaves_a_node_serving() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let noise: Vec<u8> = (0..20_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let hello_start = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let pieces: [&[u8]; 6] = [
        &noise,
        &hello_start,
        b"GET / HTTP/1.1\r\nHost: x.localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        &[0xff; 70_000],
        b"",
    ];
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let mut held = Vec::new();
    for piece in pieces {
        for address in [node.address, node.http] {
            // Closed at once, closed after an end, and held open and silent.
            let mut stream = TcpStream::connect(address).await.expect("the node listens");
            let _ = stream.write_all(piece).await;
            drop(stream);
            let mut stream = TcpStream::connect(address).await.expect("the node listens");
            let _ = stream.write_all(piece).await;
            let _ = stream.shutdown().await;
            held.push(stream);
            let mut stream = TcpStream::connect(address).await.expect("the node listens");
            let _ = stream.write_all(piece).await;
            held.push(stream);
        }
        let _ = udp.send_to(&piece[..piece.len().min(1400)], node.address).await;
    }
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(!node.process.log().contains("panicked"), "{}", node.process.log());
}

#[tokio::test]
async fn a_visitor_that_stops_talking_is_hung_up_on() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let host = client.host();
    let plain = async |what: &str, address, text: &[u8]| {
        let stream = TcpStream::connect(address).await.expect("the node listens");
        hung_up(what, stream, text).await;
    };
    let tls = async |what: &str, alpn: &[u8], text: &[u8]| {
        hung_up(what, visit::tls(&node, host, &[alpn]).await, text).await;
    };
    tokio::join!(
        plain("nothing on the TLS port", node.address, b""),
        plain("half a handshake", node.address, &[0x16, 3, 1, 2, 0, 1, 0]),
        plain("nothing on the HTTP port", node.http, b""),
        plain("half a head on the HTTP port", node.http, b"GET / HT"),
        tls("nothing after the handshake", b"http/1.1", b""),
        tls("half a head", b"http/1.1", b"GET / HTTP/1.1\r\nHost: "),
    );
    let Some(answer) = get(&node, host, "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_visitor_that_stops_talking_in_http2_is_hung_up_on() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let http2 = async |what: &str, text: &[u8]| {
        hung_up(what, visit::tls(&node, client.host(), &[b"h2"]).await, text).await;
    };
    const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let half_headers = [START, b"\0\0\x20\x01\x04\0\0\0\x01"].concat();
    tokio::join!(
        http2("nothing", b""),
        http2("half a preface", b"PRI * HTT"),
        http2("a start without a request", START),
        http2("half a frame of headers", &half_headers),
    );
}

/// Sends this much and waits for the other side to end the connection.
async fn hung_up(what: &str, mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &[u8]) {
    stream.write_all(text).await.expect("the node reads");
    stream.flush().await.expect("the node reads");
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = soon(&format!("the node to hang up on {what}"), stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn a_protocol_that_nobody_speaks_is_refused_in_the_handshake() {
    let node = Node::start().await;
    for alpn in [&b"specter-link/99"[..], b"specter-connect/99", b"h3", b"ftp"] {
        let refused = visit::try_tls(&node, "some.localhost", &[alpn]).await;
        assert!(refused.is_err(), "{} was accepted", String::from_utf8_lossy(alpn));
    }
    // A link of a version to come, over QUIC.
    let mut tls = visit::tls_config(&node);
    tls.alpn_protocols = vec![b"specter-link/99".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback has a free port");
    let connecting = endpoint
        .connect_with(quinn::ClientConfig::new(Arc::new(crypto)), node.address, "localhost")
        .expect("a valid address");
    let refused = soon("the handshake to fail", connecting).await.expect_err("no such version");
    assert!(matches!(refused, quinn::ConnectionError::ConnectionClosed(_)), "{refused}");
}

#[tokio::test]
async fn garbage_on_a_link_ends_that_link_alone() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let mut tls = visit::tls_config(&node);
    tls.alpn_protocols = vec![specter_wire::version::ALPN_LINK.to_vec()];
    let crypto = Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3"));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback has a free port");
    for bytes in [&[0xff; 40][..], &[0, 0], &[1, 0, 0xee], b"GET / HTTP/1.1\r\n\r\n"] {
        let config = quinn::ClientConfig::new(crypto.clone());
        let connecting = endpoint.connect_with(config, node.address, "localhost").expect("a valid address");
        let link = soon("the handshake", connecting).await.expect("a link without a certificate may register");
        let (mut send, _receive) = soon("a stream", link.open_bi()).await.expect("a stream");
        // The node may refuse it while it is being written.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        let closed = soon("the node to close", link.closed()).await;
        assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{bytes:?}: {closed}");
    }
    let Some(answer) = get(&node, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_port_in_use_is_one_sentence() {
    let folder = prepared().await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let port = taken.local_addr().expect("a bound socket has an address").port();
    let sentence = refusal(run_command(folder.path(), "localhost", port, 0)).await;
    assert!(sentence.contains(&format!("127.0.0.1:{port}")), "{sentence}");
    let sentence = refusal(run_command(folder.path(), "localhost", 0, port)).await;
    assert!(sentence.contains(&format!("127.0.0.1:{port}")), "{sentence}");
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_one_sentence() {
    let folder = prepared().await;
    fs::write(folder.path().join("data"), "a file").expect("the folder is writable");
    let sentence = refusal(run_command(folder.path(), "localhost", 0, 0)).await;
    assert!(sentence.contains("data"), "{sentence}");
}

#[tokio::test]
async fn a_data_folder_of_another_version_is_one_sentence_and_stays_as_it_is() {
    let mut node = Node::start().await;
    node.process.signal("TERM").await;
    node.process.ended().await;
    let store = sqlite_file(&node.folder().join("data"));
    let ours = fs::read(&store).expect("our own file");
    let mut newer = ours.clone();
    newer[SQLITE_USER_VERSION..SQLITE_USER_VERSION + 4].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&store, &newer).expect("our own file");
    let sentence = refusal(run_command(node.folder(), "localhost", 0, 0)).await;
    assert!(sentence.contains("99") && sentence.contains("version"), "{sentence}");
    assert!(fs::read(&store).expect("our own file") == newer, "a refused store stays as it is");
    fs::write(&store, &ours).expect("our own file");
    node.start_again().await;
}

/// The file in a data folder that holds SQLite's tables.
fn sqlite_file(data: &Path) -> PathBuf {
    let entries = fs::read_dir(data).expect("the node made it");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_sqlite = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    paths.find(is_sqlite).expect("a store in SQLite")
}

/// Where SQLite keeps `user_version` in a file (its file format, section 1.3).
const SQLITE_USER_VERSION: usize = 60;

#[tokio::test]
async fn two_nodes_cannot_share_a_data_folder() {
    let node = Node::start().await;
    let sentence = refusal(run_command(node.folder(), "localhost", 0, 0)).await;
    assert!(sentence.contains("data"), "{sentence}");
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let folder = prepared().await;
    let certs = folder.path().join("certs");
    for (text, parts) in [
        ("apex = [\"localhost\"]\nlissten = [\"127.0.0.1:0\"]\n", &["line 2", "lissten"][..]),
        ("apex = [\"localhost\"]\n\nlisten 127.0.0.1:0\n", &["line 3"]),
        ("apex = [\"localhost\"]\nwork_bits = \"many\"\n", &["line 2"]),
        ("apex = [\"no spaces here\"]\n", &["no spaces here"]),
        ("apex = [\"localhost\"]\nlisten = [\"nowhere\"]\n", &["nowhere"]),
    ] {
        let config = folder.path().join("server.toml");
        fs::write(&config, text).expect("the folder is writable");
        let mut command = Command::new(binary::specter_server());
        command.args(["run", "--config"]).arg(&config).arg("--cert-dir").arg(&certs);
        command.arg("--data-dir").arg(folder.path().join("data"));
        let complaint = process::stderr(&process::run(command, b"").await);
        for part in parts {
            assert!(complaint.contains(part), "{part:?} is not in {complaint:?} for\n{text}");
        }
    }
}

#[tokio::test]
async fn flags_win_over_variables_and_variables_over_the_file() {
    for (variable, flag, wanted) in [
        (None, None, "from-file.test"),
        (Some("from-variable.test"), None, "from-variable.test"),
        (Some("from-variable.test"), Some("from-flag.test"), "from-flag.test"),
    ] {
        let folder = prepared().await;
        let mut command = run_command(folder.path(), "from-file.test", 0, 0);
        if let Some(variable) = variable {
            command.env("SPECTER_APEX", variable);
        }
        if let Some(flag) = flag {
            command.args(["--apex", flag]);
        }
        let node = Node::from_command(command, folder, wanted).await;
        for apex in ["from-file.test", "from-variable.test", "from-flag.test"] {
            // A node shows certificates for names under its own apex alone.
            let served = visit::try_tls(&node, &format!("some.{apex}"), &[b"http/1.1"]).await.is_ok();
            assert_eq!(served, apex == wanted, "{apex} where {wanted} was asked for");
        }
    }
}

#[tokio::test]
async fn listeners_repeat_and_each_tells_its_address() {
    let folder = prepared().await;
    let mut command = Command::new(binary::specter_server());
    command.args([
        "run",
        "--apex",
        "one.test",
        "--apex",
        "two.test",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.args(["--listen-http", "127.0.0.1:0"]);
    command.arg("--cert-dir").arg(folder.path().join("certs")).arg("--data-dir").arg(folder.path().join("data"));
    let process = Process::start(command);
    process.line("that it is ready", |line| line == "ready").await;
    let lines = process.lines(6).await;
    let ports = |kind: &str| -> Vec<u16> {
        let start = format!("listening {kind} ");
        lines.iter().filter(|line| line.starts_with(&start)).map(|line| e2e::node::address_in(line).port()).collect()
    };
    assert_eq!(ports("tcp").len(), 2, "{lines:?}");
    assert_eq!(ports("tcp"), ports("udp"), "TCP and UDP take the same port");
    assert_eq!(ports("http").len(), 1);
    assert!(ports("tcp").iter().all(|port| *port != 0));
}

#[tokio::test]
async fn several_apexes_lead_to_the_same_tunnel() {
    let target = Target::http().await;
    let folder = prepared().await;
    let mut command = run_command(folder.path(), "localhost", 0, 0);
    command.args(["--apex", "localhost", "--apex", "other.test"]);
    let node = Node::from_command(command, folder, "localhost").await;
    let client = Client::publish_one(&node, &target.url()).await;
    let label = client.host().split('.').next().expect("a label");
    for apex in ["localhost", "other.test"] {
        let Some(answer) = get(&node, &format!("{label}.{apex}"), "/", &[]).await else { return };
        assert_eq!(answer.status, 200, "{apex}: {answer:?}");
    }
}

#[tokio::test]
async fn a_node_stops_promptly_and_cleanly() {
    let target = Target::http().await;
    for signal in ["TERM", "INT"] {
        let mut node = Node::start().await;
        let client = Client::publish_one(&node, &target.url()).await;
        // A visitor in the middle of something does not hold it up for long.
        let _idle = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
        node.process.signal(signal).await;
        let status = node.process.ended_within(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(0), "SIG{signal}: {status}");
    }
}

#[tokio::test]
async fn pki_init_makes_private_keys_private_and_overwrites_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let folder = prepared().await;
    let certs = folder.path().join("certs");
    for name in ["ca", "client-ca", "gateway-ca", "node"] {
        assert!(certs.join(format!("{name}.crt")).is_file(), "{name}.crt");
        let key = fs::metadata(certs.join(format!("{name}.key"))).expect("a key").permissions().mode() & 0o777;
        assert_eq!(key, 0o600, "{name}.key");
    }
    let before = fs::read(certs.join("ca.key")).expect("a key");
    let text = certs.to_str().expect("a path of ASCII letters");
    let again = server(&["pki", "init", "--cert-dir", text, "--advertise", "127.0.0.1:8443"]).await;
    assert!(!again.status.success() && process::stderr(&again).contains("exist"), "{}", process::stderr(&again));
    assert_eq!(fs::read(certs.join("ca.key")).expect("a key"), before);
    let second = folder.path().join("second");
    let out = second.to_str().expect("a path of ASCII letters");
    let node = server(&["pki", "node", "--cert-dir", text, "--out", out, "--advertise", "127.0.0.1:9443"]).await;
    assert!(node.status.success(), "{}", process::stderr(&node));
    assert!(second.join("node.crt").is_file() && second.join("node.key").is_file());
    assert_ne!(fs::read(second.join("node.crt")).expect("a file"), fs::read(certs.join("node.crt")).expect("a file"));
}

#[tokio::test]
async fn certificates_may_come_from_the_environment() {
    let folder = prepared().await;
    let certs = folder.path().join("certs");
    let mut command = Command::new(binary::specter_server());
    command.args([
        "run",
        "--cert-env",
        "--apex",
        "localhost",
        "--listen",
        "127.0.0.1:0",
        "--listen-http",
        "127.0.0.1:0",
    ]);
    command.arg("--data-dir").arg(folder.path().join("data"));
    for (variable, file) in [
        ("CA", "ca.crt"),
        ("CLIENT_CA", "client-ca.crt"),
        ("CLIENT_CA_KEY", "client-ca.key"),
        ("NODE", "node.crt"),
        ("NODE_KEY", "node.key"),
        ("GATEWAY_CA", "gateway-ca.crt"),
        ("GATEWAY_CA_KEY", "gateway-ca.key"),
    ] {
        let mut encode = Command::new("base64");
        encode.args(["-w", "0"]).arg(certs.join(file));
        let encoded = process::stdout(&process::run(encode, b"").await);
        command.env(format!("SPECTER_CERT_{variable}"), encoded.trim());
    }
    let target = Target::http().await;
    let node = Node::from_command(command, folder, "localhost").await;
    let client = Client::publish_one(&node, &target.url()).await;
    let Some(answer) = get(&node, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn the_log_can_be_json() {
    let folder = prepared().await;
    let mut command = run_command(folder.path(), "localhost", 0, 0);
    command.arg("--log-json");
    let node = Node::from_command(command, folder, "localhost").await;
    let Some(_) = get(&node, "nobody.localhost", "/", &[]).await else { return };
    node.process.logged("anything", |_| true).await;
    let log = node.process.log();
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
}

#[tokio::test]
async fn every_command_shows_an_example_in_its_help() {
    for command in [&["dev"][..], &["run"], &["pki", "init"], &["pki", "node"]] {
        let help = server(&[command, &["--help"]].concat()).await;
        let text = process::stdout(&help);
        assert!(help.status.success(), "{command:?}: {}", process::stderr(&help));
        assert!(text.contains(&format!("specter-server {}", command.join(" "))), "{command:?}: {text}");
        assert!(text.to_ascii_lowercase().contains("example"), "{command:?}: {text}");
    }
}
