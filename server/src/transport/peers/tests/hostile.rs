//! Those who are no nodes of the cluster, and nodes that misbehave.

use super::*;
use crate::identity::{ClusterId, provider, verifier};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use specter_wire::version::{ALPN_LINK, ALPN_NODE};

impl Cluster {
    /// Credentials whose certificate one of the cluster's authorities signed, and which names a node of `cluster`.
    fn forged(&self, authority: &str, cluster: ClusterId) -> Credentials {
        let folder = self.folder.path().join("0");
        let ca_key = std::fs::read_to_string(folder.join(format!("{authority}.key"))).expect("a key");
        let ca = std::fs::read(folder.join(format!("{authority}.crt"))).expect("a certificate");
        let ca = CertificateDer::from_pem_slice(&ca).expect("PEM");
        let issuer = Issuer::from_ca_cert_der(&ca, KeyPair::from_pem(&ca_key).expect("a key")).expect("a CA");
        let credentials = self.credentials();
        let mut params = CertificateParams::default();
        let uri = format!("specter://node/{cluster}/{}", credentials.node_id);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("signed").der().clone();
        showing(certificate, &key, credentials)
    }

    /// Credentials of a node that shows the certificate of a registered client.
    fn client(&self) -> Credentials {
        let credentials = self.credentials();
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let public_key = key.public_key_raw().try_into().expect("32 bytes");
        let pem = credentials.client_ca.issue(&public_key, SystemTime::now()).expect("issued");
        showing(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM"), &key, credentials)
    }
}

fn showing(certificate: CertificateDer<'static>, key: &KeyPair, credentials: Credentials) -> Credentials {
    let node_key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Credentials { node_chain: vec![certificate], node_key, ..credentials }
}

/// Dials a node with these settings and nothing of ours behind them.
async fn dial(mut tls: ClientConfig, alpn: &[u8], node: &Node) -> Result<Connection, ConnectionError> {
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut endpoint = Endpoint::client(ANY).expect("an endpoint");
    let crypto = QuicClientConfig::try_from(tls).expect("QUIC");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    soon("a handshake", endpoint.connect(node.address, "localhost").expect("dialed")).await
}

/// A connection as a node makes it, to do with as it likes.
async fn rogue(cluster: &Cluster, node: &Node) -> Connection {
    dial(tls::dial(&cluster.credentials()).expect("TLS"), ALPN_NODE, node).await.expect("connected")
}

fn is_closed_with(error: &ConnectionError, code: u32) -> bool {
    matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == code.into())
}

#[tokio::test]
async fn whoever_is_no_node_of_the_cluster_is_refused_in_both_directions() {
    let cluster = Cluster::new();
    let ours = cluster.credentials();
    let (cluster_ca, cluster_id) = (ours.cluster_ca, ours.cluster_id);
    let strangers = [
        ("another cluster's", Cluster::new().credentials()),
        ("another cluster's that trusts ours", Credentials { cluster_ca, cluster_id, ..Cluster::new().credentials() }),
        ("another cluster's of our CA", Credentials { cluster_id, ..cluster.forged("ca", ClusterId([9; 16])) }),
        ("the client CA's", cluster.forged("client-ca", cluster_id)),
        ("the gateway CA's", cluster.forged("gateway-ca", cluster_id)),
        ("a client", cluster.client()),
    ];
    for (who, credentials) in strangers {
        let mut node = cluster.node();
        let mut stranger = Node::start(&credentials, ANY, 64);
        node.peers.send(stranger.address, packet(1));
        assert_eq!(node.arrival().await, Arrival::Unreachable { address: stranger.address }, "{who}");
        stranger.peers.send(node.address, packet(1));
        assert_eq!(stranger.arrival().await, Arrival::Unreachable { address: node.address }, "{who}");
        assert_eq!((node.peers.counts().received, stranger.peers.counts().received), (0, 0), "{who}");
    }
    // They are refused for what their certificates say, and not because a test made them badly.
    let mut well_made = Node::start(&cluster.forged("ca", cluster_id), ANY, 64);
    cluster.node().reaches(&mut well_made).await;
}

