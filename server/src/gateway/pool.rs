//! HTTP connections to targets: each runs over one stream of a link and is used again while it stays open.
//!
//! A stream a request would cost 25 to 60 % more CPU. The pools are hyper's. A connection is used again only while no newer
//! link serves its tunnel: the first thing that a client does when it comes back is to publish, and what was opened before
//! may lead to a link that is dead and not known to be.

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
use quick_cache::sync::Cache;
use specter_wire::{error::ErrorCode, id::LinkId, name::Hostname, stream::StreamKind};
use std::{
    convert::Infallible,
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

/// Tunnels whose pools for HTTP/2 are kept; one that falls out opens a connection anew.
const HTTP2_TUNNELS: usize = 1_024;

/// Longest head of a target's answer.
const HEAD_BYTES: usize = 64 << 10;

/// Credit that a target is given for one answer over HTTP/2, and for all of one connection.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// The pools of all tunnels.
pub(super) struct Pools {
    router: Arc<Router>,
    http1: Pool,
    http2: Cache<(Hostname, LinkId), Pool>,
}

impl Pools {
    pub(super) fn new(router: Arc<Router>) -> Self {
        let http1 = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_TUNNEL)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http1_max_buf_size(HEAD_BYTES)
            .set_host(false)
            .build(Connector { router: router.clone(), way: Way::Http1 });
        Self { router, http1, http2: Cache::new(HTTP2_TUNNELS) }
    }

    /// Connections that speak HTTP/1.1 to targets, and the authority that stands for a tunnel there. The target sees
    /// neither: what it is shown is a header.
    pub(super) fn http1(&self, tunnel: &Hostname, newest: LinkId) -> (&Pool, String) {
        (&self.http1, format!("{newest}.{tunnel}"))
    }

    /// Connections that speak HTTP/2 to the targets of one tunnel. Each tunnel has a pool of its own, because the
    /// authority of a request is what its target is shown, and tunnels of different owners may show the same.
    pub(super) fn http2(&self, tunnel: &Hostname, newest: LinkId) -> Pool {
        let build = || {
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_only(true)
                .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
                .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
                .set_host(false)
                .build(Connector { router: self.router.clone(), way: Way::Http2 { tunnel: Arc::new(tunnel.clone()) } })
        };
        match self.http2.get_or_insert_with(&(tunnel.clone(), newest), || Ok::<_, Infallible>(build())) {
            Ok(pool) => pool,
            Err(never) => match never {},
        }
    }
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

/// Whether a request failed because its connection was gone, before any answer came: the link died, or the target closed
/// a connection that it took for idle at the moment at which it was used again.
pub(super) fn is_gone(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>()
            && (error.kind() == io::ErrorKind::ConnectionReset || is_link_lost(error))
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether the link itself is gone, as quinn tells it.
pub(super) fn is_link_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected | io::ErrorKind::TimedOut)
}

/// Opens a stream where hyper wants a connection.
#[derive(Clone)]
pub(super) struct Connector {
    router: Arc<Router>,
    way: Way,
}

/// What a connector's streams carry, and how it knows where they lead.
#[derive(Clone)]
enum Way {
    /// The tunnel stands in the authority, behind the number of a link.
    Http1,
    /// To one tunnel.
    Http2 { tunnel: Arc<Hostname> },
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Answered>;
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Answered>, Refusal>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (router, way) = (self.router.clone(), self.way.clone());
        Box::pin(async move {
            let (hostname, kind) = match way {
                Way::Http1 => {
                    let tunnel = uri.host().and_then(|host| Hostname::parse(host.split_once('.')?.1).ok());
                    (Arc::new(tunnel.ok_or(Refusal(ErrorCode::Malformed))?), StreamKind::Http1)
                }
                Way::Http2 { tunnel } => (tunnel, StreamKind::Http2),
            };
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
