use super::*;
use quinn::{
    ClientConfig, Connection, ConnectionError, TokioRuntime, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::RootCertStore;
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::time::Duration;
use tokio::{io::DuplexStream, time::timeout};

/// Longest that a test waits.
const DEADLINE: Duration = Duration::from_secs(60);

fn address() -> SocketAddr {
    "192.0.2.7:443".parse().expect("an address")
}

fn settings() -> (ServerConfig, ClientConfig) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
    let certificate = own.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = [&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a key");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut transport = TransportConfig::default();
    tune(&mut transport);
    let transport = Arc::new(transport);
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).expect("QUIC")));
    server.transport_config(transport.clone());
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).expect("QUIC")));
    client.transport_config(transport);
    (server, client)
}

/// Both ends of a connection over a pipe that holds so many bytes.
struct Pair {
    near: (Carried, Connection),
    far: (Carried, Connection),
}

fn carried(stream: DuplexStream, server: Option<ServerConfig>) -> Carried {
    Carried::new(stream, address(), EndpointConfig::default(), server, Arc::new(TokioRuntime)).expect("an endpoint")
}

impl Pair {
    async fn new(pipe_bytes: usize) -> Self {
        let (near, far) = tokio::io::duplex(pipe_bytes);
        let (server, client) = settings();
        let (near, far) = (carried(near, None), carried(far, Some(server)));
        let dial = near.endpoint.connect_with(client, address(), "localhost").expect("settings");
        let accept = async { far.endpoint.accept().await.expect("an attempt").await };
        let (dialled, accepted) = timeout(DEADLINE, async { tokio::join!(dial, accept) }).await.expect("in time");
        Self { near: (near, dialled.expect("a connection")), far: (far, accepted.expect("a connection")) }
    }
}

/// Answers with what it hears, to its end.
async fn repeat(connection: &Connection) {
    let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
    while let Some(chunk) = recv.read_chunk(64 << 10, true).await.expect("bytes") {
        send.write_chunk(chunk.bytes).await.expect("taken");
    }
    send.finish().expect("not ended before");
}

#[tokio::test]
async fn megabytes_pass_both_ways_through_a_pipe_of_any_width() {
    for pipe_bytes in [100, 4 << 10, 1 << 20] {
        let pair = Pair::new(pipe_bytes).await;
        let said: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let speaking = async {
            let (mut send, mut recv) = pair.near.1.open_bi().await.expect("a stream");
            let write = async {
                send.write_all(&said).await.expect("taken");
                send.finish().expect("not ended before");
            };
            tokio::join!(write, recv.read_to_end(said.len())).1.expect("an answer")
        };
        let both = async { tokio::join!(speaking, repeat(&pair.far.1)).0 };
        let heard = timeout(DEADLINE, both).await.expect("in time");
        assert!(heard == said, "{pipe_bytes}");
        let path = pair.near.1.stats().path;
        assert_eq!(path.current_mtu, PACKET_BYTES);
        assert_eq!(path.lost_packets, 0, "nothing is lost in a pipe of {pipe_bytes} bytes");
    }
}

#[tokio::test]
async fn resets_and_stops_keep_their_numbers_and_their_direction() {
    let pair = Pair::new(4 << 10).await;
    let (mut send, mut recv) = pair.near.1.open_bi().await.expect("a stream");
    send.write_all(b"hello").await.expect("taken");
    let (mut back, mut heard) = pair.far.1.accept_bi().await.expect("a stream");
    heard.stop(VarInt::from_u32(7)).expect("still open");
    assert_eq!(send.stopped().await.expect("a stop"), Some(VarInt::from_u32(7)));
    back.write_all(b"still here").await.expect("taken");
    back.finish().expect("still open");
    assert_eq!(recv.read_to_end(99).await.expect("the other direction goes on"), b"still here");
}

#[tokio::test]
async fn the_end_of_the_stream_is_told_and_a_farewell_before_it_is_heard() {
    let Pair { near, far } = Pair::new(4 << 10).await;
    near.1.close(VarInt::from_u32(5), b"enough");
    timeout(DEADLINE, near.0.endpoint.wait_idle()).await.expect("in time");
    drop(near);
    let error = timeout(DEADLINE, far.1.closed()).await.expect("in time");
    assert!(matches!(&error, ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(5)));
    let lost = timeout(DEADLINE, far.0.lost()).await.expect("in time");
    assert_eq!(lost.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn garbage_ends_the_stream_and_not_the_program() {
    for garbage in [&[0xff_u8; 4096][..], &[0; 4096], b"GET / HTTP/1.1\r\n\r\n"] {
        let (mut stranger, far) = tokio::io::duplex(1 << 20);
        let far = carried(far, Some(settings().0));
        tokio::io::AsyncWriteExt::write_all(&mut stranger, garbage).await.expect("taken");
        let lost = timeout(DEADLINE, far.lost()).await.expect("in time");
        assert_eq!(lost.kind(), io::ErrorKind::InvalidData, "{garbage:?}");
    }
}

#[tokio::test]
async fn who_is_asked_for_a_sign_of_life_gives_one() {
    let pair = Pair::new(4 << 10).await;
    let mut quiet = pair.near.1.stats().udp_rx.datagrams;
    // What ends the handshake may still be on its way.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
        quiet = pair.near.1.stats().udp_rx.datagrams;
    }
    pair.near.0.ask();
    let answered = async {
        while pair.near.1.stats().udp_rx.datagrams == quiet {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, answered).await.expect("an answer");
}
