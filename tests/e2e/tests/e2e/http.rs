use e2e::{
    Client, Node, process, soon,
    target::{self, Target},
    visit::{self, get},
};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of a large body: far beyond every window and buffer on the way, and yet soon through a debug build. Another
/// number of MiB may be asked for by `SPECTER_E2E_BODY_MIB`.
fn large_bytes() -> u64 {
    let asked = std::env::var("SPECTER_E2E_BODY_MIB").ok();
    asked.map_or(128, |mib| mib.parse().expect("a number of MiB")) * 1024 * 1024
}

/// Most memory that a program may have held while large bodies pass, in KiB. Seen were 25 MiB in the node and 15 MiB in
/// the client; a full window of a link would add 16 MiB.
const PEAK_KIB: u64 = 48 * 1024;

#[tokio::test]
async fn a_page_comes_over_http1_and_http2() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2")] {
        let Some(answer) = get(&node, client.host(), "/some/path?q=1", &[flag]).await else { return };
        assert_eq!((answer.exit, answer.status, answer.version.as_str()), (0, 200, version), "{answer:?}");
        assert!(answer.text().starts_with("GET /some/path?q=1 "), "{answer:?}");
    }
}

#[tokio::test]
async fn every_method_and_status_passes() {
    let target = Target::http1(|request| async move {
        let status = request.uri().path()[1..].parse().expect("the path is a status");
        target::answer(http::StatusCode::from_u16(status).expect("a status"), request.method().to_string())
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    for (method, status) in [("DELETE", 200), ("PROPFIND", 207), ("OPTIONS", 404), ("PATCH", 418), ("PUT", 500)] {
        let Some(answer) = get(&node, client.host(), &format!("/{status}"), &["-X", method]).await else { return };
        assert_eq!((answer.status, answer.text().as_str()), (status, method));
    }
    let Some(answer) = get(&node, client.host(), "/200", &["--head"]).await else { return };
    assert_eq!((answer.exit, answer.status, answer.header("content-length")), (0, 200, Some("4")), "{answer:?}");
}

#[tokio::test]
async fn a_large_body_passes_both_ways_in_bounded_memory() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let large = large_bytes();
    for version in ["--http1.1", "--http2"] {
        let Some(mut curl) = visit::curl(&node, client.host()) else { return };
        // Takes as long as it takes; each wait for the next piece has its own limit.
        curl.args([version, "--max-time", "0"]);
        curl.arg(format!("https://{}:{}/bytes/{large}", client.host(), node.port()));
        let mut curl = curl.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("curl runs");
        let mut body = curl.stdout.take().expect("standard output is piped");
        let mut buffer = vec![0; 256 * 1024];
        let mut length = 0;
        loop {
            let size = soon("more of the body", body.read(&mut buffer)).await.expect("a pipe");
            if size == 0 {
                break;
            }
            length = target::check_pattern(length, &buffer[..size]).expect("the body is what the target sent");
        }
        assert_eq!(length, large);
        assert!(soon("curl to end", curl.wait()).await.expect("curl ran").success());

        let Some(mut curl) = visit::curl(&node, client.host()) else { return };
        curl.args([version, "--max-time", "0", "-T", "-"]).arg(format!(
            "https://{}:{}/sink",
            client.host(),
            node.port()
        ));
        let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("curl runs");
        let mut body = curl.stdin.take().expect("standard input is piped");
        let mut sent = 0;
        while sent < large {
            let size = (large - sent).min(buffer.len() as u64);
            soon("more room", body.write_all(&target::pattern_at(sent, size))).await.expect("curl reads on");
            sent += size;
        }
        drop(body);
        let output = soon("the answer", curl.wait_with_output()).await.expect("curl ran");
        assert_eq!(process::stdout(&output), large.to_string());
    }
    let (node_kib, client_kib) = (node.process.peak_memory_kib(), client.process.peak_memory_kib());
    println!("peak memory: node {node_kib} KiB, client {client_kib} KiB");
    assert!(node_kib < PEAK_KIB, "the node held {node_kib} KiB");
    assert!(client_kib < PEAK_KIB, "the client held {client_kib} KiB");
}

#[tokio::test]
async fn a_target_that_does_not_read_holds_its_visitor_back() {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let target = Target::tcp(move |mut stream| {
        let mut stopped = stopped.clone();
        async move {
            target::read_head(&mut stream).await;
            // Reads nothing until the test has seen that the visitor waits.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let mut stream = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
    let head = format!("PUT /x HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", client.host(), large_bytes());
    stream.write_all(head.as_bytes()).await.expect("the gateway reads");
    let chunk = vec![0; 1024 * 1024];
    let mut sent_mib = 0;
    // Held back: a mebibyte that finds no room for two seconds.
    while let Ok(written) = tokio::time::timeout(std::time::Duration::from_secs(2), stream.write_all(&chunk)).await {
        written.expect("the gateway keeps the connection");
        sent_mib += 1;
        assert!(sent_mib < 128, "the visitor could send {sent_mib} MiB that nobody reads");
    }
    println!("held back after {sent_mib} MiB");
    assert!(node.process.peak_memory_kib() < PEAK_KIB && client.process.peak_memory_kib() < PEAK_KIB);
    stop.send_replace(true);
}

#[tokio::test]
async fn a_chunked_upload_arrives_whole() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let Some(mut curl) = visit::curl(&node, client.host()) else { return };
    curl.args(["--http1.1", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-"]);
    curl.arg(format!("https://{}:{}/sink", client.host(), node.port()));
    let output = process::run(curl, &target::pattern_at(0, 3_000_001)).await;
    assert_eq!(process::stdout(&output), "3000001", "{}", process::stderr(&output));
}

#[tokio::test]
async fn a_visitor_who_asks_before_sending_is_told_to_continue() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let mut stream = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
    let head = [("Expect", "100-continue"), ("Content-Length", "5")];
    stream.write_all(&visit::request("POST", "/echo", client.host(), &head)).await.expect("the gateway reads");
    let interim = soon("100 Continue", target::read_head(&mut stream)).await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    stream.write_all(b"hello").await.expect("the gateway reads");
    let mut rest = String::new();
    soon("the answer", stream.read_to_string(&mut rest)).await.expect("a clean end");
    assert!(rest.starts_with("HTTP/1.1 200 ") && rest.contains("hello"), "{rest}");
}

#[tokio::test]
async fn connections_of_visitor_and_target_are_used_again() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let Some(mut curl) = visit::curl(&node, client.host()) else { return };
    curl.args(["--http1.1", "-w", "%{num_connects}\n", "-o", "/dev/null"]);
    let url = format!("https://{}:{}/", client.host(), node.port());
    curl.args([&url, "-o", "/dev/null", &url, "-o", "/dev/null", &url]);
    let output = process::run(curl, b"").await;
    assert_eq!(process::stdout(&output), "1\n0\n0\n", "{}", process::stderr(&output));
    assert_eq!((target.requests(), target.connections()), (3, 1));
}

#[tokio::test]
async fn many_visitors_at_once_each_get_their_own_answer() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let Some(mut curl) = visit::curl(&node, client.host()) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    curl.args(["--parallel", "--parallel-immediate", "--parallel-max", "100", "-o"]);
    curl.arg(folder.path().join("#1")).arg(format!("https://{}:{}/page-[1-100]", client.host(), node.port()));
    let output = process::run(curl, b"").await;
    assert!(output.status.success(), "{}", process::stderr(&output));
    for number in 1..=100 {
        let text = std::fs::read_to_string(folder.path().join(number.to_string())).expect("an answer");
        assert!(text.starts_with(&format!("GET /page-{number} ")), "{text}");
    }
}
