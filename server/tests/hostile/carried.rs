//! The same over TCP, where links come by a visitor's port.

use super::*;
use quinn::{EndpointConfig, TokioRuntime, TransportConfig};
use specter_carry::Carried;

impl Node {
    /// A link's TLS with nothing in it, and the settings to go on from there.
    async fn link_stream(&self) -> (TlsStream<TcpStream>, quinn::ClientConfig) {
        let mut tls = self.tls(ALPN_LINK);
        tls.resumption = rustls::client::Resumption::disabled();
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")));
        let mut transport = TransportConfig::default();
        specter_carry::tune(&mut transport);
        transport.keep_alive_interval(Some(Duration::from_secs(8)));
        config.transport_config(Arc::new(transport));
        (self.visit("localhost", ALPN_LINK).await, config)
    }

    /// A link over TCP without any certificate; none if the node has no room for it.
    async fn stranger_over_tcp(&self) -> Option<(Carried, quinn::Connection)> {
        let (stream, config) = self.link_stream().await;
        let config_of_endpoint = EndpointConfig::default();
        let carried = Carried::new(stream, self.tcp(), config_of_endpoint, None, Arc::new(TokioRuntime));
        let carried = carried.expect("an endpoint");
        let dialled = carried.endpoint.connect_with(config, self.tcp(), "localhost").expect("dialled");
        let connection = tokio::select! {
            connection = soon("an answer", dialled) => connection.ok()?,
            _ = carried.lost() => return None,
        };
        Some((carried, connection))
    }
}

/// Waits until the node hangs up.
async fn hung_up(what: &str, mut stream: TlsStream<TcpStream>) {
    let mut rest = Vec::new();
    // An end and an error are the same here.
    soon(what, stream.read_to_end(&mut rest)).await.ok();
}

#[tokio::test]
async fn who_speaks_no_quic_after_the_name_of_the_protocol_is_hung_up_on() {
    let node = Node::start().await;
    let packets: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000], &[0; 2], &[0x05, 0xc1, 0, 0]];
    for garbage in packets {
        let (mut stream, _) = node.link_stream().await;
        // The node may hang up before it has read all.
        stream.write_all(garbage).await.ok();
        hung_up("the end of garbage", stream).await;
    }
    let (mut stream, _) = node.link_stream().await;
    // As long as a packet may be, and none.
    for _ in 0..1000 {
        let packet = [&1472_u16.to_be_bytes()[..], &[0x40; 1472]].concat();
        if stream.write_all(&packet).await.is_err() {
            break;
        }
    }
    hung_up("the end of packets of nobody", stream).await;
    let (silent, _) = node.link_stream().await;
    hung_up("the end of silence", silent).await;
}

#[tokio::test]
async fn a_stranger_over_tcp_can_make_the_node_hold_little() {
    let node = Node::start().await;
    let (carried, connection) = node.stranger_over_tcp().await.expect("a link");
    let taken = taken_from(&connection).await;
    assert!(taken <= 256 << 10, "{taken} bytes");
    let (_, config) = node.link_stream().await;
    let second = carried.endpoint.connect_with(config, node.tcp(), "localhost").expect("dialled");
    assert!(timeout(Duration::from_secs(1), second).await.is_err(), "a stream carries one link");
}

#[tokio::test]
async fn strangers_over_tcp_who_dawdle_keep_nobody_else_out() {
    let node = Node::start().await;
    let address = target(|_| Some(HELLO)).await;
    let config = node.client_config("client.yaml", &format!("  - target: http://{address}\ntransport: tcp\n"));
    drop(Client::start(config.clone()).await);
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let Some((carried, connection)) = node.stranger_over_tcp().await else { break };
        let Some(control) = soon("a welcome", greet(&connection)).await else { break };
        strangers.push((carried, connection, control));
    }
    assert!(strangers.len() < STRANGERS, "strangers from one address take all the room there is");
    let client = Client::start(config).await;
    assert_eq!(node.status(&client.host).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_client_over_tcp_that_is_killed_is_missed_at_once() {
    let node = Node::start().await;
    let address = target(|_| Some(HELLO)).await;
    let config = node.client_config("client.yaml", &format!("  - target: http://{address}\ntransport: tcp\n"));
    let mut client = Client::start(config).await;
    assert_eq!(node.post(&client.host).await, "HTTP/1.1 200 OK");
    client.kill();
    let missed = async {
        while node.post(&client.host).await != "HTTP/1.1 503 Service Unavailable" {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the link", missed).await;
}
