use e2e::{
    Client, Node, soon,
    target::{self, Target},
    visit::{self, get},
};
use tokio::io::AsyncWriteExt;

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

#[tokio::test]
async fn an_unknown_hostname_is_404() {
    let node = Node::start().await;
    for host in ["nobody-has-this-name-here.localhost", "x.localhost"] {
        for version in VERSIONS {
            let Some(answer) = get(&node, host, "/", &[version]).await else { return };
            assert_eq!((answer.exit, answer.status), (0, 404), "{answer:?}");
            assert!(answer.text().contains("no tunnel"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_tunnel_whose_client_is_away_is_503_until_it_comes_back() {
    let target = Target::http().await;
    let node = Node::start().await;
    let mut client = Client::publish_one(&node, &target.url()).await;
    client.process.signal("TERM").await;
    assert!(client.process.ended().await.success());
    for version in VERSIONS {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert_eq!((answer.exit, answer.status), (0, 503), "{answer:?}");
        assert!(answer.text().contains("not connected"), "{answer:?}");
    }
    client.start_again().await;
    let Some(answer) = get(&node, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_target_that_is_down_is_502_until_it_is_up() {
    let address = target::nobody().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &format!("http://{address}")).await;
    for version in VERSIONS {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert_eq!((answer.exit, answer.status), (0, 502), "{answer:?}");
        assert!(answer.text().contains("refuses connections"), "{answer:?}");
        assert!(!answer.text().contains(&address.to_string()), "an error page keeps the target's address to itself");
    }
}

#[tokio::test]
async fn error_pages_are_plain_text_without_what_the_visitor_sent() {
    let node = Node::start().await;
    let Some(answer) = get(&node, "nobody.localhost", "/canary?canary", &["-A", "<b>canary</b>"]).await else { return };
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    assert!(!answer.text().contains("canary"), "{answer:?}");
}

#[tokio::test]
async fn a_target_that_hangs_is_504_after_the_header_timeout() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish(&node, &[&format!("target: {}\nheaderTimeout: 1s", target.url())]).await;
    for version in VERSIONS {
        let Some(answer) = get(&node, client.host(), "/never", &[version]).await else { return };
        assert_eq!((answer.exit, answer.status), (0, 504), "{answer:?}");
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert_eq!(answer.status, 200, "the next request is served: {answer:?}");
    }
}

#[tokio::test]
async fn a_target_that_accepts_and_says_nothing_is_504_or_502_but_never_a_page() {
    let target = Target::tcp(|stream| async move { drop(stream) }).await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.tcp_url().replace("tcp:", "http:")).await;
    for version in VERSIONS {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert!([502, 504].contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    let beginnings = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst bytes",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nfirst bytes\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nfirst bytes",
    ];
    let node = Node::start().await;
    for beginning in beginnings {
        let target = Target::tcp(move |mut stream| async move {
            target::read_head(&mut stream).await;
            stream.write_all(beginning.as_bytes()).await.expect("the client reads");
        })
        .await;
        let client = Client::publish_one(&node, &target.url()).await;
        for version in VERSIONS {
            let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
            assert_ne!(answer.exit, 0, "{beginning:?} over {version} looks whole: {answer:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_of_unknown_length_that_is_reset_never_looks_whole() {
    let target = Target::tcp(move |mut stream| async move {
        target::read_head(&mut stream).await;
        let text = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst bytes";
        stream.write_all(text.as_bytes()).await.expect("the client reads");
        // Closes with RST instead of FIN.
        stream.set_zero_linger().expect("a TCP socket");
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    for version in VERSIONS {
        let Some(answer) = get(&node, client.host(), "/", &[version]).await else { return };
        assert!(answer.exit != 0 || answer.status >= 500, "{version}: {answer:?}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_whole() {
    let (received, mut receive) = tokio::sync::mpsc::channel(4);
    let target = Target::tcp(move |mut stream| {
        let received = received.clone();
        async move {
            target::read_head(&mut stream).await;
            received.send(Vec::new()).await.expect("the test waits");
            let mut body = Vec::new();
            // An error and an end both count; what matters is what came before.
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut body).await;
            received.send(body).await.expect("the test waits");
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    for (framing, body) in [("Content-Length: 20", "half"), ("Transfer-Encoding: chunked", "4\r\nhalf\r\n")] {
        let mut stream = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
        let head = format!("POST / HTTP/1.1\r\nHost: {}\r\n{framing}\r\n\r\n{body}", client.host());
        stream.write_all(head.as_bytes()).await.expect("the gateway reads");
        soon("the head to arrive", receive.recv()).await;
        stream.shutdown().await.expect("an open stream");
        let body = soon("the end of the upload", receive.recv()).await.expect("a body");
        let text = String::from_utf8_lossy(&body);
        assert!(!text.ends_with("0\r\n\r\n") && text.len() < 20, "{framing}: {text:?}");
    }
}

#[tokio::test]
async fn a_client_killed_in_mid_answer_never_leaves_a_whole_one() {
    let target = Target::tcp(|mut stream| async move {
        target::read_head(&mut stream).await;
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nfirst bytes\r\n";
        stream.write_all(text.as_bytes()).await.expect("the client reads");
        std::future::pending().await
    })
    .await;
    let node = Node::start().await;
    let mut client = Client::publish_one(&node, &target.url()).await;
    let mut stream = visit::tls(&node, client.host(), &[b"http/1.1"]).await;
    stream.write_all(&visit::request("GET", "/", client.host(), &[])).await.expect("the gateway reads");
    let head = soon("the head", target::read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client.process.kill().await;
    // Its successor makes the node look after the dead link at once.
    client.start_again().await;
    let mut rest = Vec::new();
    // An error of the connection and an end before the last chunk both tell the visitor.
    let _ = soon("the end", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_host_other_than_the_name_in_the_handshake_is_421() {
    let target = Target::http().await;
    let node = Node::start().await;
    let targets = [format!("target: {}", target.url()), format!("target: {}", target.url())];
    let client = Client::publish(&node, &[&targets[0], &targets[1]]).await;
    for version in VERSIONS {
        for other in [client.hosts[1].as_str(), "localhost", "example.com"] {
            let header = format!("Host: {other}");
            let Some(answer) = get(&node, client.host(), "/", &[version, "-H", &header]).await else { return };
            assert_eq!((answer.exit, answer.status), (0, 421), "{version} {other}: {answer:?}");
        }
        let same = format!("Host: {}", client.host().to_uppercase());
        let Some(answer) = get(&node, client.host(), "/", &[version, "-H", &same]).await else { return };
        assert_eq!(answer.status, 200, "{version} {same}: {answer:?}");
    }
}

#[tokio::test]
async fn a_request_in_absolute_form_for_another_host_is_refused() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let request = visit::request("GET", "http://other.localhost/", client.host(), &[]);
    let answer = visit::exchange(&node, client.host(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(target.requests(), 0);
}

#[tokio::test]
async fn plain_http_is_sent_on_to_https() {
    let node = Node::start().await;
    let mut stream = tokio::net::TcpStream::connect(node.http).await.expect("the node listens");
    stream
        .write_all(b"GET /a?b=c HTTP/1.1\r\nHost: some.localhost\r\nConnection: close\r\n\r\n")
        .await
        .expect("it reads");
    let mut answer = String::new();
    soon("the answer", tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 308 ") || answer.starts_with("HTTP/1.1 301 "), "{answer}");
    let location =
        answer.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("location: ").map(str::to_owned));
    assert_eq!(location, Some(format!("https://some.localhost:{}/a?b=c", node.port())), "{answer}");
}
