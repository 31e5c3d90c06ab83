//! The service behind every path: small answers, large answers, and a place for uploads; plain, and over TLS.

use crate::{Outcome, args::TargetArgs};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Answers with [`SMALL_BYTES`].
pub(crate) const SMALL_PATH: &str = "/small";

/// Answers with as many bytes as the rest of the path says.
pub(crate) const LARGE_PATH: &str = "/large/";

/// Takes a body of any size and answers when it has ended.
pub(crate) const SINK_PATH: &str = "/sink";

/// Body of a small answer.
pub(crate) const SMALL_BYTES: usize = 128;

static CHUNK: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Serves until standard input ends, so that no target outlives its benchmark.
pub(crate) async fn serve(args: TargetArgs) -> Outcome<()> {
    let chain = CertificateDer::pem_file_iter(&args.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&args.key)?;
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(tls));
    let (plain, secure) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    println!("plain {}", plain.local_addr()?);
    println!("tls {}", secure.local_addr()?);
    let mut visitors = JoinSet::new();
    let mut input = tokio::io::stdin();
    let mut byte = [0];
    loop {
        tokio::select! {
            accepted = plain.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                visitors.spawn(http(stream, false));
            }
            accepted = secure.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                visitors.spawn(https(tls.clone(), stream));
            }
            _ = visitors.join_next(), if !visitors.is_empty() => {}
            _ = input.read(&mut byte) => return Ok(()),
        }
    }
}

async fn https(tls: TlsAcceptor, stream: TcpStream) {
    // A visitor that fails here says so itself.
    let Ok(stream) = tls.accept(stream).await else { return };
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    http(stream, http2).await;
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, http2: bool) {
    let stream = TokioIo::new(stream);
    // Visitors that go away are no fault.
    let _ = if http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service_fn(answer)).await
    } else {
        http1::Builder::new().serve_connection(stream, service_fn(answer)).await
    };
}

async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Large>>, Infallible> {
    let path = request.uri().path();
    let large = path.strip_prefix(LARGE_PATH).and_then(|length| length.parse().ok());
    Ok(match (request.method(), path, large) {
        (&Method::GET, SMALL_PATH, _) => {
            Response::new(Either::Left(Full::new(Bytes::from_static(&CHUNK).slice(..SMALL_BYTES))))
        }
        (&Method::GET, _, Some(left)) => Response::new(Either::Right(Large { left })),
        (&Method::POST, SINK_PATH, _) => {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            Response::new(Either::Left(Full::default()))
        }
        _ => {
            let mut response = Response::new(Either::Left(Full::default()));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

struct Large {
    left: u64,
}

impl Body for Large {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(CHUNK.len());
        self.left -= length as u64;
        Poll::Ready((length > 0).then(|| Ok(Frame::data(Bytes::from_static(&CHUNK).slice(..length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
