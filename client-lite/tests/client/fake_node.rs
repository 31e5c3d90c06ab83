//! Nodes in the test's own process: a QUIC endpoint each, one store in memory, and levers to make them misbehave.

use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt, crypto::rustls::QuicServerConfig};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use specter_wire::{
    codec,
    error::ErrorCode,
    id::NodeId,
    limits::CONTROL_FRAME_BYTES,
    link::{self, ClientFrame, Neighbour, NodeFrame, Reply, Request},
    stream::{StreamHeader, StreamKind},
    version::ALPN_LINK,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// Longest that any test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What a client did.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Seen {
    Hello { certificate: bool, instance: u64 },
    Registered,
    Renewed,
    Listed,
    Claimed(usize),
    Published(Vec<String>),
    Unpublished(Vec<String>),
    Released(Vec<String>),
}

/// How the node behaves.
#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    pub(crate) work_bits: u8,
    /// Hostnames that are refused when published, and why.
    pub(crate) refuse: BTreeMap<String, ErrorCode>,
    /// Whether certificates are old when they are given.
    pub(crate) old_certificates: bool,
    /// Whether certificates of clients are taken at all.
    pub(crate) distrust_clients: bool,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    owned: Vec<String>,
    claimed: usize,
}

/// What a node says unasked.
#[derive(Clone, Default)]
struct Unasked {
    neighbours: Vec<Neighbour>,
    draining: bool,
}

pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    pub(crate) port: u16,
    unasked: watch::Sender<Unasked>,
    pub(crate) ca_pem: String,
    endpoint: Endpoint,
    config: quinn::ServerConfig,
    state: Arc<Mutex<State>>,
    seen: mpsc::Receiver<Seen>,
    connections: mpsc::Receiver<Connection>,
}

/// The certificates of a cluster.
pub(crate) struct Authority {
    pub(crate) ca_pem: String,
    ca: Issuer<'static, KeyPair>,
    client_ca: Issuer<'static, KeyPair>,
    client_ca_der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let make = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            (certificate, Issuer::new(params, key))
        };
        let (ca_certificate, ca) = make();
        let (client_ca_certificate, client_ca) = make();
        Self { ca_pem: ca_certificate.pem(), ca, client_ca, client_ca_der: client_ca_certificate.der().clone() }
    }

    /// A server certificate for names, with its key.
    pub(crate) fn server(&self, names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.ca).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn client_pem(&self, public_key: &[u8], years: (i32, i32)) -> String {
        struct Raw<'a>(&'a [u8]);
        impl PublicKeyData for Raw<'_> {
            fn der_bytes(&self) -> &[u8] {
                self.0
            }
            fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
                &rcgen::PKCS_ED25519
            }
        }
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        params.signed_by(&Raw(public_key), &self.client_ca).unwrap().pem()
    }
}

