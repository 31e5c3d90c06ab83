//! One address: its connection, made when there is something to send and used for sending only.

use super::{Arrival, Peers, queue::Queue};
use crate::transport::endpoint::CLOSE_NORMAL;
use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream, WriteError};
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// A handshake must be done in this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// An address is dialed at most this often.
const DIAL_INTERVAL: Duration = Duration::from_secs(1);

/// A packet is acknowledged within this time, or within four round trips.
const ACKNOWLEDGED: Duration = Duration::from_millis(300);

/// The other node must take a packet in this time.
const PACKET_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that had no packet for this long is closed; an address without a connection is then forgotten.
/// Shorter than [`super::SILENCE`]: that one is left for nodes that are gone.
const IDLE: Duration = Duration::from_secs(10);

/// The task of one address.
pub(super) struct Line {
    peers: Arc<Peers>,
    address: SocketAddr,
    queue: Arc<Queue>,
    dial_after: Instant,
}

/// Why an address cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it cannot be dialed")]
    Dial(#[from] quinn::ConnectError),
    #[error("no listening socket is of its family")]
    Family,
    #[error("the connection failed")]
    Connection(#[from] ConnectionError),
    #[error("it was too slow with {0}")]
    Slow(&'static str),
    #[error("it was started anew")]
    Anew,
}

impl Line {
    pub(super) fn new(peers: Arc<Peers>, address: SocketAddr, queue: Arc<Queue>) -> Self {
        Self { peers, address, queue, dial_after: Instant::now() }
    }

    /// Sends what is queued until the address is forgotten or the node stops.
    pub(super) async fn run(mut self) {
        let shutdown = self.peers.shutdown.clone();
        tokio::select! {
            () = shutdown.stopping() => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&mut self) {
        while let Some(packet) = self.first().await {
            tokio::select! {
                () = sleep_until(self.dial_after) => {}
                () = self.queue.knocked() => {}
            }
            self.dial_after = Instant::now() + DIAL_INTERVAL;
            let dialed = tokio::select! {
                // A dial that is done is not thrown away for one that came in at the same time.
                biased;
                dialed = self.dial() => dialed,
                // It was started a moment ago, and what it was sent before is lost: that would go again only after a while.
                () = self.queue.knocked() => self.dial().await,
            };
            let outcome = match dialed {
                Ok(connection) => self.carry(&connection, packet).await,
                Err(failure) => {
                    self.peers.counts.unsent.add(1);
                    Err(failure)
                }
            };
            self.queue.note_rtt(None);
            match outcome {
                Ok(()) => {}
                // The first is a stateless reset: the node answers already, and is dialed for the next packet.
                Err(Failure::Connection(ConnectionError::Reset) | Failure::Anew) => {
                    tracing::debug!(address = %self.address, "a node was started anew");
                }
                Err(failure) => self.fail(&failure).await,
            }
        }
    }

    /// The packet for which the address is to be dialed; none once the address is forgotten.
    async fn first(&self) -> Option<Bytes> {
        loop {
            match timeout(IDLE, self.queue.pop()).await {
                Ok(packet) => return packet,
                Err(_) if self.peers.forget(self.address, &self.queue) => return None,
                Err(_) => {}
            }
        }
    }

    async fn dial(&self) -> Result<Connection, Failure> {
        let same_family = |endpoint: &&quinn::Endpoint| {
            endpoint.local_addr().is_ok_and(|local| local.is_ipv4() == self.address.is_ipv4())
        };
        let endpoint = self.peers.endpoints.iter().find(same_family).ok_or(Failure::Family)?;
        // The name is neither sent nor compared with anything; see `identity::verifier::nodes`.
        let connecting = endpoint.connect_with(self.peers.settings.clone(), self.address, "node.invalid")?;
        Ok(timeout(HANDSHAKE_TIMEOUT, connecting).await.map_err(|_| Failure::Slow("the handshake"))??)
    }

    /// Sends packets until none comes for a while; `Err` if the connection ends before.
    async fn carry(&self, connection: &Connection, first: Bytes) -> Result<(), Failure> {
        let mut packet = first;
        let mut life = Life { heard: connection.stats().udp_rx.datagrams, since: Instant::now() };
        loop {
            life.asked(connection);
            match send(connection, packet).await {
                Ok(true) => {
                    self.peers.counts.sent.add(1);
                    self.queue.note_rtt(Some(connection.rtt()));
                }
                Ok(false) => self.peers.counts.unsent.add(1),
                Err(failure) => {
                    self.peers.counts.unsent.add(1);
                    connection.close(CLOSE_NORMAL.into(), b"");
                    return Err(failure);
                }
            }
            let mut next = pin!(timeout(IDLE, self.queue.pop()));
            packet = loop {
                tokio::select! {
                    error = connection.closed() => return Err(error.into()),
                    // It lives, but not for this connection: lost packets go again ever later, and it would not be told so
                    // for seconds.
                    () = self.queue.knocked() => if life.is_missed(connection) {
                        connection.close(CLOSE_NORMAL.into(), b"");
                        return Err(Failure::Anew);
                    },
                    next = &mut next => match next {
                        Ok(Some(packet)) => break packet,
                        Ok(None) | Err(_) => {
                            connection.close(CLOSE_NORMAL.into(), b"");
                            return Ok(());
                        }
                    },
                }
            };
        }
    }

    /// What waited is too old to be of use by the time that the address may be reached again.
    async fn fail(&self, failure: &Failure) {
        tracing::debug!(address = %self.address, error = failure as &dyn std::error::Error, "a node is unreachable");
        self.peers.counts.unsent.add(self.queue.clear());
        // Whoever reads the inbox never waits for this task, so waiting for the reader ends. If there is none, nobody
        // wants to know.
        let _ = self.peers.inbox.send(Arrival::Unreachable { address: self.address }).await;
    }
}

/// What is heard on a connection: every packet is acknowledged.
struct Life {
    /// How many datagrams had come when it was last seen to have heard something.
    heard: u64,
    /// When a packet was sent after that.
    since: Instant,
}

impl Life {
    /// A packet is sent.
    fn asked(&mut self, connection: &Connection) {
        let heard = connection.stats().udp_rx.datagrams;
        if heard != self.heard {
            (self.heard, self.since) = (heard, Instant::now());
        }
    }

    /// Whether nothing has come for longer than an acknowledgement takes.
    fn is_missed(&self, connection: &Connection) -> bool {
        let takes = ACKNOWLEDGED.max(connection.rtt() * 4);
        connection.stats().udp_rx.datagrams == self.heard && self.since.elapsed() > takes
    }
}

/// Sends one packet on a stream of its own; false if the other node did not take it.
pub(super) async fn send(connection: &Connection, packet: Bytes) -> Result<bool, Failure> {
    let write = async { Whole(Some(connection.open_uni().await?)).write(packet).await };
    match timeout(PACKET_TIMEOUT, write).await.map_err(|_| Failure::Slow("a packet"))? {
        Ok(()) => Ok(true),
        Err(WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected) => Ok(false),
        Err(WriteError::ConnectionLost(error)) => Err(error.into()),
    }
}

/// A stream that arrives whole or not at all: a bare one that is dropped half written ends like a whole one.
struct Whole(Option<SendStream>);

impl Whole {
    async fn write(mut self, packet: Bytes) -> Result<(), WriteError> {
        if let Some(stream) = &mut self.0 {
            stream.write_chunk(packet).await?;
            stream.finish()?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            // Refused if the other side was first to end it.
            let _ = stream.reset(0_u32.into());
        }
    }
}
