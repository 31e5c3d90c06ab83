//! Clients that only hold a link: many in one process, speaking the wire protocol themselves.
//!
//! Each has a key, registers it on its link, and can publish one tunnel. Unless told to live, their links answer QUIC's
//! keep-alive and nothing else.

use crate::Outcome;
use heapless::Vec as Batch;
use quinn::{
    ClientConfig, Connection, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use specter_wire::{
    codec::{self, PREFIX_BYTES},
    limits::CONTROL_FRAME_BYTES,
    link::{
        Carries, ClientFrame, EXPORTER_BYTES, EXPORTER_LABEL, HostHeader, NodeFrame, Reply, Request, Tunnel,
        leading_zero_bits, signature_input, work_input,
    },
    version::ALPN_LINK,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// A client's link.
pub(crate) struct Link {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    asked: u32,
}

/// Sockets that the links share: clients of a real node come from many ports.
const SOCKETS: usize = 4;

/// Handshakes at a time: few enough that the node does not ask for address validation.
const HANDSHAKES: usize = 32;

/// Streams that a node may open to a client: what `client-lite` allows.
const STREAMS: u32 = 1024;

/// Opens `count` registered links to a node.
pub(crate) async fn open(node: SocketAddr, authority: &CertificateDer<'static>, count: usize) -> Outcome<Vec<Link>> {
    let config = config(authority)?;
    let endpoints = (0..SOCKETS)
        .map(|_| Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))))
        .collect::<std::io::Result<Vec<_>>>()?;
    let (mut links, mut opening) = (Vec::with_capacity(count), JoinSet::new());
    for endpoint in endpoints.iter().cycle().take(count) {
        if opening.len() >= HANDSHAKES
            && let Some(opened) = opening.join_next().await
        {
            links.push(opened??);
        }
        opening.spawn(Link::open(endpoint.clone(), config.clone(), node, seed()?));
    }
    while let Some(opened) = opening.join_next().await {
        links.push(opened??);
    }
    Ok(links)
}

/// Gives every link a hostname and publishes a tunnel under it.
pub(crate) async fn publish(links: &mut [Link]) -> Outcome<()> {
    for link in links {
        let name = link.claim().await?;
        link.publish(&name).await?;
    }
    Ok(())
}

/// What a client is known by: the seed of its key.
pub(crate) fn seed() -> Outcome<[u8; 32]> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| "the system gives no random numbers")?;
    Ok(seed)
}

/// How links trust nodes of this authority, and how many streams they take.
pub(crate) fn config(authority: &CertificateDer<'static>) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_LINK.to_vec()];
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_idle_timeout(Some(IdleTimeout::try_from(Duration::from_secs(30))?))
        .keep_alive_interval(Some(Duration::from_secs(10)));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

impl Link {
    /// Opens a link and registers the client with that seed on it.
    pub(crate) async fn open(
        endpoint: Endpoint,
        config: ClientConfig,
        node: SocketAddr,
        seed: [u8; 32],
    ) -> Outcome<Self> {
        let connection = endpoint.connect_with(config, node, "localhost")?.await?;
        let (send, receive) = connection.open_bi().await?;
        let mut link = Self { connection, send, receive, asked: 0 };
        let instance = u64::from(u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]));
        let work_bits = link
            .ask(Request::Hello { instance, agent: "bench" }, |reply| match reply {
                Reply::Welcome { work_bits, .. } => Some(*work_bits),
                _ => None,
            })
            .await?;
        link.register(&seed, work_bits).await?;
        Ok(link)
    }

    /// The connection, for streams of visitors.
    pub(crate) fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// Asks for a hostname.
    pub(crate) async fn claim(&mut self) -> Outcome<String> {
        self.ask(Request::Claim { count: 1 }, |reply| match reply {
            Reply::Hostnames { names, .. } => Some((*names.first()?).to_owned()),
            _ => None,
        })
        .await
    }

    /// Publishes a tunnel under a hostname that the client owns.
    pub(crate) async fn publish(&mut self, name: &str) -> Outcome<()> {
        let host = HostHeader::Hostname;
        let tunnel = Tunnel { hostname: name, carries: Carries::Http, host, header_timeout_ms: 15_000 };
        let request = Request::Publish { tunnels: Batch::from_iter([tunnel]) };
        self.ask(request, |reply| match reply {
            Reply::Outcomes { outcomes } => matches!(outcomes.as_slice(), [None]).then_some(()),
            _ => None,
        })
        .await
    }

    async fn register(&mut self, seed: &[u8; 32], work_bits: u8) -> Outcome<()> {
        let mut exporter = [0; EXPORTER_BYTES];
        let exported = self.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"");
        exported.map_err(|_| "the connection exports no key")?;
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| "32 bytes are no key")?;
        let public_key: [u8; 32] = key.public_key().as_ref().try_into()?;
        let proves = |counter: &u64| {
            let hash = digest(&SHA256, &work_input(&exporter, &public_key, *counter));
            leading_zero_bits(hash.as_ref()) >= u32::from(work_bits)
        };
        let counter = (0..).find(proves).ok_or("no counter proves the work")?;
        let signature = key.sign(&signature_input(&exporter));
        let request = Request::Register { public_key: &public_key, signature: signature.as_ref(), counter };
        self.ask(request, |reply| match reply {
            Reply::Certificate { .. } => Some(()),
            _ => None,
        })
        .await
    }

    /// Sends a request and waits for the reply, which `wanted` must take.
    async fn ask<T>(&mut self, request: Request<'_>, wanted: impl FnOnce(&Reply<'_>) -> Option<T>) -> Outcome<T> {
        self.asked += 1;
        let id = self.asked;
        send(&mut self.send, &ClientFrame { id, request }).await?;
        loop {
            let body = self.frame().await?;
            let frame: NodeFrame<'_> = codec::decode(&body)?;
            // What comes unasked has number 0.
            if frame.id == id {
                return wanted(&frame.reply).ok_or_else(|| format!("the node replied {:?}", frame.reply).into());
            }
            self.pong(&frame.reply).await?;
        }
    }

    /// Answers pings until the link ends.
    pub(crate) async fn live(mut self) -> Outcome<()> {
        loop {
            let body = self.frame().await?;
            self.pong(&codec::decode::<NodeFrame<'_>>(&body)?.reply).await?;
        }
    }

    async fn pong(&mut self, reply: &Reply<'_>) -> Outcome<()> {
        if let Reply::Ping { nonce } = reply {
            self.asked += 1;
            let request = Request::Pong { nonce: *nonce };
            send(&mut self.send, &ClientFrame { id: self.asked, request }).await?;
        }
        Ok(())
    }

    async fn frame(&mut self) -> Outcome<Vec<u8>> {
        let mut prefix = [0; PREFIX_BYTES];
        self.receive.read_exact(&mut prefix).await?;
        let mut body = vec![0; codec::body_length(prefix, CONTROL_FRAME_BYTES)?];
        self.receive.read_exact(&mut body).await?;
        Ok(body)
    }
}

async fn send(stream: &mut SendStream, message: &impl Serialize) -> Outcome<()> {
    let mut buffer = vec![0; 1024];
    let frame = codec::encode(message, &mut buffer)?;
    Ok(stream.write_all(frame).await?)
}
