use e2e::{
    Client, Node, PATIENCE, Process,
    client::{client_command, connect_command},
    process, soon,
    target::{self, Target, nobody},
    tool::tool,
    visit,
};
use specter_wire::{error::ErrorCode, stream, version::ALPN_CONNECT};
use std::{fs, net::SocketAddr, path::Path, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
    sync::mpsc,
};

/// Reads everything first, then tells how many bytes came.
async fn counting_target() -> Target {
    Target::tcp(|mut stream| async move {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("a clean end");
        stream.write_all(format!("{} bytes", received.len()).as_bytes()).await.expect("the visitor reads");
    })
    .await
}

#[tokio::test]
async fn connect_joins_standard_input_and_output_to_a_tunnel() {
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let label = client.host().split('.').next().expect("a label");
    for host in [client.host().to_owned(), label.to_owned(), format!("{}:{}", client.host(), node.port())] {
        let input = target::pattern_at(0, 3_000_000);
        let output = process::run(connect_command(&node, &host), &input).await;
        assert_eq!(output.status.code(), Some(0), "{host}: {}", process::stderr(&output));
        assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    }
}

#[tokio::test]
async fn connect_needs_no_apex_if_the_host_tells_the_port() {
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let mut command = client_command();
    command.args(["connect", &format!("{}:{}", client.host(), node.port()), "--ca"]).arg(node.ca());
    let output = process::run(command, b"hello").await;
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"hello"[..]), "{}", process::stderr(&output));
}

#[tokio::test]
async fn the_end_of_what_a_visitor_sends_leaves_the_other_way_open() {
    let target = counting_target().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let output = process::run(connect_command(&node, client.host()), &[7; 100_000]).await;
    assert_eq!(process::stdout(&output), "100000 bytes", "{}", process::stderr(&output));
    assert!(output.status.success());
    let mut stream = visit::tls(&node, client.host(), &[]).await;
    stream.write_all(&[7; 1000]).await.expect("the gateway reads");
    stream.shutdown().await.expect("an open stream");
    let mut answer = String::new();
    soon("the count", stream.read_to_string(&mut answer)).await.expect("a clean end");
    assert_eq!(answer, "1000 bytes");
}

