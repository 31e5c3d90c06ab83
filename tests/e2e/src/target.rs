//! Services to be reached: small servers inside the test, each on a port or socket of its own.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running service; it ends when dropped.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Target {
    /// Serves each connection with `serve`.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn tcp<F, S>(serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (listener, address) = listen().await;
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream));
            }
        });
        Self { address, connections, requests: Arc::default(), task }
    }

    /// Sends back what it is sent, and ends when the sender does.
    pub async fn echo() -> Self {
        Self::tcp(echo).await
    }

    /// HTTP/1.1 with the pages of [`page`].
    pub async fn http() -> Self {
        Self::http1(|request| async { page(request).await }).await
    }

    /// HTTP/1.1 with pages of the test's own.
    pub async fn http1<F, S>(serve: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let requests: Arc<AtomicUsize> = Arc::default();
        let counter = requests.clone();
        let mut target = Self::tcp(move |stream| serve_http1(stream, counter.clone(), serve.clone())).await;
        target.requests = requests;
        target
    }

    /// HTTP/2 with prior knowledge.
    pub async fn http2<F, S>(serve: S) -> Self
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::tcp(move |stream| {
            let serve = serve.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = serve(request);
                    async { Ok::<_, Infallible>(answer.await) }
                });
                // Ends with an error when the other side goes away, which is no concern of the target.
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// HTTP/1.1 over TLS with the pages of [`page`].
    pub async fn https(tls: TlsAcceptor) -> Self {
        Self::tcp(move |stream| {
            let tls = tls.clone();
            async move {
                if let Ok(stream) = tls.accept(stream).await {
                    serve_http1(stream, Arc::default(), |request| async { page(request).await }).await;
                }
            }
        })
        .await
    }

    /// As `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// As `tcp://127.0.0.1:port`.
    pub fn tcp_url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// How many connections it accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many requests reached it.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A service on a Unix socket; it ends when dropped.
pub struct UnixTarget {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl UnixTarget {
    /// HTTP/1.1 with the pages of [`page`].
    ///
    /// # Panics
    /// If the socket cannot be made.
    pub fn http(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the folder is writable");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_http1(stream, Arc::default(), |request| async { page(request).await }));
            }
        });
        Self { path: path.to_owned(), task }
    }

    /// Sends back what it is sent.
    ///
    /// # Panics
    /// If the socket cannot be made.
    pub fn echo(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the folder is writable");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        Self { path: path.to_owned(), task }
    }

    /// As `unix:///path`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for UnixTarget {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A loopback address at which nobody listens: its port was just given back. The kernel hands out ports in an order that
/// does not return to it soon.
pub async fn nobody() -> SocketAddr {
    listen().await.1
}

/// The pages of the usual HTTP target.
///
/// | path | answer |
/// |---|---|
/// | `/bytes/N` | N bytes of [`pattern`], streamed, with their length |
/// | `/sink` | reads the body, checks it against [`pattern`], answers its length |
/// | `/echo` | streams the body back |
/// | `/never` | nothing, ever |
/// | anything else | the request as text: method, target, each header |
pub async fn page(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match path.split('/').nth(1) {
        Some("bytes") => {
            let length = path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            Response::builder().header("content-length", length).body(pattern(length)).expect("a valid answer")
        }
        Some("sink") => match checked_length(request.into_body()).await {
            Ok(length) => answer(StatusCode::OK, length.to_string()),
            Err(message) => answer(StatusCode::INTERNAL_SERVER_ERROR, message),
        },
        Some("echo") => {
            let frames = request.into_body().into_data_stream();
            let frames = futures_util::StreamExt::take_while(frames, |data| std::future::ready(data.is_ok()));
            let frames =
                futures_util::StreamExt::filter_map(frames, |data| async { Some(Ok(Frame::data(data.ok()?))) });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
        Some("never") => std::future::pending().await,
        Some(_) | None => {
            let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
            text.push_str(&header_lines(request.headers()));
            answer(StatusCode::OK, text)
        }
    }
}

/// A whole answer.
pub fn answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Each header as a line `name: value`.
pub fn header_lines(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))).collect()
}