impl FakeNode {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::cluster(1, behaviour).await.remove(0)
    }

    /// Nodes that share a store and name each other.
    pub(crate) async fn cluster(count: u8, behaviour: Behaviour) -> Vec<Self> {
        let authority = Arc::new(Authority::new());
        let state = Arc::new(Mutex::new(State { behaviour, ..State::default() }));
        let nodes: Vec<Self> = (1..=count).map(|number| Self::open(NodeId([number; 16]), &authority, &state)).collect();
        let neighbours: Vec<Neighbour> = nodes.iter().map(Self::neighbour).collect();
        for node in &nodes {
            node.name(neighbours.iter().copied().filter(|neighbour| neighbour.node != node.id).collect());
        }
        nodes
    }

    fn open(id: NodeId, authority: &Arc<Authority>, state: &Arc<Mutex<State>>) -> Self {
        let behaviour = state.lock().unwrap().behaviour.clone();
        let (certificate, key) = authority.server(&["localhost"]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        if behaviour.distrust_clients {
            roots.add(Authority::new().client_ca_der).unwrap();
        } else {
            roots.add(authority.client_ca_der.clone()).unwrap();
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN_LINK.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config.clone(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let unasked = watch::Sender::new(Unasked::default());
        let (seen_sender, seen) = mpsc::channel(1024);
        let (connection_sender, connections) = mpsc::channel(64);
        let (accepting, shared) = (endpoint.clone(), (state.clone(), authority.clone(), unasked.clone()));
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let (shared, seen, connections) = (shared.clone(), seen_sender.clone(), connection_sender.clone());
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    connections.send(connection.clone()).await.ok();
                    let (state, authority, unasked) = shared;
                    Control { id, connection, state, authority, unasked, seen }.run().await;
                });
            }
        });
        let port = endpoint.local_addr().unwrap().port();
        let ca_pem = authority.ca_pem.clone();
        Self { id, port, unasked, ca_pem, endpoint, config, state: state.clone(), seen, connections }
    }

    /// How other nodes name this one.
    pub(crate) fn neighbour(&self) -> Neighbour {
        Neighbour { node: self.id, address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)).into() }
    }

    /// Names these nodes to every client, those that are linked and those that come.
    pub(crate) fn name(&self, neighbours: Vec<Neighbour>) {
        self.unasked.send_modify(|unasked| unasked.neighbours = neighbours);
    }

    /// Tells every client that this node goes away, and refuses those that come.
    pub(crate) fn drain(&self) {
        self.unasked.send_modify(|unasked| unasked.draining = true);
        self.go_away();
    }

    /// Ends: links are closed, and nobody answers any more.
    pub(crate) fn die(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"");
    }

    /// Closes the links there are.
    pub(crate) fn close_links(&mut self) {
        while let Ok(connection) = self.connections.try_recv() {
            connection.close(VarInt::from_u32(0), b"");
        }
    }

    /// Ends without a word, like a machine without power: what clients send is not heard any more.
    pub(crate) fn vanish(&self) {
        self.go_away();
        self.endpoint.rebind(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
    }

    /// Takes no links until [`FakeNode::come_back`]. Those that are open go on.
    pub(crate) fn go_away(&self) {
        self.endpoint.set_server_config(None);
    }

    pub(crate) fn come_back(&self) {
        self.endpoint.set_server_config(Some(self.config.clone()));
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    pub(crate) fn own(&self, hostnames: &[&str]) {
        self.state.lock().unwrap().owned.extend(hostnames.iter().map(|name| (*name).to_owned()));
    }

    pub(crate) fn owned(&self) -> Vec<String> {
        self.state.lock().unwrap().owned.clone()
    }

    /// The next thing a client does.
    pub(crate) async fn seen(&mut self) -> Seen {
        timeout(DEADLINE, self.seen.recv()).await.expect("the client does something in time").unwrap()
    }

    /// What clients do up to and including the first that `last` picks.
    pub(crate) async fn seen_until(&mut self, last: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let mut all = Vec::new();
        loop {
            all.push(self.seen().await);
            if all.last().is_some_and(&last) {
                return all;
            }
        }
    }

    /// The next connection that a client opens.
    pub(crate) async fn connection(&mut self) -> Connection {
        timeout(DEADLINE, self.connections.recv()).await.expect("a connection in time").unwrap()
    }
}

/// Opens a visitor's stream with its first bytes.
pub(crate) async fn open(
    connection: &Connection,
    hostname: &str,
    kind: StreamKind,
    first: &[u8],
) -> (SendStream, RecvStream) {
    let visitor = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 4711)).into();
    let mut buffer = [0; 512];
    let header = codec::encode(&StreamHeader { kind, hostname, visitor }, &mut buffer).unwrap();
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(&[header, first].concat()).await.unwrap();
    (send, receive)
}

/// One link's control stream.
struct Control {
    id: NodeId,
    unasked: watch::Sender<Unasked>,
    connection: Connection,
    state: Arc<Mutex<State>>,
    authority: Arc<Authority>,
    seen: mpsc::Sender<Seen>,
}

