use e2e::{
    Client, Node,
    target::{self, Target},
    visit,
};

/// Requests that a gateway and a target could read differently. `HOST` is replaced; each hides a second request that must
/// never reach the target.
const VECTORS: [(&str, &str); 29] = [
    (
        "length and chunks",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    ),
    (
        "chunks and length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello"),
    ("two lengths in one", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0, 5\r\n\r\nhello"),
    ("a signed length", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +5\r\n\r\nhello"),
    ("a negative length", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\nhello"),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("a length beyond numbers", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
    ("a bare line feed in the head", "POST / HTTP/1.1\r\nHost: HOST\nContent-Length: 5\n\nhello"),
    ("a bare carriage return", "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\rContent-Length: 5\r\n\r\nhello"),
    ("a space before the colon", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length : 5\r\n\r\nhello"),
    ("a space before chunks' colon", "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a folded header", "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n Content-Length: 5\r\n\r\nhello"),
    ("a head that starts folded", "GET / HTTP/1.1\r\n Host: HOST\r\nHost: HOST\r\n\r\n"),
    ("an unknown transfer coding", "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunks not last", "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("chunks in an old version", "POST / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a zero byte in a value", "GET / HTTP/1.1\r\nHost: HOST\r\nX: a\0b\r\n\r\n"),
    ("a name that is no token", "GET / HTTP/1.1\r\nHost: HOST\r\nX(Y): a\r\n\r\n"),
    ("an empty name", "GET / HTTP/1.1\r\nHost: HOST\r\n: a\r\n\r\n"),
    ("a line without a colon", "GET / HTTP/1.1\r\nHost: HOST\r\nnonsense\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nHost: HOST\r\nHost: other.localhost\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\nX: HOST\r\n\r\n"),
    ("a method that is no token", "G(T / HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    ("an unknown version", "GET / HTTP/1.9\r\nHost: HOST\r\n\r\n"),
    ("no version", "GET /\r\nHost: HOST\r\n\r\n"),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: HOST\r\n\r\n"),
    (
        "a chunk size that is none",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk size beyond numbers",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
    ),
];

/// Vectors that may reach the target, since what it gets is the gateway's own, unambiguous spelling; the request behind
/// must be read where the gateway says that the first one ends. hyper takes chunks over a length, as RFC 9112 §6.3 allows.
const RESPELLED: [&str; 6] = [
    "length and chunks",
    "chunks and length",
    "chunks in an old version",
    "a bare line feed in the head",
    "a chunk size that is none",
    "a chunk size beyond numbers",
];

/// Vectors whose ends are in no doubt: they are refused, and the request behind them may be served.
const WHOLE: [&str; 2] = ["two hosts", "no host"];

#[tokio::test]
async fn requests_that_can_be_read_two_ways_are_refused() {
    let target = Target::http1(|request| async move {
        // Reads the body, so that a broken one shows as a broken request and not as an early answer.
        match http_body_util::BodyExt::collect(request.into_body()).await {
            Ok(_) => target::answer(http::StatusCode::OK, "SERVED"),
            Err(_) => target::answer(http::StatusCode::BAD_REQUEST, "BROKEN"),
        }
    })
    .await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let mut passed = Vec::new();
    for (name, text) in VECTORS {
        let before = target.requests();
        let hidden = "GET /hidden HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
        let bytes = format!("{text}{hidden}").replace("HOST", client.host());
        let answer = visit::exchange(&node, client.host(), bytes.as_bytes()).await;
        let reached = target.requests() - before;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
        let fine = if RESPELLED.contains(&name) {
            reached <= 2
        } else if WHOLE.contains(&name) {
            refused && reached <= 1
        } else {
            refused && reached == 0
        };
        if !fine {
            let first = answer.lines().next().unwrap_or_default();
            passed.push(format!("{name}: {reached} requests reached the target, the visitor saw {first:?}"));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test]
async fn an_answer_with_two_readings_is_refused() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\0b\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        "garbage\r\n\r\n",
    ];
    let node = Node::start().await;
    for text in answers {
        let target = Target::tcp(move |mut stream| async move {
            target::read_head(&mut stream).await;
            // The gateway may hang up at the first bad byte.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await;
        })
        .await;
        let client = Client::publish_one(&node, &target.url()).await;
        let Some(answer) = visit::get(&node, client.host(), "/", &[]).await else { return };
        assert_eq!(answer.status, 502, "{text:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_header_beyond_the_limit_is_refused_with_431() {
    let target = Target::http().await;
    let node = Node::start().await;
    let client = Client::publish_one(&node, &target.url()).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let header = |bytes: usize| {
        let path = folder.path().join(bytes.to_string());
        std::fs::write(&path, format!("X-Large: {}\n", "a".repeat(bytes))).expect("the folder is writable");
        format!("@{}", path.display())
    };
    let (large, huge) = (header(60_000), header(300_000));
    for version in ["--http1.1", "--http2"] {
        let Some(answer) = visit::get(&node, client.host(), "/", &[version, "-H", &large]).await else { return };
        assert_eq!(answer.status, 431, "{version}: {answer:?}");
        // So much more than the limit that the gateway need not read it to its end in order to answer.
        let Some(answer) = visit::get(&node, client.host(), "/", &[version, "-H", &huge]).await else { return };
        assert!(answer.status == 431 || answer.exit != 0, "{version}: {answer:?}");
        assert_eq!(target.requests(), 0);
    }
    let Some(answer) = visit::get(&node, client.host(), "/", &[]).await else { return };
    assert_eq!(answer.status, 200, "the node serves on: {answer:?}");
}
