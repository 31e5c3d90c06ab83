//! The program itself, as a user or `ssh` starts it.

use crate::fake_node::{Authority, Behaviour, DEADLINE, FakeNode, Seen};
use specter_wire::{error::ErrorCode, stream::CONNECTED, version::ALPN_CONNECT};
use std::{
    fs,
    process::{Output, Stdio},
    sync::Arc,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A gateway that leaves everything behind TLS to the test.
struct Gateway {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    folder: TempDir,
}

impl Gateway {
    async fn start() -> Self {
        let authority = Authority::new();
        let (certificate, key) = authority.server(&["some-tunnel.localhost"]);
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN_CONNECT.to_vec()];
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), &authority.ca_pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(tls)), folder }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// `connect` to the gateway's one tunnel.
    fn connect(&self) -> Command {
        let mut command = client();
        command.args(["connect", "some-tunnel", "--apex", &format!("localhost:{}", self.port())]);
        command.arg("--ca").arg(self.folder.path().join("ca.crt"));
        command
    }

    async fn accept(&self) -> TlsStream<TcpStream> {
        let (tcp, _) = timeout(DEADLINE, self.listener.accept()).await.unwrap().unwrap();
        let tls = timeout(DEADLINE, self.acceptor.accept(tcp)).await.unwrap().unwrap();
        assert_eq!(tls.get_ref().1.server_name(), Some("some-tunnel.localhost"));
        tls
    }
}

/// The program with pipes and without the tester's own settings.
fn client() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_client-lite"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for name in ["SPECTER_CONFIG", "SPECTER_APEX", "SPECTER_CA", "SPECTER_LOG", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nowhere");
    command
}