/// A body of so many bytes of which each tells where it stands, made as it is sent.
pub fn pattern(length: u64) -> Body {
    let frames = futures_util::stream::unfold(0_u64, move |at| async move {
        let size = (length - at).min(CHUNK_BYTES);
        (size > 0).then(|| (Ok(Frame::data(pattern_at(at, size))), at + size))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// The bytes of [`pattern`] from `at`.
pub fn pattern_at(at: u64, size: u64) -> Bytes {
    let start = usize::try_from(at % PERIOD_BYTES).expect("below the period");
    let size = usize::try_from(size).expect("a size in memory");
    if start + size <= PERIODS.len() {
        return PERIODS.slice(start..start + size);
    }
    PERIODS[start..].iter().chain(PERIODS.iter().cycle()).copied().take(size).collect()
}

/// Reads a body and returns its length, or what differs from [`pattern`].
async fn checked_length(mut body: Incoming) -> Result<u64, String> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body broke off after {length} bytes: {error}"))?;
        if let Ok(data) = frame.into_data() {
            length = check_pattern(length, &data)?;
        }
    }
    Ok(length)
}

/// Checks bytes that stand at `at` of [`pattern`], and returns where they end.
///
/// # Errors
/// A sentence that tells the first byte that differs.
pub fn check_pattern(at: u64, data: &[u8]) -> Result<u64, String> {
    let mut end = at;
    for piece in data.chunks(CHECK_BYTES) {
        let length = piece.len() as u64;
        let wanted = pattern_at(end, length);
        // Compared as a whole: a debug build takes minutes for a gibibyte byte by byte.
        if wanted != piece {
            let wrong = (end..).zip(wanted.iter().zip(piece)).find(|(_, (wanted, found))| wanted != found);
            return Err(format!("the first wrong byte, what it should be, and what it is: {wrong:?}"));
        }
        end += length;
    }
    Ok(end)
}

async fn serve_http1<F, S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    requests: Arc<AtomicUsize>,
    serve: S,
) where
    S: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        requests.fetch_add(1, Ordering::Relaxed);
        let answer = serve(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service);
    // Ends with an error when the other side goes away, which is no concern of the target.
    let _ = connection.with_upgrades().await;
}

async fn echo(stream: impl AsyncRead + AsyncWrite) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    // The sender going away early is the end of an echo like any other.
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
    let _ = writer.shutdown().await;
}

/// Reads the head of an HTTP/1.1 request off a stream.
///
/// # Panics
/// If it does not come.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8_lossy(&head).into_owned()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

const CHUNK_BYTES: u64 = 64 * 1024;

/// Bytes that are compared at once.
const CHECK_BYTES: usize = 64 * 1024;

/// A prime, so that a lost or repeated buffer of any usual size shows.
const PERIOD_BYTES: u64 = 251;

/// Enough periods for every piece that tests ask for at once, a whole number of them.
static PERIODS: LazyLock<Bytes> = LazyLock::new(|| (0..PERIOD_BYTES as u8).cycle().take(251 * 2048).collect());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_tells_every_byte_that_is_lost_changed_or_doubled() {
        for (at, size) in [(0, 10), (250, 3), (513, 200_000), (7, 1_500_000)] {
            let bytes = pattern_at(at, size);
            assert!(bytes.iter().zip(at..).all(|(byte, index)| u64::from(*byte) == index % PERIOD_BYTES));
            assert_eq!(check_pattern(at, &bytes), Ok(at + size));
            assert!(check_pattern(at + 1, &bytes).is_err());
        }
        let mut changed = pattern_at(0, 100_000).to_vec();
        changed[70_000] ^= 1;
        assert!(check_pattern(0, &changed).is_err());
    }
}
