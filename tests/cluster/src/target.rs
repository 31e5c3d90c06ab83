//! A page that says which tunnel it was reached through, so that a wrong answer shows.

use crate::Outcome;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

/// A running target. It ends when dropped.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// Longest head of a request that is read.
const HEAD_BYTES: usize = 16 << 10;

impl Target {
    /// Starts it on a port of the system's choice.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mut serving, requests) = (JoinSet::new(), Arc::default());
        serving.spawn(serve(listener, Arc::clone(&requests)));
        Ok(Self { address, requests, _serving: serving })
    }

    /// How many requests it has answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Lines of a client's file for a tunnel to it.
    pub fn tunnel(&self) -> String {
        format!("  - target: http://{}\n    headerMode: hostname\n", self.address)
    }
}

/// What it answers to a request for `path` under `host`.
pub fn page(host: &str, path: &str) -> String {
    format!("{host} {path}\n")
}

async fn serve(listener: TcpListener, requests: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // Late small answers would be the target's fault, and are rare enough.
        let _ = stream.set_nodelay(true);
        // It ends with an error when the other side goes away, which is no concern of the target.
        let requests = requests.clone();
        connections.spawn(async move { drop(answer(stream, &requests).await) });
    }
}

/// Answers requests of HTTP/1.1 until the other side ends, and counts them.
///
/// # Errors
/// What a read or a write failed with.
pub async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, requests: &AtomicUsize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if buffer.len() > HEAD_BYTES || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end + 4);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let host =
            head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or("", |(_, value)| value.split(':').next().unwrap_or(value));
        let body = page(host, path);
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).await?;
        requests.fetch_add(1, Ordering::Relaxed);
    }
}
