//! Visitors' streams: from the node to the target and back.

use crate::{
    fake_node::{Behaviour, DEADLINE, FakeNode, open},
    running::Client,
};
use quinn::VarInt;
use specter_wire::{
    error::ErrorCode,
    stream::{CONNECTED, StreamKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

#[tokio::test]
async fn a_stream_reaches_its_target_and_each_end_of_data_travels_alone() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let mut client = Client::start(&node, &format!("tunnels: [{{target: 'tcp://127.0.0.1:{port}'}}]\n"));
    client.published().await;
    let connection = node.connection().await;
    let (mut send, mut receive) = open(&connection, "claimed-name-001", StreamKind::Raw, b"early ").await;
    let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    let mut status = [9];
    receive.read_exact(&mut status).await.unwrap();
    assert_eq!(status, [CONNECTED]);
    send.write_all(b"late").await.unwrap();
    send.finish().unwrap();
    let mut got = String::new();
    accepted.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "early late");
    // The visitor's direction has ended; the other one still works, for much more than any buffer.
    let answer = vec![7; 5_000_000];
    let (written, got) = tokio::join!(
        async {
            accepted.write_all(&answer).await.unwrap();
            accepted.shutdown().await
        },
        receive.read_to_end(answer.len())
    );
    written.unwrap();
    assert!(got.unwrap() == answer);
}

#[tokio::test]
async fn a_target_that_ends_first_still_reads_what_the_visitor_sends() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let mut client = Client::start(&node, &format!("tunnels: [{{target: 'tcp://127.0.0.1:{port}'}}]\n"));
    client.published().await;
    let connection = node.connection().await;
    let (mut send, mut receive) = open(&connection, "claimed-name-001", StreamKind::Raw, b"").await;
    let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    accepted.shutdown().await.unwrap();
    assert_eq!(receive.read_to_end(10).await.unwrap(), [CONNECTED]);
    let bytes = vec![3; 3_000_000];
    let (_, got) = tokio::join!(
        async {
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
        },
        async {
            let mut got = Vec::new();
            accepted.read_to_end(&mut got).await.unwrap();
            got
        }
    );
    assert!(got == bytes);
}

#[tokio::test]
async fn a_cut_travels_both_ways() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let mut client = Client::start(&node, &format!("tunnels: [{{target: 'tcp://127.0.0.1:{port}'}}]\n"));
    client.published().await;
    let connection = node.connection().await;
    // The visitor resets.
    let (mut send, mut receive) = open(&connection, "claimed-name-001", StreamKind::Raw, b"x").await;
    let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    receive.read_exact(&mut [0]).await.unwrap();
    accepted.read_exact(&mut [0]).await.unwrap();
    send.reset(VarInt::from_u32(0)).unwrap();
    let error = timeout(DEADLINE, accepted.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The visitor only stops reading, while the target is silent.
    let (_send, mut receive) = open(&connection, "claimed-name-001", StreamKind::Raw, b"x").await;
    let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    accepted.read_exact(&mut [0]).await.unwrap();
    receive.stop(VarInt::from_u32(0)).unwrap();
    let error = timeout(DEADLINE, accepted.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The target resets.
    let (_send, mut receive) = open(&connection, "claimed-name-001", StreamKind::Raw, b"x").await;
    let (accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
    receive.read_exact(&mut [0]).await.unwrap();
    accepted.set_zero_linger().unwrap();
    drop(accepted);
    let error = timeout(DEADLINE, receive.read_to_end(10)).await.unwrap().unwrap_err();
    assert!(matches!(error, quinn::ReadToEndError::Read(quinn::ReadError::Reset(_))), "{error:?}");
}

#[tokio::test]
async fn refusals_are_one_byte_and_the_end() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    // Taken and given back, so that nothing listens there.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut client = Client::start(
        &node,
        &format!(
            "tunnels:\n- target: tcp://127.0.0.1:{port}\n- target: http://127.0.0.1:{port}\n- target: unix:///nowhere/x.sock\n- target: tcp://no-such-host.invalid:1\n"
        ),
    );
    for _ in 0..4 {
        client.published().await;
    }
    let connection = node.connection().await;
    for (hostname, kind, code) in [
        ("claimed-name-001", StreamKind::Raw, ErrorCode::TargetRefused),
        ("claimed-name-001", StreamKind::Http1, ErrorCode::WrongKind),
        ("claimed-name-002", StreamKind::Raw, ErrorCode::WrongKind),
        ("claimed-name-002", StreamKind::Http2, ErrorCode::TargetRefused),
        ("claimed-name-003", StreamKind::Http1, ErrorCode::TargetRefused),
        ("some-other-name", StreamKind::Raw, ErrorCode::UnknownHostname),
        ("Not a name", StreamKind::Raw, ErrorCode::Malformed),
    ] {
        let (_send, mut receive) = open(&connection, hostname, kind, b"hello").await;
        let got = timeout(DEADLINE, receive.read_to_end(10)).await.unwrap().unwrap();
        assert_eq!(got, [code.number()], "{hostname} {kind:?}");
    }
    let (_send, mut receive) = open(&connection, "claimed-name-004", StreamKind::Raw, b"").await;
    let got = timeout(DEADLINE, receive.read_to_end(10)).await.unwrap().unwrap();
    let unresolved = [ErrorCode::TargetUnreachable.number(), ErrorCode::TargetTimeout.number()];
    assert!(unresolved.contains(&got[0]) && got.len() == 1, "{got:?}");
}

#[tokio::test]
async fn a_unix_socket_takes_raw_bytes_and_http() {
    let mut node = FakeNode::start(Behaviour::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let target = tokio::net::UnixListener::bind(&path).unwrap();
    let mut client = Client::start(&node, &format!("tunnels: [{{target: 'unix://{}'}}]\n", path.display()));
    let (url, _) = client.published().await;
    assert!(url.starts_with("https://"), "{url}");
    let connection = node.connection().await;
    for kind in [StreamKind::Raw, StreamKind::Http1, StreamKind::Http2] {
        let (mut send, mut receive) = open(&connection, "claimed-name-001", kind, b"ping").await;
        send.finish().unwrap();
        let (mut accepted, _) = timeout(DEADLINE, target.accept()).await.unwrap().unwrap();
        let mut got = String::new();
        accepted.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "ping");
        drop(accepted);
        assert_eq!(receive.read_to_end(10).await.unwrap(), [CONNECTED]);
    }
}
