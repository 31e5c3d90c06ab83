//! A visitor's TCP connection as TLS and HTTP see it: read in large pieces, and never stalled for ever.

use crate::transport::room::Place;
use socket2::{SockRef, TcpKeepalive};
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};

/// A visitor that takes none of our bytes for this long is cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The same for raw bytes: a person may have paused a terminal.
const RAW_STALL_TIMEOUT: Duration = Duration::from_secs(900);

/// A silent visitor is asked by the kernel whether it still exists, after a minute and then every quarter.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// After our end, a visitor has this long to stop sending, and this many bytes are thrown away meanwhile.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 1 << 20;

/// What the kernel holds of a link's packets beyond what is on its way.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 << 10;

/// Read from the kernel at once, into memory that all connections of a thread share. rustls 0.23 asks for 4 to 16 KiB
/// at a time, which costs a system call each on uploads.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// The connection. It holds the visitor's place, whoever carries its bytes after an upgrade.
pub(super) struct Socket {
    stream: TcpStream,
    _place: (OwnedSemaphorePermit, Place),
    patience: Duration,
    /// Read from the kernel and not yet taken; freed as soon as it is empty.
    surplus: Vec<u8>,
    taken: usize,
    stall: Option<Pin<Box<Sleep>>>,
    farewell: Farewell,
}

/// How far the end of a connection has come.
enum Farewell {
    /// Bytes still go out.
    Unsaid,
    /// Our end is told; what the visitor still sends is thrown away, up to some bytes, until the timer.
    Said(Pin<Box<Sleep>>, usize),
    /// Nothing more is read.
    Over,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, place: (OwnedSemaphorePermit, Place)) -> Self {
        // Both only tune: a socket on which they fail is about to fail anyway.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
        Self {
            stream,
            _place: place,
            patience: STALL_TIMEOUT,
            surplus: Vec::new(),
            taken: 0,
            stall: None,
            farewell: Farewell::Unsaid,
        }
    }

    /// Lets the visitor pause for longer.
    pub(super) fn carries_raw_bytes(&mut self) {
        self.patience = RAW_STALL_TIMEOUT;
        // Its other direction goes on after an end of ours: every byte belongs to somebody.
        self.farewell = Farewell::Over;
    }

    /// Makes what waits wait here, where small packets stand beside large ones, and not in the kernel, behind them.
    pub(super) fn carries_packets(&mut self) {
        self.farewell = Farewell::Over;
        // It only tunes.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    }

    /// Throws away what the visitor still sends. A connection that is closed while bytes come in is reset by the kernel,
    /// and the visitor never sees the answer that was to tell it why (RFC 9112 §9.6).
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Farewell::Said(timer, budget) = &mut self.farewell else { return Poll::Ready(()) };
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut thrown = ReadBuf::new(scratch);
                match Pin::new(&mut self.stream).poll_read(context, &mut thrown) {
                    Poll::Ready(Ok(())) if !thrown.filled().is_empty() && *budget > thrown.filled().len() => {
                        *budget -= thrown.filled().len();
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return timer.as_mut().poll(context),
                }
            }
        })
    }

    /// Makes the kernel tell the visitor of an error (RST) instead of an end when the connection is dropped.
    pub(super) fn abort(&self) {
        // On a dead connection there is nobody left to tell.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = buffer.remaining().min(self.surplus.len() - self.taken);
        buffer.put_slice(&self.surplus[self.taken..self.taken + length]);
        self.taken += length;
        if self.taken == self.surplus.len() {
            self.surplus = Vec::new();
            self.taken = 0;
        }
    }

    fn guard<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let patience = self.patience;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.surplus.is_empty() {
            this.give(buffer);
            return Poll::Ready(Ok(()));
        }
        if buffer.remaining() >= READ_BYTES {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut large = ReadBuf::new(scratch);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut large))?;
            let read = large.filled();
            let (now, later) = read.split_at(read.len().min(buffer.remaining()));
            buffer.put_slice(now);
            if !later.is_empty() {
                this.surplus = later.to_vec();
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.guard(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.guard(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.farewell {
            Farewell::Over => return Pin::new(&mut self.stream).poll_shutdown(context),
            Farewell::Unsaid => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
                self.farewell = Farewell::Said(Box::pin(sleep(FAREWELL_TIMEOUT)), FAREWELL_BYTES);
            }
            Farewell::Said(..) => {}
        }
        ready!(self.poll_drain(context));
        self.farewell = Farewell::Over;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::room::Room;
    use std::sync::Arc;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Semaphore,
        time::Instant,
    };

    async fn pair() -> (TcpStream, Socket) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let near = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connected");
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let place = (permit, Room::new(1, 1).enter([127, 0, 0, 1].into()).expect("room"));
        (near, Socket::new(listener.accept().await.expect("accepted").0, place))
    }

    #[tokio::test]
    async fn small_reads_see_every_byte_once_and_leave_no_buffer() {
        let (mut near, mut socket) = pair().await;
        let sent: Vec<u8> = (0..100_000_u32).map(|i| i as u8).collect();
        let writer = sent.clone();
        tokio::spawn(async move { near.write_all(&writer).await });
        let mut read = Vec::new();
        let mut piece = [0; 1_000];
        loop {
            let length = socket.read(&mut piece).await.expect("read");
            if length == 0 {
                break;
            }
            read.extend_from_slice(&piece[..length]);
        }
        assert_eq!(read, sent);
        assert_eq!(socket.surplus.capacity(), 0);
    }

    #[tokio::test]
    async fn a_visitor_keeps_its_place_as_long_as_its_connection_whoever_holds_it() {
        let (_near, socket) = pair().await;
        let places = socket._place.0.semaphore().clone();
        let upgraded: Box<dyn AsyncRead> = Box::new(socket);
        assert_eq!(places.available_permits(), 0);
        drop(upgraded);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_that_takes_nothing_is_cut_off() {
        let (_near, mut socket) = pair().await;
        let chunk = vec![0; 1 << 20];
        let begun = Instant::now();
        let error = loop {
            if let Err(error) = socket.write_all(&chunk).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= STALL_TIMEOUT);
    }

    #[tokio::test]
    async fn a_visitor_that_still_sends_sees_the_answer_and_not_a_reset() {
        let (mut near, mut socket) = pair().await;
        let gateway = tokio::spawn(async move {
            let mut first = [0; 1_000];
            socket.read_exact(&mut first).await.expect("read");
            socket.write_all(b"too large").await.expect("written");
            socket.shutdown().await.expect("shut down");
        });
        near.write_all(&[0; 10_000]).await.expect("taken");
        let mut answer = [0; 9];
        near.read_exact(&mut answer).await.expect("no reset");
        assert_eq!(&answer, b"too large");
        for _ in 0..30 {
            near.write_all(&[0; 10_000]).await.expect("still taken");
            tokio::task::yield_now().await;
        }
        near.shutdown().await.expect("shut down");
        gateway.await.expect("the gateway's side");
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_that_stays_is_left_after_a_while() {
        let (_near, mut socket) = pair().await;
        let begun = Instant::now();
        socket.shutdown().await.expect("shut down");
        assert!((FAREWELL_TIMEOUT..2 * FAREWELL_TIMEOUT).contains(&begun.elapsed()));
    }
}
