//! One visitor: a connection, a request, and what became of it, as a browser would judge.

use crate::{Outcome, target::page};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, ServerName};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a visitor waits for one answer.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Longest answer that is read.
const ANSWER_BYTES: usize = 64 << 10;

/// Why a visitor has no answer yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Nobody listens at that address: a browser tries the next one that the name has, and nobody notices.
    Refused,
    /// A connection that was kept from an earlier request had ended before a byte of the answer: a browser sends the
    /// request again on a new one, and nobody notices.
    Stale,
    /// The visitor sees an error.
    Failed(String),
    /// The visitor sees somebody else's page.
    Wrong(String),
}

/// What visitors trust and speak.
#[derive(Clone)]
pub struct Browser {
    connector: TlsConnector,
}

/// A connection to a gateway, for one hostname.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    host: String,
    is_used: bool,
    is_last: bool,
}

impl Browser {
    /// A browser that trusts one authority and speaks HTTP/1.1.
    ///
    /// # Errors
    /// If that is no authority.
    pub fn new(authority: &CertificateDer<'static>) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.resumption = Resumption::disabled();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(tls)) })
    }

    /// Connects to a gateway for `host`.
    ///
    /// # Errors
    /// [`Miss::Refused`] and [`Miss::Failed`].
    pub async fn connect(&self, gateway: SocketAddr, host: &str) -> Result<Connection, Miss> {
        let connecting = async {
            let stream = TcpStream::connect(gateway).await.map_err(|_| Miss::Refused)?;
            let failed = |what: &str, error: &dyn std::fmt::Display| Miss::Failed(format!("{what}: {error}"));
            stream.set_nodelay(true).map_err(|error| failed("connection", &error))?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| failed("name", &error))?;
            let stream = self.connector.connect(name, stream).await.map_err(|error| failed("handshake", &error))?;
            Ok(Connection { stream, host: host.to_owned(), is_used: false, is_last: false })
        };
        timeout(LIMIT, connecting).await.unwrap_or_else(|_| Err(Miss::Failed("no handshake in time".to_owned())))
    }

    /// Visits a page on a new connection.
    ///
    /// # Errors
    /// As [`Self::connect`] and [`Connection::visit`].
    pub async fn visit(&self, gateway: SocketAddr, host: &str, path: &str) -> Result<(), Miss> {
        self.connect(gateway, host).await?.visit(path).await
    }
}

impl Connection {
    /// Asks for a page and checks that it is the right tunnel's.
    ///
    /// # Errors
    /// All but [`Miss::Refused`]; the connection is of no use any more.
    pub async fn visit(&mut self, path: &str) -> Result<(), Miss> {
        let answer = timeout(LIMIT, self.exchange(path)).await;
        let was_used = std::mem::replace(&mut self.is_used, true);
        let (status, body) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(Broken::Before(_))) if was_used => return Err(Miss::Stale),
            Ok(Err(Broken::Before(reason))) => return Err(Miss::Failed(format!("no answer: {reason}"))),
            Ok(Err(Broken::Within(reason))) => return Err(Miss::Failed(format!("half an answer: {reason}"))),
            Err(_) => return Err(Miss::Failed("no answer in time".to_owned())),
        };
        if status != 200 {
            let first = body.lines().next().unwrap_or_default();
            let first: String = first.chars().take(60).collect();
            return Err(Miss::Failed(format!("status {status} {first}")));
        }
        if body == page(&self.host, path) {
            Ok(())
        } else {
            Err(Miss::Wrong(format!("{} {path}: {body:?}", self.host)))
        }
    }

    /// Whether the gateway takes another request on it.
    pub fn is_open(&self) -> bool {
        !self.is_last
    }

    async fn exchange(&mut self, path: &str) -> Result<(u16, String), Broken> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let before = |error: std::io::Error| Broken::Before(error.to_string());
        self.stream.write_all(request.as_bytes()).await.map_err(before)?;
        self.stream.flush().await.map_err(before)?;
        let mut buffer = Vec::with_capacity(512);
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break String::from_utf8_lossy(&buffer.drain(..end + 4).collect::<Vec<_>>()).into_owned();
            }
            self.more(&mut buffer).await?;
        };
        let field = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let malformed = || Broken::Within(format!("the head is {head:?}"));
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        let length = field("content-length").and_then(|text| text.parse::<usize>().ok()).ok_or_else(malformed)?;
        self.is_last |= field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        while buffer.len() < length.min(ANSWER_BYTES) {
            self.more(&mut buffer).await?;
        }
        Ok((status, String::from_utf8_lossy(&buffer).into_owned()))
    }

    async fn more(&mut self, buffer: &mut Vec<u8>) -> Result<(), Broken> {
        let is_first = buffer.is_empty();
        let broken = |reason: String| if is_first { Broken::Before(reason) } else { Broken::Within(reason) };
        match self.stream.read_buf(buffer).await {
            Ok(0) => Err(broken("the gateway hung up".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

/// How far an exchange came.
enum Broken {
    /// No byte of the answer was there.
    Before(String),
    /// A part of the answer was there.
    Within(String),
}
