//! QUIC over a byte stream: links of clients in networks that let no UDP through.
//!
//! Each packet goes over the stream, TLS on TCP, behind its length in two bytes, most significant first. quinn sees a
//! socket, so what is built on it keeps all that QUIC gives: streams that end, reset and stop one direction at a time,
//! bounds on streams and on bytes of each stream and of all, timeouts, certificates and keys for proofs. A packet waits
//! while the stream is full and none is ever lost, so it is TCP that finds out how much the network takes.
//!
//! One stream carries one connection.

use quinn::{
    AsyncUdpSocket, ConfigError, Endpoint, EndpointConfig, Runtime, ServerConfig, TransportConfig, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

mod packets;
#[cfg(test)]
mod tests;

use packets::{Inbound, Outbound};

/// A stream that can carry packets.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Largest packet, and the largest that an end without a word about it takes (RFC 9000 §18.2 leaves that to each).
pub const PACKET_BYTES: u16 = 1472;

/// Makes settings of a connection fit for packets on a stream: they are of one size from the first to the last.
pub fn tune(transport: &mut TransportConfig) {
    transport.initial_mtu(PACKET_BYTES).mtu_discovery_config(None);
}

/// The endpoint of one connection whose packets go over a stream.
#[derive(Clone, Debug)]
pub struct Carried {
    /// Dials or accepts the connection.
    pub endpoint: Endpoint,
    wire: Arc<Wire>,
}

impl Carried {
    /// An endpoint that reaches `peer`, and nobody else, over `stream`. With `server` it accepts.
    ///
    /// # Errors
    /// What the runtime refuses.
    pub fn new(
        stream: impl Stream,
        peer: SocketAddr,
        mut config: EndpointConfig,
        server: Option<ServerConfig>,
        runtime: Arc<dyn Runtime>,
    ) -> io::Result<Self> {
        config.max_udp_payload_size(PACKET_BYTES).map_err(|error: ConfigError| io::Error::other(error))?;
        let wire = Arc::new(Wire::new(Box::new(stream), peer));
        let endpoint = Endpoint::new_with_abstract_socket(config, server, wire.clone(), runtime)?;
        Ok(Self { endpoint, wire })
    }

    /// Waits until the stream carries nothing any more; tells why. The endpoint does not notice by itself, for QUIC thinks
    /// of every silence as one that may end.
    pub async fn lost(&self) -> io::Error {
        loop {
            let changed = self.wire.changed.notified();
            if let Some(kind) = self.wire.lock().lost {
                return kind.into();
            }
            changed.await;
        }
    }

    /// Asks the other end for a sign of life.
    pub fn ask(&self) {
        // It is what QUIC does on a new way, and the only thing that can fail is a way of another kind.
        self.endpoint.rebind_abstract(self.wire.clone()).ok();
    }
}

/// The stream as quinn sees it.
struct Wire {
    peer: SocketAddr,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    stream: Box<dyn Stream>,
    inbound: Inbound,
    outbound: Outbound,
    /// Why nothing is carried any more.
    lost: Option<io::ErrorKind>,
    /// The task that reads, and that writes for all.
    driver: Option<Waker>,
    /// Who waits for room.
    senders: Vec<Waker>,
}

impl Wire {
    fn new(stream: Box<dyn Stream>, peer: SocketAddr) -> Self {
        let state = State {
            stream,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            lost: None,
            driver: None,
            senders: Vec::new(),
        };
        Self { peer, state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below leaves a state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes what waits, as far as the stream takes it.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.outbound.rest().is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, self.outbound.rest()) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => self.outbound.written(count),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        if self.outbound.has_room() {
            self.senders.drain(..).for_each(Waker::wake);
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads packets into `bufs` until there are no more or no more fit; tells how many and how long each is.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        mut took: impl FnMut(usize, usize),
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        while count < bufs.len() {
            if let Some(length) = self.inbound.take(&mut bufs[count])? {
                took(count, length);
                count += 1;
                continue;
            }
            let mut buffer = ReadBuf::new(self.inbound.room());
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Err(end_of_stream())),
                Poll::Ready(Ok(())) => {
                    let read = buffer.filled().len();
                    self.inbound.filled(read);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.inbound.rest();
                    break;
                }
            }
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn lose(&mut self, error: &io::Error) {
        self.lost = Some(error.kind());
        self.outbound = Outbound::default();
        self.senders.drain(..).for_each(Waker::wake);
    }
}

fn end_of_stream() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl AsyncUdpSocket for Wire {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.lock();
        // To a lost stream it goes as to a cable that was cut: whoever waits for `Carried::lost` ends it.
        if state.lost.is_none() {
            let segment_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            for packet in transmit.contents.chunks(segment_bytes) {
                state.outbound.put(packet);
            }
            // All that is said in this turn goes out together.
            if let Some(driver) = state.driver.take() {
                driver.wake();
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.lost.is_some() {
            return Poll::Pending;
        }
        let took = |index: usize, len| {
            meta[index] = RecvMeta { addr: self.peer, len, stride: len, ecn: None, dst_ip: None };
        };
        let written = state.poll_write(context);
        // What came before the end belongs to the connection, its own farewell perhaps.
        match (state.poll_read(context, bufs, took), written) {
            (Poll::Ready(Err(error)), _) | (Poll::Pending, Err(error)) => {
                state.lose(&error);
                self.changed.notify_waiters();
                Poll::Pending
            }
            (Poll::Ready(Ok(count)), _) => Poll::Ready(Ok(count)),
            (Poll::Pending, Ok(())) => {
                state.driver = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // Only its family matters.
        Ok(match self.peer {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        })
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }
}

/// Says of itself only whom it reaches.
impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Waits for room.
#[derive(Debug)]
struct Poller(Arc<Wire>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.lost.is_some() || state.outbound.has_room() {
            return Poll::Ready(Ok(()));
        }
        if !state.senders.iter().any(|sender| sender.will_wake(context.waker())) {
            state.senders.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// Packets that quinn hands over at once.
const SEGMENTS: usize = 10;