async fn finished(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

async fn run(mut command: Command) -> (i32, String, String) {
    finished(command.stdin(Stdio::null()).spawn().unwrap()).await
}

#[tokio::test]
async fn connect_carries_both_ways_and_the_end_of_input_alone() {
    let gateway = Gateway::start().await;
    let mut child = gateway.connect().spawn().unwrap();
    let mut tunnel = gateway.accept().await;
    tunnel.write_all(&[CONNECTED]).await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let big = vec![b'x'; 3_000_000];
    let (_, got) = tokio::join!(
        async {
            stdin.write_all(&big).await.unwrap();
            drop(stdin);
        },
        async {
            let mut got = Vec::new();
            tunnel.read_to_end(&mut got).await.unwrap();
            got
        }
    );
    assert!(got == big);
    // Input has ended, the answer comes after.
    tunnel.write_all(b"answer").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(finished(child).await, (0, "answer".to_owned(), String::new()));
}

#[tokio::test]
async fn connect_ends_when_the_far_end_does_while_input_is_open() {
    let gateway = Gateway::start().await;
    let mut child = gateway.connect().spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut tunnel = gateway.accept().await;
    tunnel.write_all(&[CONNECTED]).await.unwrap();
    tunnel.write_all(b"bye").await.unwrap();
    tunnel.shutdown().await.unwrap();
    assert_eq!(finished(child).await, (0, "bye".to_owned(), String::new()));
    drop(stdin);
}

#[tokio::test]
async fn connect_tells_a_cut_from_an_end() {
    let gateway = Gateway::start().await;
    let mut child = gateway.connect().spawn().unwrap();
    let _stdin = child.stdin.take().unwrap();
    let mut tunnel = gateway.accept().await;
    tunnel.write_all(&[CONNECTED, b'x']).await.unwrap();
    // TCP ends, TLS does not.
    drop(tunnel.into_inner().0);
    let (code, stdout, stderr) = finished(child).await;
    assert_eq!((code, stdout.as_str()), (1, "x"));
    assert!(stderr.contains("the connection to some-tunnel.localhost was cut"), "{stderr}");
}

#[tokio::test]
async fn connect_says_why_a_tunnel_cannot_be_used_and_exits_by_it() {
    let gateway = Gateway::start().await;
    for (code, exit_code) in [
        (ErrorCode::UnknownHostname, 3),
        (ErrorCode::NoLiveLink, 4),
        (ErrorCode::TargetRefused, 5),
        (ErrorCode::TargetTimeout, 5),
        (ErrorCode::TargetUnreachable, 5),
        (ErrorCode::TargetProtocol, 5),
        (ErrorCode::WrongKind, 1),
    ] {
        let mut child = gateway.connect().spawn().unwrap();
        let _stdin = child.stdin.take().unwrap();
        let mut tunnel = gateway.accept().await;
        tunnel.write_all(&[code.number()]).await.unwrap();
        tunnel.shutdown().await.unwrap();
        let (got, stdout, stderr) = finished(child).await;
        assert_eq!((got, stdout.as_str()), (exit_code, ""), "{code:?}");
        assert!(stderr.contains("some-tunnel.localhost") && stderr.contains(&code.to_string()), "{stderr}");
    }
}

#[tokio::test]
async fn connect_says_when_the_gateway_is_gone_or_not_trusted() {
    let gateway = Gateway::start().await;
    fs::write(gateway.folder.path().join("ca.crt"), Authority::new().ca_pem).unwrap();
    let child = gateway.connect().spawn().unwrap();
    let (tcp, _) = gateway.listener.accept().await.unwrap();
    assert!(gateway.acceptor.accept(tcp).await.is_err());
    let (code, _, stderr) = finished(child).await;
    assert_eq!(code, 6);
    assert!(stderr.contains("not trusted") && stderr.contains("--ca"), "{stderr}");

    // Something that is no TLS.
    let child = gateway.connect().spawn().unwrap();
    let (mut tcp, _) = gateway.listener.accept().await.unwrap();
    tcp.write_all(b"SSH-2.0-none\r\n").await.unwrap();
    assert_eq!(finished(child).await.0, 6);

    let command = gateway.connect();
    drop(gateway);
    let (code, _, stderr) = run(command).await;
    assert_eq!(code, 2, "the CA file went with the gateway: {stderr}");
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut command = client();
    command.args(["connect", &format!("some-tunnel.localhost:{port}")]);
    let (code, _, stderr) = run(command).await;
    assert_eq!(code, 6);
    assert!(stderr.contains("cannot be reached"), "{stderr}");
}

#[tokio::test]
async fn listen_joins_each_connection() {
    let gateway = Gateway::start().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut command = client();
    command.args(["listen", "--listen", &format!("127.0.0.1:{port}")]);
    command.arg(format!("some-tunnel.localhost:{}", gateway.port()));
    command.arg("--ca").arg(gateway.folder.path().join("ca.crt"));
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(line, format!("tcp://127.0.0.1:{port} -> tcp://some-tunnel.localhost:{}", gateway.port()));
    for _ in 0..2 {
        let mut visitor = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut tunnel = gateway.accept().await;
        tunnel.write_all(&[CONNECTED]).await.unwrap();
        visitor.write_all(b"ping").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut got = String::new();
        tunnel.read_to_string(&mut got).await.unwrap();
        tunnel.write_all(b"pong").await.unwrap();
        tunnel.shutdown().await.unwrap();
        visitor.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "pingpong");
    }
    // A refusal is no end of data.
    let mut visitor = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut tunnel = gateway.accept().await;
    tunnel.write_all(&[ErrorCode::NoLiveLink.number()]).await.unwrap();
    let error = timeout(DEADLINE, visitor.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    terminate(&child).await;
    assert!(timeout(DEADLINE, child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn http_publishes_without_a_file_prints_the_url_and_gives_the_name_back() {
    let mut node = FakeNode::start(Behaviour { work_bits: 4, ..Behaviour::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.crt"), &node.ca_pem).unwrap();
    let mut command = client();
    command.args(["http", "5173"]).env("SPECTER_APEX", format!("localhost:{}", node.port));
    command.env("SPECTER_CA", folder.path().join("ca.crt"));
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(line, "https://claimed-name-001.localhost -> http://127.0.0.1:5173");
    // A second link prints nothing new.
    node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    node.connection().await.close(quinn::VarInt::from_u32(2), b"");
    node.seen_until(|seen| matches!(seen, Seen::Published(_))).await;
    terminate(&child).await;
    let (code, stdout, stderr) = finished(child).await;
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert_eq!(timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap(), None);
    let seen = node.seen_until(|seen| matches!(seen, Seen::Released(_))).await;
    assert_eq!(seen.last(), Some(&Seen::Released(vec!["claimed-name-001".to_owned()])));
    assert!(node.owned().is_empty());
}

#[tokio::test]
async fn owned_names_are_listed_and_released_beside_a_running_client() {
    let node = FakeNode::start(Behaviour::default()).await;
    let names: Vec<String> = (0..70).map(|index| format!("owned-{index:02}")).collect();
    node.own(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("client.yaml");
    fs::write(folder.path().join("ca.crt"), &node.ca_pem).unwrap();
    let text = format!("version: 2\napex: localhost:{}\ncaFile: ca.crt\ntunnels:\n- target: tcp://h:1\n", node.port);
    fs::write(&config, text).unwrap();
    let with_config = |words: &[&str]| {
        let mut command = client();
        command.args(words).arg("--config").arg(&config);
        command
    };
    let (code, _, stderr) = run(with_config(&["ls"])).await;
    assert!(code == 1 && stderr.contains("run `client-lite tunnel`"), "{stderr}");

    let mut running = with_config(&["tunnel"]).spawn().unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let (code, stdout, stderr) = run(with_config(&["ls"])).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.lines().count(), 70);
    assert!(stdout.starts_with("owned-00.localhost -> tcp://h:1\nowned-01.localhost (unused)\n"), "{stdout}");

    let (code, stdout, _) = run(with_config(&["release", "owned-01.localhost"])).await;
    assert_eq!((code, stdout.as_str()), (0, "released owned-01.localhost\n"));
    let (code, stdout, _) = run(with_config(&["release", "owned-00"])).await;
    assert!(code == 0 && stdout.contains("remove it from the configuration"), "{stdout}");
    assert_eq!(node.owned().len(), 68);
    assert!(running.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn files_are_validated_and_the_example_is_valid() {
    let mut command = client();
    command.arg("config-example");
    let (code, example, _) = run(command).await;
    assert_eq!(code, 0);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("client.yaml");
    let validate = || {
        let mut command = client();
        command.arg("validate").env("SPECTER_CONFIG", &config);
        command
    };
    fs::write(&config, example).unwrap();
    let (code, stdout, _) = run(validate()).await;
    assert!(code == 0 && stdout.starts_with("OK"), "{stdout}");
    fs::write(&config, "version: 2\napex: h\ntunnels:\n- target: nonsense\n").unwrap();
    let (code, _, stderr) = run(validate()).await;
    assert!(code == 1 && stderr.contains("client.yaml, line 4: `target: nonsense`"), "{stderr}");
}

#[tokio::test]
async fn wrong_command_lines_are_told_with_what_to_do() {
    for (words, part) in [
        (vec![], "--help"),
        (vec!["dance"], "--help"),
        (vec!["http", "5173"], "--apex"),
        (vec!["http", "tcp://h:1", "--apex", "h"], "client-lite tcp"),
        (vec!["tcp", "http://h:1", "--apex", "h"], "client-lite http"),
        (vec!["tcp", "h", "--apex", "h"], "port"),
        (vec!["connect", "one-word"], "--apex"),
        (vec!["connect", "a.b:port"], "hostname"),
        (vec!["tunnel", "--log", "loud"], "log"),
    ] {
        let mut command = client();
        command.args(&words);
        let (code, stdout, stderr) = run(command).await;
        assert_eq!((code, stdout.as_str()), (2, ""), "{words:?} {stderr}");
        assert!(stderr.contains(part), "{part:?} is not in: {stderr}");
    }
    let mut command = client();
    command.arg("tunnel");
    let (code, _, stderr) = run(command).await;
    assert!(code == 1 && stderr.contains("/nowhere/.config/specter/client.yaml does not exist"), "{stderr}");
    let mut command = client();
    command.args(["connect", "--help"]);
    let (code, stdout, _) = run(command).await;
    assert!(code == 0 && stdout.contains("ProxyCommand=\"client-lite connect %h\""), "{stdout}");
}

async fn terminate(child: &Child) {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
}
