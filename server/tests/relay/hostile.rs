//! Nodes that do not behave, with a certificate of the cluster.

use crate::cluster::{Client, Cluster, http_target, soon};
use quinn::crypto::rustls::QuicClientConfig;
use specter_server::identity::tls;
use specter_wire::{
    codec,
    error::ErrorCode,
    stream::{StreamHeader, StreamKind},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// A relay connection as a node makes it, to do with as the test likes.
async fn rogue(cluster: &Cluster, node: usize) -> (quinn::Endpoint, quinn::Connection) {
    let tls = tls::relay(&cluster.credentials(1)).expect("TLS");
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("an endpoint");
    let crypto = QuicClientConfig::try_from(tls).expect("QUIC");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let dialed = endpoint.connect(cluster.nodes[node].udp, "localhost").expect("dialed");
    let connection = soon("a connection", dialed).await.expect("connected");
    (endpoint, connection)
}

fn header(hostname: &str, kind: StreamKind) -> Vec<u8> {
    let visitor = SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into();
    let mut buffer = [0; 512];
    codec::encode(&StreamHeader { kind, hostname, visitor }, &mut buffer).expect("fits").to_vec()
}

/// What the node says to these bytes.
async fn answer(connection: &quinn::Connection, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    send.write_all(bytes).await.expect("sent");
    send.finish().expect("open");
    soon("the answer", recv.read_to_end(64)).await.expect("an end")
}

#[tokio::test]
async fn a_node_that_talks_nonsense_or_nothing_harms_nobody() {
    let cluster = Cluster::start(2).await;
    let target = http_target("hello").await;
    let client = Client::start(cluster.client_config("a.yaml", 0, &format!("- target: http://{target}\n"))).await;
    let label = client.host.split('.').next().expect("a label");
    let (_endpoint, connection) = rogue(&cluster, 0).await;

    let malformed = [ErrorCode::Malformed.number()];
    let nothing: &[&[u8]] = &[b"", b"\x05", &[0xff; 40], b"\x00\x00", b"\x03\x00abc", b"\x20\x00short"];
    for bytes in nothing {
        assert_eq!(answer(&connection, bytes).await, malformed, "{bytes:?}");
    }
    assert_eq!(answer(&connection, &header("Not A Name", StreamKind::Http1)).await, malformed);
    let nobody = answer(&connection, &header("nobody-here", StreamKind::Http1)).await;
    assert_eq!(nobody, [ErrorCode::NoLiveLink.number()]);
    // The gateway's headers cannot be got around by another node either.
    let raw = answer(&connection, &header(label, StreamKind::Raw)).await;
    assert_eq!(raw, [ErrorCode::WrongKind.number()]);

    // As many silent streams as it may have, and more.
    let mut held = Vec::new();
    while let Ok(Ok((mut send, recv))) = timeout(Duration::from_millis(300), connection.open_bi()).await {
        send.write_all(b"\x40").await.expect("sent");
        held.push((send, recv));
    }
    assert!(held.len() <= 16_384, "{}", held.len());
    for node in 0..2 {
        assert_eq!(cluster.get(node, &client.host).await.status, 200);
    }
    let (mut send, mut recv) = held.pop().expect("a stream");
    assert_eq!(soon("the node's patience", recv.read_to_end(9)).await.expect("an end"), malformed);
    send.write_all(b"more").await.expect_err("it is over");
}

#[tokio::test]
async fn a_certificate_of_a_node_is_needed_to_pass_streams_on() {
    let cluster = Cluster::start(1).await;
    let credentials = cluster.credentials(0);
    let mut tls = tls::relay(&credentials).expect("TLS");
    tls.client_auth_cert_resolver = Arc::new(Nobody);
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("an endpoint");
    let crypto = QuicClientConfig::try_from(tls).expect("QUIC");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let dialed = soon("an answer", endpoint.connect(cluster.nodes[0].udp, "localhost").expect("dialed")).await;
    let Ok(connection) = dialed else { return };
    soon("the end", connection.closed()).await;
}

/// Shows no certificate.
#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