#[tokio::test]
async fn a_certificate_is_good_for_its_own_protocol_only() {
    let cluster = Cluster::new();
    let node = cluster.node();
    let ours = cluster.credentials();
    let builder = || ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13]);
    let link = |shown: &Credentials| {
        let mut roots = RootCertStore::empty();
        roots.add(ours.gateway_ca.as_ref().expect("a gateway CA").certificate().clone()).expect("a root");
        let builder = builder().expect("versions").with_root_certificates(roots);
        builder.with_client_auth_cert(shown.node_chain.clone(), shown.node_key.clone_key()).expect("TLS")
    };
    let nobody = builder()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier::nodes(&ours.cluster_ca, ours.cluster_id))
        .with_no_client_auth();
    let client = cluster.client();
    for (who, tls, alpn, code) in [
        ("nobody as a node", nobody, ALPN_NODE, CLOSE_VIOLATION),
        ("a client as a node", tls::dial(&client).expect("TLS"), ALPN_NODE, CLOSE_VIOLATION),
        ("a node as a client", link(&ours), ALPN_LINK, CLOSE_VIOLATION),
        // The links of these tests end at once.
        ("a client as a client", link(&client), ALPN_LINK, CLOSE_NORMAL),
    ] {
        let connection = dial(tls, alpn, &node).await.expect(who);
        let error = soon("the end", connection.closed()).await;
        assert!(is_closed_with(&error, code), "{who}: {error}");
    }
    let connection = rogue(&cluster, &node).await;
    soon("room for a packet", connection.open_uni()).await.expect("a node as a node");
    dial(tls::dial(&ours).expect("TLS"), b"specter-node/2", &node).await.expect_err("nobody speaks it");
}

#[tokio::test]
async fn a_packet_that_is_too_long_ends_its_connection() {
    let cluster = Cluster::new();
    let mut node = cluster.node();
    let connection = rogue(&cluster, &node).await;
    let mut stream = soon("a stream", connection.open_uni()).await.expect("open");
    // The end may come meanwhile.
    let _ = soon("the bytes", stream.write_all(&packet(2 * PACKET_BYTES))).await;
    let error = soon("the end", connection.closed()).await;
    assert!(is_closed_with(&error, CLOSE_VIOLATION), "{error}");
    cluster.node().reaches(&mut node).await;
    assert_eq!(node.peers.counts().received, 1);
}

#[tokio::test]
async fn a_thousand_streams_without_end_hold_little_and_nobody_else_up() {
    let cluster = Cluster::new();
    let mut node = cluster.node();
    let connection = rogue(&cluster, &node).await;
    let mut streams = Vec::new();
    while streams.len() < 1_000
        && let Ok(stream) = timeout(Duration::from_secs(1), connection.open_uni()).await
    {
        streams.push(stream.expect("open"));
    }
    assert_eq!(streams.len(), STREAMS as usize);
    let taken = AtomicUsize::new(0);
    // On each as much as a packet may have, and never its end.
    let fill = streams.iter_mut().map(|stream| async {
        for _ in 0..PACKET_BYTES / 4_096 {
            if stream.write_all(&packet(4_096)).await.is_err() {
                return;
            }
            taken.fetch_add(4_096, Ordering::Relaxed);
        }
    });
    let mut fill = std::pin::pin!(futures_util::future::join_all(fill));
    // What is not taken in this time will not be.
    while let before = taken.load(Ordering::Relaxed)
        && timeout(Duration::from_millis(500), &mut fill).await.is_err()
        && taken.load(Ordering::Relaxed) > before
    {}
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 64 << 20, "{taken} bytes are held");
    cluster.node().reaches(&mut node).await;
}

#[tokio::test]
async fn a_packet_that_is_broken_off_does_not_arrive() {
    let cluster = Cluster::new();
    let mut node = cluster.node();
    let connection = rogue(&cluster, &node).await;
    let mut stream = soon("a stream", connection.open_uni()).await.expect("open");
    stream.write_all(&packet(100)).await.expect("written");
    stream.reset(0_u32.into()).expect("open");
    let mut stream = soon("a stream", connection.open_uni()).await.expect("open");
    stream.write_all(b"whole").await.expect("written");
    stream.finish().expect("open");
    assert_eq!(node.packet().await.1, "whole");
}

#[tokio::test]
async fn garbage_disturbs_no_packet() {
    let cluster = Cluster::new();
    let (one, mut two) = (cluster.node(), cluster.node());
    one.reaches(&mut two).await;
    let socket = UdpSocket::bind(ANY).expect("bound");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..5_000_usize {
        let mut datagram: Vec<u8> = (0..round % 1_400)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[0]
            })
            .collect();
        // Every other one looks like the first packet of a handshake in version 1.
        if round % 2 == 0 && datagram.len() > 6 {
            datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        // The kernel may have no room for more.
        let _ = socket.send_to(&datagram, two.address);
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    one.reaches(&mut two).await;
    cluster.node().reaches(&mut two).await;
}
