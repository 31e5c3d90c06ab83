//! HTTP connections to targets: each runs over one stream of a link and is used again while it stays open.
//!
//! A stream a request would cost 25 to 60 % more CPU. The pool is hyper's; its "host" is the tunnel's key.

use super::body::Upload;
use crate::route::{LinkStream, Refusal, Router, read_status};
use http::Uri;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use specter_wire::{error::ErrorCode, name::Hostname, stream::StreamKind};
use std::{
    error::Error,
    future::Future,
    io,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Requests to targets over pooled connections.
pub(super) type Pool = Client<Connector, Upload>;

/// An unused connection is closed after this long: targets commonly close theirs after 60 s or more.
const IDLE: Duration = Duration::from_secs(30);

/// Unused connections kept for one tunnel.
const IDLE_PER_TUNNEL: usize = 256;

/// Longest head of a target's answer.
const HEAD_BYTES: usize = 64 << 10;

/// Credit that a target is given for one answer over HTTP/2, and for all of one connection.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Connections that speak HTTP/1.1 to targets.
pub(super) fn http1(router: Arc<Router>) -> Pool {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_TUNNEL)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http1_max_buf_size(HEAD_BYTES)
        .set_host(false)
        .build(Connector { router, kind: StreamKind::Http1 })
}

/// Connections that speak HTTP/2 to targets, one for each tunnel.
pub(super) fn http2(router: Arc<Router>) -> Pool {
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_only(true)
        .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .set_host(false)
        .build(Connector { router, kind: StreamKind::Http2 })
}

/// The refusal at the bottom of a failed request, if it was one.
pub(super) fn refusal(error: &(dyn Error + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(*refusal);
        }
        // An `io::Error` that wraps another error names that one's source as its own: look inside first.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(refusal) = refusal(inner)
        {
            return Some(refusal);
        }
        next = error.source();
    }
    None
}

/// Opens a stream where hyper wants a connection.
#[derive(Clone)]
pub(super) struct Connector {
    router: Arc<Router>,
    kind: StreamKind,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Answered>;
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Answered>, Refusal>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (router, kind) = (self.router.clone(), self.kind);
        Box::pin(async move {
            let hostname = uri.host().and_then(|host| Hostname::parse(host).ok());
            let hostname = hostname.ok_or(Refusal(ErrorCode::Malformed))?;
            // Many visitors share the stream: it names none.
            let nobody = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
            let stream = router.open(&hostname, kind, nobody).await?;
            Ok(TokioIo::new(Answered { stream, connected: false }))
        })
    }
}

/// A stream whose status byte is taken off the front of what is read; a refusal fails the first read.
pub(super) struct Answered {
    stream: LinkStream,
    connected: bool,
}

impl Connection for Answered {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Answered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.connected {
            let mut byte = [0];
            let mut status = ReadBuf::new(&mut byte);
            ready!(AsyncRead::poll_read(Pin::new(&mut this.stream.recv), context, &mut status))?;
            match status.filled() {
                [status] => read_status(*status)?,
                _ => return Poll::Ready(Err(Refusal(ErrorCode::NoLiveLink).into())),
            }
            this.connected = true;
        }
        AsyncRead::poll_read(Pin::new(&mut this.stream.recv), context, buffer)
    }
}

impl AsyncWrite for Answered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream.send), context)
    }
}
