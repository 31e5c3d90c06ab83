//! Visitors: curl, and TLS connections on which a test says what it likes.

use crate::{Node, process, soon, tool::tool};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    fmt::{self, Write as _},
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What a visitor was answered.
pub struct Answer {
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: String,
    /// Status number of the last head.
    pub status: u16,
    /// Headers, names in lower case, and trailers behind them.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// curl's exit code.
    pub exit: i32,
    /// What curl said on standard error.
    pub complaint: String,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as the target saw it, if the target answered with the request as text.
    pub fn seen(&self, name: &str) -> Vec<String> {
        let start = format!("{name}: ");
        self.text().lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, status, headers, exit, complaint, .. } = self;
        write!(f, "{version} {status} {headers:?}, curl {exit} {complaint:?}, body {:?}", self.text())
    }
}

/// A curl that trusts and finds the node for `host`, or none where curl is missing.
pub fn curl(node: &Node, host: &str) -> Option<Command> {
    let mut command = Command::new(tool("curl")?);
    command.args(["-sS", "--noproxy", "*", "--max-time", "60", "--cacert"]).arg(node.ca());
    command.args(["--resolve", &format!("{host}:{}:127.0.0.1", node.port())]);
    Some(command)
}

/// Asks for a path of a host with more arguments for curl, or returns none where curl is missing.
///
/// # Panics
/// If curl does not end in time.
pub async fn get(node: &Node, host: &str, path: &str, arguments: &[&str]) -> Option<Answer> {
    let mut command = curl(node, host)?;
    let heads = tempfile::NamedTempFile::new().expect("a temporary file");
    command.args(arguments).arg("-D").arg(heads.path()).arg(format!("https://{host}:{}{path}", node.port()));
    let output = process::run(command, b"").await;
    let text = std::fs::read_to_string(heads.path()).unwrap_or_default();
    let mut answer = Answer {
        version: String::new(),
        status: 0,
        headers: Vec::new(),
        complaint: process::stderr(&output),
        body: output.stdout,
        exit: output.status.code().unwrap_or(-1),
    };
    for line in text.lines() {
        if line.starts_with("HTTP/") {
            let mut parts = line.split(' ');
            answer.version = parts.next().unwrap_or_default().to_owned();
            answer.status = parts.next().and_then(|status| status.parse().ok()).unwrap_or(0);
            answer.headers.clear();
        } else if let Some((name, value)) = line.split_once(':') {
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Some(answer)
}

/// Connects to the gateway with TLS for `host`.
///
/// # Panics
/// If the handshake fails.
pub async fn tls(node: &Node, host: &str, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    try_tls(node, host, alpn).await.unwrap_or_else(|error| panic!("TLS for {host}: {error}"))
}

/// Connects to the gateway with TLS for `host`.
///
/// # Errors
/// What the handshake failed with.
///
/// # Panics
/// If the node does not accept the connection.
pub async fn try_tls(node: &Node, host: &str, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = tls_config(node);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).expect("a hostname");
    let stream = TcpStream::connect(node.address).await.expect("the node listens");
    soon("the TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Trusts the node's gateway CA, shows no certificate.
///
/// # Panics
/// If the CA file cannot be read.
pub fn tls_config(node: &Node) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(node.ca()).expect("the CA file is readable") {
        roots.add(certificate.expect("the CA file is PEM")).expect("a certificate");
    }
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Sends these bytes as HTTP/1.1 and returns everything that comes back until the gateway closes.
///
/// # Panics
/// If it does not close in time.
pub async fn exchange(node: &Node, host: &str, bytes: &[u8]) -> String {
    let mut stream = tls(node, host, &[b"http/1.1"]).await;
    // The gateway may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    // A close without TLS's own goodbye is still a close; what came before it counts.
    let _ = soon("the gateway to close", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// An HTTP/1.1 request as bytes, with `Connection: close`.
pub fn request(method: &str, path: &str, host: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}