#[tokio::test]
async fn the_end_of_what_a_target_sends_leaves_the_other_way_open() {
    let (received, mut receive) = mpsc::channel(4);
    let target = Target::tcp(move |mut stream| {
        let received = received.clone();
        async move {
            stream.write_all(b"all I have to say").await.expect("the visitor reads");
            stream.shutdown().await.expect("an open stream");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("a clean end");
            received.send(text).await.expect("the test waits");
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;

    let mut stream = visit::tls(&node, client.host(), &[]).await;
    let mut said = String::new();
    soon("the target's end", stream.read_to_string(&mut said)).await.expect("a clean end");
    assert_eq!(said, "all I have to say");
    stream.write_all(b"over TLS").await.expect("the other way is open");
    stream.shutdown().await.expect("an open stream");
    assert_eq!(soon("what the visitor said", receive.recv()).await.as_deref(), Some("over TLS"));

    let mut stream = http_connect(&node, client.host()).await;
    let mut said = String::new();
    soon("the target's end", stream.read_to_string(&mut said)).await.expect("a clean end");
    assert_eq!(said, "all I have to say");
    stream.write_all(b"over CONNECT").await.expect("the other way is open");
    stream.shutdown().await.expect("an open stream");
    assert_eq!(soon("what the visitor said", receive.recv()).await.as_deref(), Some("over CONNECT"));
}

#[tokio::test]
async fn a_target_that_resets_is_no_clean_end() {
    let target = Target::tcp(|mut stream| async move {
        stream.read_u8().await.expect("a byte");
        stream.write_all(b"begun").await.expect("the visitor reads");
        stream.set_zero_linger().expect("a TCP socket");
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let mut stream = visit::tls(&node, client.host(), &[]).await;
    stream.write_all(b"x").await.expect("the gateway reads");
    let mut answer = Vec::new();
    let end = soon("the end", stream.read_to_end(&mut answer)).await;
    assert!(end.is_err(), "{answer:?} ended as if it were whole");
    let output = process::run(connect_command(&node, client.host()), b"x").await;
    assert_ne!(output.status.code(), Some(0), "{}", process::stdout(&output));
    assert!(!process::stderr(&output).is_empty());
}

#[tokio::test]
async fn a_visitor_that_resets_is_no_clean_end_for_the_target() {
    let (received, mut receive) = mpsc::channel(4);
    let target = Target::tcp(move |mut stream| {
        let received = received.clone();
        async move {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.expect("the first bytes");
            received.send("begun").await.expect("the test waits");
            let end = stream.read_to_end(&mut Vec::new()).await;
            received.send(if end.is_ok() { "whole" } else { "cut" }).await.expect("the test waits");
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;

    let mut stream = visit::tls(&node, client.host(), &[]).await;
    stream.write_all(b"half an upload").await.expect("the gateway reads");
    assert_eq!(soon("the first bytes over TLS", receive.recv()).await, Some("begun"));
    stream.get_ref().0.set_zero_linger().expect("a TCP socket");
    drop(stream);
    assert_eq!(soon("the end over TLS", receive.recv()).await, Some("cut"));

    let mut stream = http_connect(&node, client.host()).await;
    stream.write_all(b"half an upload").await.expect("the gateway reads");
    assert_eq!(soon("the first bytes over CONNECT", receive.recv()).await, Some("begun"));
    // Bytes and reset may be read at once: the bytes must not hide the reset.
    stream.write_all(b"more").await.expect("the gateway reads");
    stream.set_zero_linger().expect("a TCP socket");
    drop(stream);
    assert_eq!(soon("the end over CONNECT", receive.recv()).await, Some("cut"));
}

#[tokio::test]
async fn connect_ends_when_the_far_end_does_even_if_its_input_stays_open() {
    let target = Target::tcp(|mut stream| async move {
        stream.write_all(b"bye\n").await.expect("the visitor reads");
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let mut command = connect_command(&node, client.host());
    let mut connect =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the client starts");
    let open = connect.stdin.take();
    let output = soon("connect to end", connect.wait_with_output()).await.expect("it ran");
    assert_eq!((output.status.code(), process::stdout(&output).as_str()), (Some(0), "bye\n"));
    drop(open);
}

#[tokio::test]
async fn the_exit_code_of_connect_tells_what_failed() {
    let node = Node::start().await;
    let down = format!("tcp://{}", nobody().await);
    let mut client = Client::publish_one(&node, &down).await;

    let output = process::run(connect_command(&node, "nobody-has-this.localhost"), b"").await;
    assert_failed(&output, 3, "no tunnel of that name");
    let output = process::run(connect_command(&node, client.host()), b"").await;
    assert_failed(&output, 5, "refuses connections");
    client.process.signal("TERM").await;
    client.process.ended().await;
    let output = process::run(connect_command(&node, client.host()), b"").await;
    assert_failed(&output, 4, "not connected");

    let mut command = client_command();
    command.args(["connect", client.host(), "--apex", &node.apex()]);
    assert_failed(&process::run(command, b"").await, 6, "--ca");
    let port = nobody().await.port();
    let mut command = client_command();
    command.args(["connect", client.host(), "--apex", &format!("localhost:{port}"), "--ca"]).arg(node.ca());
    assert_failed(&process::run(command, b"").await, 6, "");
    let mut command = client_command();
    command.arg("connect");
    assert_failed(&process::run(command, b"").await, 2, "");
}

#[tokio::test]
async fn raw_bytes_to_an_http_tunnel_are_refused() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let output = process::run(connect_command(&node, client.host()), b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(output.stdout.is_empty() && !output.status.success(), "{}", process::stdout(&output));
    assert!(process::stderr(&output).contains("does not carry this protocol"), "{}", process::stderr(&output));
    assert_eq!(target.connections(), 0, "a visitor must not get around the gateway's headers");
}

#[tokio::test]
async fn the_connect_protocol_answers_with_one_status_byte() {
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let mut stream = visit::tls(&node, client.host(), &[ALPN_CONNECT]).await;
    // Without waiting for the status.
    stream.write_all(b"early").await.expect("the gateway reads");
    assert_eq!(soon("the status", stream.read_u8()).await.expect("a byte"), stream::CONNECTED);
    let mut echoed = [0; 5];
    soon("the echo", stream.read_exact(&mut echoed)).await.expect("five bytes");
    assert_eq!(&echoed, b"early");
    let mut stream = visit::tls(&node, "nobody.localhost", &[ALPN_CONNECT]).await;
    let status = soon("the status", stream.read_u8()).await.expect("a byte");
    assert_eq!(stream::status(status), Ok(Err(ErrorCode::UnknownHostname)));
}

#[tokio::test]
async fn raw_tls_without_alpn_reaches_a_tcp_tunnel_and_closes_on_unknown_names() {
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let Some(openssl) = tool("openssl") else { return };
    let mut command = Command::new(openssl);
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect", &node.address.to_string()]);
    command.args(["-servername", client.host(), "-CAfile"]).arg(node.ca());
    let mut session = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut input = session.stdin.take().expect("standard input is piped");
    input.write_all(b"hello\n").await.expect("it reads");
    let mut lines = BufReader::new(session.stdout.take().expect("standard output is piped")).lines();
    assert_eq!(soon("the echo", lines.next_line()).await.expect("a pipe").as_deref(), Some("hello"));

    let mut stream = visit::tls(&node, "nobody.localhost", &[]).await;
    // Both a reset and an end without a byte tell a raw visitor that there is nothing.
    let mut answer = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn http_connect_answers_by_status() {
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish(
        &node,
        &[&format!("target: {}", target.tcp_url()), &format!("target: tcp://{}", nobody().await)],
    )
    .await;
    for (host, status) in [
        (client.hosts[0].as_str(), "200"),
        (client.hosts[1].as_str(), "502"),
        ("nobody.localhost", "404"),
        ("127.0.0.1", "4"),
        ("example.com", "4"),
    ] {
        let (head, _) = try_http_connect(&node, host, 22).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {head}");
    }
}

#[tokio::test]
async fn netcat_reaches_a_tunnel_by_http_connect() {
    let Some(nc) = tool("nc") else { return };
    let target = Target::echo().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url()).await;
    let mut command = Command::new(nc);
    command.args(["-N", "-X", "connect", "-x", &node.http.to_string(), client.host(), "22"]);
    let input = target::pattern_at(0, 500_000);
    let output = process::run(command, &input).await;
    assert!(output.status.success() && output.stdout == input, "{}", process::stderr(&output));
}

#[tokio::test]
async fn listen_joins_each_connection_to_the_tunnel() {
    let target = counting_target().await;
    let node = Node::start().await;
    let mut client = Client::publish_one(&node, &target.tcp_url()).await;
    let mut command = client_command();
    command.args(["listen", "--listen", "127.0.0.1:0", client.host(), "--apex", &node.apex(), "--ca"]).arg(node.ca());
    let listen = Process::start(command);
    let line = listen.lines(1).await[0].clone();
    let (place, tunnel) = line.split_once(" -> ").expect("a place and a tunnel");
    let address: SocketAddr = place.strip_prefix("tcp://").and_then(|text| text.parse().ok()).expect("an address");
    assert_eq!(tunnel, format!("tcp://{}:{}", client.host(), node.port()));
    let talk = async |text: &[u8]| {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text).await.expect("it reads");
        stream.shutdown().await.expect("an open stream");
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.map(|_| answer)
    };
    assert_eq!(talk(b"12345").await.ok().as_deref(), Some("5 bytes"));
    let (one, two) = tokio::join!(talk(b"1"), talk(b"22"));
    assert_eq!((one.ok().as_deref(), two.ok().as_deref()), (Some("1 bytes"), Some("2 bytes")));
    // The client comes back: later connections must work again.
    client.process.kill().await;
    client.start_again().await;
    assert_eq!(talk(b"123").await.ok().as_deref(), Some("3 bytes"));
}

#[tokio::test]
async fn ssh_works_through_connect_with_exit_codes_and_large_pipes() {
    let (Some(sshd), Some(ssh), Some(keygen)) = (tool("sshd"), tool("ssh"), tool("ssh-keygen")) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let daemon = Sshd::start(&sshd, &keygen, folder.path()).await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &format!("tcp://{}", daemon.address)).await;
    let connect = connect_command(&node, "%h");
    let words = std::iter::once(connect.as_std().get_program()).chain(connect.as_std().get_args());
    let proxy: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let ssh = |remote: &str| {
        let mut command = Command::new(&ssh);
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", folder.path().join("known").display()));
        command.arg("-o").arg(format!("ProxyCommand={}", proxy.join(" ")));
        command.arg("-i").arg(folder.path().join("user")).arg(format!("{}@{}", daemon.user, client.host())).arg(remote);
        command
    };
    let output = process::run(ssh("echo hello; exit 42"), b"").await;
    assert_eq!(
        (output.status.code(), process::stdout(&output).as_str()),
        (Some(42), "hello\n"),
        "{}",
        process::stderr(&output)
    );
    let input = target::pattern_at(0, 10 * 1024 * 1024);
    let output = process::run(ssh("cat"), &input).await;
    assert!(output.status.success(), "{}", process::stderr(&output));
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    let output = process::run(ssh("wc -c"), &input).await;
    assert_eq!(process::stdout(&output).trim(), input.len().to_string());
}

/// OpenSSH's server with keys and configuration of its own, on a port that systemd's way of passing a socket gives it.
struct Sshd {
    address: SocketAddr,
    user: String,
    _target: Target,
}

impl Sshd {
    /// Runs `sshd -i` for each connection, as inetd does: no fixed port, no daemon to wait for.
    async fn start(sshd: &Path, keygen: &Path, folder: &Path) -> Self {
        for key in ["host", "user"] {
            let mut command = Command::new(keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            assert!(process::run(command, b"").await.status.success());
        }
        let mut whoami = Command::new("id");
        whoami.arg("-un");
        let user = process::stdout(&process::run(whoami, b"").await).trim().to_owned();
        if user == "root" {
            // Where sshd's unprivileged half lives; packages make it at boot.
            fs::create_dir_all("/run/sshd").expect("root may write there");
        }
        let config = folder.join("sshd_config");
        let at = folder.display();
        let text = format!(
            "HostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nStrictModes no\nUsePAM no\nPidFile none\n\
             PermitRootLogin yes\nPasswordAuthentication no\nLogLevel ERROR\n"
        );
        fs::write(&config, text).expect("the folder is writable");
        let (sshd, log) = (sshd.to_owned(), folder.join("sshd.log"));
        let target = Target::tcp(move |stream| {
            let mut command = Command::new(&sshd);
            command.arg("-i").arg("-f").arg(&config).arg("-E").arg(&log);
            async move {
                let stream = stream.into_std().expect("a socket");
                stream.set_nonblocking(false).expect("a socket");
                let input = std::os::fd::OwnedFd::from(stream.try_clone().expect("a socket"));
                let output = std::os::fd::OwnedFd::from(stream);
                command.stdin(input).stdout(output).stderr(Stdio::null()).kill_on_drop(true);
                let mut child = command.spawn().expect("sshd starts");
                drop(command);
                let _ = tokio::time::timeout(PATIENCE * 2, child.wait()).await;
            }
        })
        .await;
        Self { address: target.address, user, _target: target }
    }
}

/// Asserts exit code and a sentence that holds `part`.
fn assert_failed(output: &std::process::Output, code: i32, part: &str) {
    let text = process::stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.trim().is_empty() && text.contains(part), "{part:?} is not in {text:?}");
    assert!(output.stdout.is_empty(), "standard output is for the target's bytes alone: {}", process::stdout(output));
}

async fn http_connect(node: &Node, host: &str) -> TcpStream {
    let (head, stream) = try_http_connect(node, host, 22).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    stream
}

async fn try_http_connect(node: &Node, host: &str, port: u16) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(node.http).await.expect("the node listens");
    let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the node reads");
    (soon("the answer", target::read_head(&mut stream)).await, stream)
}
