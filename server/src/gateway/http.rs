//! HTTP/1.1 and HTTP/2 connections of visitors.

use super::{Gateway, proxy::Proxy, sniff::Destination, socket::Socket};
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::{server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

/// A request's head must be here in this time; it also bounds the wait for the next request on a connection.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest head of a request. A longer one is answered with 431.
pub(super) const HEAD_BYTES: usize = 32 << 10;

/// Most fields in a head.
pub(super) const HEAD_FIELDS: usize = 128;

/// Requests that one HTTP/2 connection may have under way.
const HTTP2_STREAMS: u32 = 128;

/// Streams that a visitor may open and reset before we have seen them (CVE-2023-44487).
const HTTP2_RESETS: usize = 32;

/// Credit that a visitor is given for one request's body, and for all of one connection.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 << 10;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes of one answer that wait for a slow visitor. A connection may have [`HTTP2_STREAMS`] times as many, and the kernel's
/// own buffer keeps the line busy meanwhile.
const HTTP2_SEND_BYTES: usize = 64 << 10;

/// A silent HTTP/2 visitor is asked for a sign of life, which must come in time.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// An HTTP/2 connection without a request is closed after this long.
const HTTP2_IDLE: Duration = Duration::from_secs(120);

/// A connection that was asked to end and never had a request has this long to do so.
const HTTP2_FAREWELL: Duration = Duration::from_secs(5);

pub(super) async fn serve_http1(
    gateway: &Arc<Gateway>,
    stream: TlsStream<Socket>,
    destination: Destination,
    peer: SocketAddr,
) {
    let service = service_fn(|request| async {
        let mut answer = gateway.proxy.answer(&destination, peer, request).await;
        // While the node still takes requests on this connection it says that this was the last: a visitor who is hung up
        // on without a word may have a request on the way.
        if gateway.shutdown.is_draining() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(answer)
    });
    let connection = conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = gateway.shutdown.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &error as &dyn std::error::Error, "a visitor's HTTP/1.1 connection failed");
    }
}

pub(super) async fn serve_http2(
    gateway: &Arc<Gateway>,
    stream: TlsStream<Socket>,
    destination: Destination,
    peer: SocketAddr,
) {
    let visit = Arc::new(Visit { gateway: gateway.clone(), destination, peer, requests: AtomicUsize::new(0) });
    let shared = visit.clone();
    let service = service_fn(move |request| {
        let visit = shared.clone();
        async move {
            visit.requests.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(visit.proxy().answer(&visit.destination, visit.peer, request).await)
        }
    });
    let connection = conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_pending_accept_reset_streams(HTTP2_RESETS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BYTES)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // The first request is awaited no longer than in HTTP/1.1: this bounds the preface, too.
    let mut idle_until = Instant::now() + HEAD_TIMEOUT;
    let mut seen = 0;
    let outcome = loop {
        tokio::select! {
            outcome = &mut connection => break outcome,
            // Says which requests are still taken, and takes those.
            () = gateway.shutdown.draining() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = sleep_until(idle_until) => {
                // Asking a connection to end lets requests under way finish, so nothing is cut off.
                let requests = visit.requests.load(Ordering::Relaxed);
                if requests == seen {
                    connection.as_mut().graceful_shutdown();
                    match timeout(HTTP2_FAREWELL, &mut connection).await {
                        Ok(outcome) => break outcome,
                        // hyper waits without an end for a preface that does not come.
                        Err(_) if visit.requests.load(Ordering::Relaxed) == 0 => {
                            return tracing::debug!("an HTTP/2 visitor said nothing");
                        }
                        Err(_) => break connection.await,
                    }
                }
                seen = requests;
                idle_until = Instant::now() + HTTP2_IDLE;
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &error as &dyn std::error::Error, "a visitor's HTTP/2 connection failed");
    }
}

/// What the requests of one HTTP/2 connection share.
struct Visit {
    gateway: Arc<Gateway>,
    destination: Destination,
    peer: SocketAddr,
    requests: AtomicUsize,
}

impl Visit {
    fn proxy(&self) -> &Proxy {
        &self.gateway.proxy
    }
}