impl Control {
    async fn run(self) -> Option<()> {
        let (send, mut receive) = self.connection.accept_bi().await.ok()?;
        let send = Arc::new(tokio::sync::Mutex::new(send));
        let mut registered = self.connection.peer_identity().is_some();
        let mut key = self.identity();
        loop {
            let body = read_frame(&mut receive).await?;
            let ClientFrame { id, request } = codec::decode(&body).expect("a request");
            let mut names = Vec::new();
            let pem;
            let reply = match request {
                Request::Hello { instance, agent } => {
                    assert!(link::is_agent(agent));
                    self.see(Seen::Hello { certificate: registered, instance }).await;
                    let work_bits = self.state.lock().unwrap().behaviour.work_bits;
                    tokio::spawn(say_unasked(self.unasked.subscribe(), send.clone()));
                    Reply::Welcome { node: self.id, registered, work_bits, apex: "localhost", port: 443 }
                }
                Request::Register { public_key, signature, counter } => {
                    self.check_proof(public_key, signature, counter);
                    self.see(Seen::Registered).await;
                    registered = true;
                    key = public_key.to_vec();
                    pem = self.certificate(&key);
                    Reply::Certificate { pem: &pem }
                }
                Request::Renew => {
                    self.state.lock().unwrap().behaviour.old_certificates = false;
                    self.see(Seen::Renewed).await;
                    pem = self.certificate(&key);
                    Reply::Certificate { pem: &pem }
                }
                _ if !registered => Reply::Refused { code: ErrorCode::NotRegistered },
                Request::Hostnames { after } => {
                    self.see(Seen::Listed).await;
                    names = self.state.lock().unwrap().owned.clone();
                    names.sort();
                    names.retain(|name| name.as_str() > after);
                    let more = names.len() > 64;
                    names.truncate(64);
                    Reply::Hostnames { names: names.iter().map(String::as_str).collect(), more }
                }
                Request::Claim { count } => {
                    self.see(Seen::Claimed(usize::from(count))).await;
                    let mut state = self.state.lock().unwrap();
                    for _ in 0..count {
                        state.claimed += 1;
                        names.push(format!("claimed-name-{:03}", state.claimed));
                    }
                    state.owned.extend(names.iter().cloned());
                    Reply::Hostnames { names: names.iter().map(String::as_str).collect(), more: false }
                }
                Request::Publish { tunnels } => {
                    assert!(tunnels.iter().all(link::Tunnel::is_within_bounds));
                    let hostnames = tunnels.iter().map(|tunnel| tunnel.hostname.to_owned()).collect();
                    self.see(Seen::Published(hostnames)).await;
                    let state = self.state.lock().unwrap();
                    let outcome = |name: &str| match state.behaviour.refuse.get(name) {
                        Some(code) => Some(*code),
                        None if state.owned.iter().any(|owned| owned == name) => None,
                        None => Some(ErrorCode::NotOwner),
                    };
                    Reply::Outcomes { outcomes: tunnels.iter().map(|tunnel| outcome(tunnel.hostname)).collect() }
                }
                Request::Release { hostnames } => {
                    let released: Vec<String> = hostnames.iter().map(|name| (*name).to_owned()).collect();
                    self.state.lock().unwrap().owned.retain(|name| !released.contains(name));
                    self.see(Seen::Released(released)).await;
                    Reply::Outcomes { outcomes: hostnames.iter().map(|_| None).collect() }
                }
                Request::Unpublish { hostnames } => {
                    self.see(Seen::Unpublished(hostnames.iter().map(|name| (*name).to_owned()).collect())).await;
                    Reply::Outcomes { outcomes: hostnames.iter().map(|_| None).collect() }
                }
                Request::Pong { .. } => continue,
            };
            let mut buffer = vec![0; CONTROL_FRAME_BYTES + 2];
            let frame = codec::encode(&NodeFrame { id, reply }, &mut buffer).unwrap();
            send.lock().await.write_all(frame).await.ok()?;
        }
    }

    async fn see(&self, seen: Seen) {
        self.seen.send(seen).await.ok();
    }

    /// The public key in the client's certificate: the last 32 bytes of its key information.
    fn identity(&self) -> Vec<u8> {
        let Some(identity) = self.connection.peer_identity() else { return Vec::new() };
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().unwrap();
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let at = chain[0].windows(prefix.len()).position(|window| window == prefix).unwrap() + prefix.len();
        chain[0][at..at + 32].to_vec()
    }

    fn certificate(&self, public_key: &[u8]) -> String {
        let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let year = 1970 + i32::try_from(now_s / 31_556_952).unwrap();
        let old = self.state.lock().unwrap().behaviour.old_certificates;
        let first = if old { year - 20 } else { year };
        self.authority.client_pem(public_key, (first, year + 2))
    }

    fn check_proof(&self, public_key: &[u8], signature: &[u8], counter: u64) {
        let mut exporter = [0; link::EXPORTER_BYTES];
        self.connection.export_keying_material(&mut exporter, link::EXPORTER_LABEL, b"").unwrap();
        let key: [u8; 32] = public_key.try_into().unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, &link::work_input(&exporter, &key, counter));
        let bits = self.state.lock().unwrap().behaviour.work_bits;
        assert!(link::leading_zero_bits(hash.as_ref()) >= u32::from(bits));
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
            .verify(&link::signature_input(&exporter), signature)
            .unwrap();
    }
}

/// Names the neighbours, and again when they change, and tells that the node goes away.
async fn say_unasked(mut unasked: watch::Receiver<Unasked>, send: Arc<tokio::sync::Mutex<SendStream>>) -> Option<()> {
    let mut named = Vec::new();
    loop {
        let Unasked { neighbours, draining } = unasked.borrow_and_update().clone();
        let mut buffer = vec![0; CONTROL_FRAME_BYTES + 2];
        if neighbours != named {
            let reply = Reply::Neighbours { nodes: neighbours.iter().copied().collect() };
            let frame = codec::encode(&NodeFrame { id: 0, reply }, &mut buffer).unwrap();
            send.lock().await.write_all(frame).await.ok()?;
            named = neighbours;
        }
        if draining {
            let frame = codec::encode(&NodeFrame { id: 0, reply: Reply::Draining }, &mut buffer).unwrap();
            send.lock().await.write_all(frame).await.ok()?;
            return None;
        }
        unasked.changed().await.ok()?;
    }
}

async fn read_frame(receive: &mut RecvStream) -> Option<Vec<u8>> {
    let mut prefix = [0; 2];
    receive.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; codec::body_length(prefix, CONTROL_FRAME_BYTES).unwrap()];
    receive.read_exact(&mut body).await.ok()?;
    Some(body)
}
