//! HTTP connections to targets: each runs over one stream, and serves one request after the other.
//!
//! A stream a request would cost 25 to 60 % more CPU. Connections are kept for a way and a tunnel, so that those of a link
//! or a node that is gone or doubted are not used for the next visitor.

use super::{
    answered::Answered,
    body::{Progress, Upload},
};
use crate::{
    route::{Carrier, Refusal, Way, WayId},
    shutdown::Shutdown,
};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use specter_wire::{error::ErrorCode, name::Hostname, stream::StreamKind};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, interval, timeout};

/// An unused connection is closed after this long: targets commonly close theirs after 60 s or more.
const IDLE: Duration = Duration::from_secs(30);

/// How often it is looked which connections are not to be kept: a node that goes away waits for their end.
const ROUND: Duration = Duration::from_secs(1);

/// Unused connections kept for one tunnel by one way.
const IDLE_PER_TUNNEL: usize = 256;

/// A connection that was given back has only to notice that its last answer is over.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// A visitor that asks for nothing more of its answer for this long loses it.
const APPETITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest head of a target's answer.
const HEAD_BYTES: usize = 64 << 10;

/// Credit that a target is given for one answer over HTTP/2, and for all of one connection.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Connections of one tunnel by one way.
type Key = (WayId, Hostname);

/// The connections that may be used again. Clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    parked: Arc<Mutex<Parked>>,
    shutdown: Shutdown,
}

#[derive(Default)]
struct Parked {
    /// Unused ones, the last used at the end.
    http1: HashMap<Key, Vec<Idle>>,
    /// One a key, used by all requests at once.
    http2: HashMap<Key, (http2::SendRequest<Upload>, Carrier)>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// A connection that can take a request.
pub(super) enum Connection {
    Http1(Http1),
    Http2(http2::SendRequest<Upload>, Carrier),
}

/// An HTTP/1.1 connection, and what carries it.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Upload>,
    pub(super) carrier: Carrier,
    appetite: Arc<Appetite>,
}

/// The right to give a connection back when its answer is over.
pub(super) struct Lease {
    pool: Pool,
    key: Key,
    connection: Http1,
    upload: Arc<Progress>,
}

