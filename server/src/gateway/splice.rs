//! Carries raw bytes both ways between a visitor and a tunnel.
//!
//! No buffer lives while nothing moves: bytes are read into memory that all visitors of a thread share and copied out
//! in the size they came. An end in one direction is passed on and the other goes on; an abort ends both, and both
//! sides are told that it was one.

use super::socket::Socket;
use crate::route::{Carrier, LinkStream, Refusal, or_doubt};
use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use specter_wire::name::Hostname;
use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, sleep_until},
};
use tokio_rustls::server::TlsStream;

/// A visitor's connection that can tell an abort from an end.
pub(super) trait Visitor: AsyncRead + AsyncWrite + Unpin {
    /// Dropping the connection from now on looks like an error to the visitor.
    fn abort(&self);
}

impl Visitor for TlsStream<Socket> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

/// What becomes of the stream's status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The visitor wants to see it.
    Pass,
    /// It is read here; a refusal aborts the visitor.
    Take,
    /// It was read already.
    Taken,
}

/// Why a splice did not end cleanly.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpliceError {
    #[error("the visitor's connection failed")]
    Visitor(#[source] io::Error),
    #[error("the tunnel aborted the stream")]
    Tunnel,
    #[error("the tunnel turned the visitor away")]
    Refused(#[from] Refusal),
    #[error("one side ended and the other was silent for too long")]
    HalfClosed,
}

/// When one direction has ended, the other may be silent this long. Before that, silence is no fault: the kernel asks
/// whether the visitor lives, and QUIC whether the link does.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(600);

/// Most chunks taken from the tunnel at once: a batch of packets.
const CHUNKS: usize = 48;

/// Most bytes taken from the visitor at once.
const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// Carries bytes until both directions have ended.
pub(super) async fn splice<V: Visitor>(
    visitor: V,
    already_read: Bytes,
    stream: LinkStream,
    status: Status,
) -> Result<(), SpliceError> {
    let (mut reader, mut writer) = tokio::io::split(visitor);
    let LinkStream { carrier, hostname, mut send, mut recv } = stream;
    let moved = Moved(Mutex::new(Instant::now()));
    let outcome = {
        let mut up = std::pin::pin!(up(&mut reader, already_read, &mut send, &moved));
        let mut down = std::pin::pin!(down((&carrier, &hostname), &mut recv, &mut writer, status, &moved));
        tokio::select! {
            first = &mut up => match first {
                Ok(()) => in_time(down, &moved).await,
                Err(error) => Err(error),
            },
            first = &mut down => match first {
                Ok(()) => in_time(up, &moved).await,
                Err(error) => Err(error),
            },
        }
    };
    if outcome.is_err() {
        // Both fail only on a stream that has ended already.
        let _ = send.reset(VarInt::from_u32(0));
        let _ = recv.stop(VarInt::from_u32(0));
        reader.unsplit(writer).abort();
    }
    outcome
}

/// When bytes last moved in either direction.
struct Moved(Mutex<Instant>);

impl Moved {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time(
    mut direction: Pin<&mut impl Future<Output = Result<(), SpliceError>>>,
    moved: &Moved,
) -> Result<(), SpliceError> {
    moved.touch();
    loop {
        let deadline = moved.last() + HALF_CLOSED_TIMEOUT;
        tokio::select! {
            biased;
            outcome = &mut direction => return outcome,
            () = sleep_until(deadline) => {
                if moved.last() + HALF_CLOSED_TIMEOUT <= deadline {
                    return Err(SpliceError::HalfClosed);
                }
            }
        }
    }
}

async fn up<R: AsyncRead + Unpin>(
    reader: &mut R,
    already_read: Bytes,
    send: &mut SendStream,
    moved: &Moved,
) -> Result<(), SpliceError> {
    let mut chunk = already_read;
    let mut failed = None;
    loop {
        if !chunk.is_empty() {
            moved.touch();
            match send.write_chunk(chunk).await {
                Ok(()) => {}
                // The target takes no more, and may still have much to say.
                Err(quinn::WriteError::Stopped(_)) => return Ok(()),
                Err(_) => return Err(SpliceError::Tunnel),
            }
        }
        if let Some(error) = failed {
            return Err(SpliceError::Visitor(error));
        }
        chunk = poll_fn(|context| poll_take(reader, context, &mut failed)).await.map_err(SpliceError::Visitor)?;
        if chunk.is_empty() {
            // Fails only if the target stopped reading before.
            let _ = send.finish();
            return Ok(());
        }
    }
}

/// Takes what the visitor has sent so far, without waiting for more than some of it; nothing at its end. An error behind
/// some bytes goes to `failed`, to be told when they are passed on: the kernel tells it only once.
fn poll_take<R: AsyncRead + Unpin>(
    reader: &mut R,
    context: &mut Context<'_>,
    failed: &mut Option<io::Error>,
) -> Poll<io::Result<Bytes>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        loop {
            let before = buffer.filled().len();
            match Pin::new(&mut *reader).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before && buffer.remaining() > 0 => {}
                Poll::Ready(Ok(())) => break,
                Poll::Pending if before > 0 => break,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) if before > 0 => {
                    *failed = Some(error);
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
}

async fn down<W: AsyncWrite + Unpin>(
    (carrier, hostname): (&Carrier, &Hostname),
    recv: &mut RecvStream,
    writer: &mut W,
    status: Status,
    moved: &Moved,
) -> Result<(), SpliceError> {
    match status {
        Status::Taken => {}
        Status::Take | Status::Pass => {
            let mut byte = [0];
            match or_doubt(carrier, hostname, recv.read(&mut byte)).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(SpliceError::Tunnel),
            }
            if status == Status::Take {
                crate::route::read_status(byte[0])?;
            } else {
                write_all(writer, &mut [Bytes::copy_from_slice(&byte)]).await.map_err(SpliceError::Visitor)?;
            }
        }
    }
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    loop {
        match recv.read_chunks(&mut chunks).await {
            Ok(Some(count)) => {
                moved.touch();
                write_all(writer, &mut chunks[..count]).await.map_err(SpliceError::Visitor)?;
            }
            Ok(None) => return writer.shutdown().await.map_err(SpliceError::Visitor),
            Err(_) => return Err(SpliceError::Tunnel),
        }
    }
}

/// Writes all chunks with as few calls as can be, so that TLS makes full records of them, and lets go of them.
async fn write_all<W: AsyncWrite + Unpin>(writer: &mut W, chunks: &mut [Bytes]) -> io::Result<()> {
    poll_fn(|context| poll_write_all(writer, chunks, context)).await?;
    writer.flush().await
}

fn poll_write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    chunks: &mut [Bytes],
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let mut slices = [IoSlice::new(&[]); CHUNKS];
        let mut count = 0;
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            slices[count] = IoSlice::new(chunk);
            count += 1;
        }
        if count == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut written = ready!(Pin::new(&mut *writer).poll_write_vectored(context, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        for chunk in chunks.iter_mut() {
            let length = written.min(chunk.len());
            let _ = chunk.split_to(length);
            written -= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_are_written_once_and_in_order() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let mut chunks: Vec<Bytes> = (0..20_u8).map(|n| Bytes::from(vec![n; usize::from(n)])).collect();
        let expected = chunks.concat();
        let writing = tokio::spawn(async move {
            write_all(&mut near, &mut chunks).await.expect("written");
            assert!(chunks.iter().all(Bytes::is_empty));
        });
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut read).await.expect("read");
        writing.await.expect("writer");
        assert_eq!(read, expected);
    }

    /// Gives some bytes, then an error once, then an end: as a socket does after a reset.
    struct Reset(u8);

    impl AsyncRead for Reset {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.0 += 1;
            match self.0 {
                1 => buffer.put_slice(b"some"),
                2 => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ => {}
            }
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_reset_behind_bytes_is_not_taken_for_an_end() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut failed = None;
        let taken = poll_take(&mut Reset(0), &mut context, &mut failed);
        assert!(matches!(taken, Poll::Ready(Ok(chunk)) if chunk == "some"));
        assert_eq!(failed.map(|error| error.kind()), Some(io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn everything_that_came_is_taken_at_once_and_the_end_is_empty() {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        near.write_all(&[1; 100_000]).await.expect("written");
        let take = |far: &mut tokio::io::DuplexStream| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            poll_take(far, &mut context, &mut None)
        };
        assert!(matches!(take(&mut far), Poll::Ready(Ok(chunk)) if chunk.len() == SCRATCH_BYTES));
        assert!(matches!(take(&mut far), Poll::Ready(Ok(chunk)) if chunk.len() == 100_000 - SCRATCH_BYTES));
        assert!(take(&mut far).is_pending());
        drop(near);
        assert!(matches!(take(&mut far), Poll::Ready(Ok(chunk)) if chunk.is_empty()));
    }
}