impl Pool {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        let pool = Self { parked: Arc::default(), shutdown: shutdown.clone() };
        let sweeper = pool.clone();
        shutdown.clone().spawn(async move {
            let mut round = interval(ROUND);
            loop {
                tokio::select! {
                    // Nobody waits for connections that nobody uses.
                    () = shutdown.stopping() => return sweeper.lock().clear(),
                    _ = round.tick() => sweeper.lock().sweep(Instant::now()),
                }
            }
        });
        pool
    }

    /// A connection that was used before and still works.
    pub(super) async fn take(&self, way: &Way, hostname: &Hostname, kind: StreamKind) -> Option<Connection> {
        let key = (way.id(), hostname.clone());
        if kind == StreamKind::Http2 {
            let (mut connection, carrier) = self.lock().http2.get(&key)?.clone();
            return match timeout(READY_TIMEOUT, connection.ready()).await {
                Ok(Ok(())) => Some(Connection::Http2(connection, carrier)),
                Ok(Err(_)) | Err(_) => None,
            };
        }
        loop {
            let Idle { mut connection, .. } = self.lock().http1.get_mut(&key)?.pop()?;
            // One that is not was closed by the target meanwhile, most likely.
            if let Ok(Ok(())) = timeout(READY_TIMEOUT, connection.sender.ready()).await {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// A new connection over a new stream. The target is dialled meanwhile: its refusal fails the first request.
    ///
    /// # Errors
    /// As [`Way::open`].
    pub(super) async fn open(
        &self,
        way: &Way,
        hostname: &Hostname,
        kind: StreamKind,
        visitor: SocketAddr,
    ) -> Result<Connection, Refusal> {
        let stream = way.open(hostname, kind, visitor).await?;
        let carrier = stream.carrier.clone();
        let io = TokioIo::new(Answered::new(stream));
        // Neither handshake waits for the target; both fail only when the stream has failed already.
        if kind == StreamKind::Http2 {
            let handshake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
                .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
                .handshake(io);
            let (connection, driver) = handshake.await.map_err(|_| Refusal(ErrorCode::NoLiveLink))?;
            self.shutdown.spawn(drive(driver));
            let mut parked = self.lock();
            // Asked under the lock, as in `Lease::give_back`.
            if !self.shutdown.is_stopping() {
                parked.http2.insert((way.id(), hostname.clone()), (connection.clone(), carrier.clone()));
            }
            drop(parked);
            return Ok(Connection::Http2(connection, carrier));
        }
        let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(io);
        let (sender, driver) = handshake.await.map_err(|_| Refusal(ErrorCode::NoLiveLink))?;
        let appetite = Arc::new(Appetite::default());
        let watched = appetite.clone();
        self.shutdown.spawn(async move {
            tokio::select! {
                () = drive(driver.with_upgrades()) => {}
                () = watched.lost() => tracing::debug!("a visitor took nothing of an answer for too long"),
            }
        });
        Ok(Connection::Http1(Http1 { sender, carrier, appetite }))
    }

    /// The right to use `connection` again after the answer that it is giving.
    pub(super) fn lease(&self, way: &Way, hostname: &Hostname, connection: Http1, upload: Arc<Progress>) -> Box<Lease> {
        Box::new(Lease { pool: self.clone(), key: (way.id(), hostname.clone()), connection, upload })
    }

    fn lock(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parked {
    fn sweep(&mut self, now: Instant) {
        self.http1.retain(|_, connections| {
            connections.retain(|Idle { connection: Http1 { sender, carrier, .. }, since }| {
                !sender.is_closed() && now - *since < IDLE && !carrier.is_leaving()
            });
            !connections.is_empty()
        });
        self.http2.retain(|_, (connection, carrier)| !connection.is_closed() && !carrier.is_leaving());
    }

    fn clear(&mut self) {
        self.http1.clear();
        self.http2.clear();
    }
}

impl Lease {
    /// A piece of the answer was given to the visitor's side, which owes us the wish for the next.
    pub(super) fn served(&self) {
        self.connection.appetite.served();
    }

    /// The visitor's side asks for more.
    pub(super) fn asked(&self) {
        self.connection.appetite.asked();
    }

    /// The answer is over. A connection whose request is still being sent is not kept.
    pub(super) fn give_back(self) {
        self.connection.appetite.asked();
        if self.connection.sender.is_closed() || !self.upload.is_done() {
            return;
        }
        let mut parked = self.pool.lock();
        // Asked under the lock: what is given back before that is closed with the others.
        if self.pool.shutdown.is_stopping() {
            return;
        }
        let connections = parked.http1.entry(self.key).or_default();
        if connections.len() < IDLE_PER_TUNNEL {
            connections.push(Idle { connection: self.connection, since: Instant::now() });
        }
    }
}

/// Whether a visitor goes on taking its answer. One who does not holds up to a stream's window of the link's credit, and
/// a hundred of them would starve all tunnels of the client.
#[derive(Debug, Default)]
pub(super) struct Appetite(Mutex<Option<Instant>>);

impl Appetite {
    fn served(&self) {
        *self.lock() = Some(Instant::now());
    }

    /// Also when there is nothing more to ask for.
    pub(super) fn asked(&self) {
        *self.lock() = None;
    }

    /// Ends when the visitor has asked for nothing for [`APPETITE_TIMEOUT`] although it was its turn.
    async fn lost(&self) {
        let mut round = interval(APPETITE_TIMEOUT / 4);
        loop {
            round.tick().await;
            if self.lock().is_some_and(|since| since.elapsed() >= APPETITE_TIMEOUT) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a connection. Its end is told to whoever uses it.
async fn drive(driver: impl Future<Output = Result<(), hyper::Error>>) {
    if let Err(error) = driver.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection to a target failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_visitor_whose_turn_it_is_can_lose_its_appetite() {
        let appetite = Appetite::default();
        let long = 10 * APPETITE_TIMEOUT;
        // Nothing was served yet: the target is slow, not the visitor.
        timeout(long, appetite.lost()).await.expect_err("nothing to take");
        appetite.served();
        appetite.asked();
        timeout(long, appetite.lost()).await.expect_err("the visitor waits for more");
        appetite.served();
        timeout(long, appetite.lost()).await.expect("the visitor takes nothing");
    }
}
