//! Moves bytes between a visitor's stream and a target until both are done.
//!
//! An idle stream holds no buffer: bytes from the target are read into one scratch buffer of the thread and leave it as
//! a copy of exactly their length; bytes to the target are the chunks that quinn holds anyway, written many at a time.
//! End of stream travels each way on its own; a cut travels at once, both ways.

use crate::{memory::READ_MAX, target::TargetStream};
use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

/// Splices until both ends have ended, or one is cut; then the other is cut, too. Reads at most `read_bytes` at a time
/// from the target.
///
/// # Errors
/// Why it was cut.
///
/// # Cancel safety
/// Dropping it leaves both ends as they are; the caller's streams then end as quinn and the target's socket end them.
pub(crate) async fn splice(
    target: &mut TargetStream,
    send: &mut SendStream,
    receive: &mut RecvStream,
    read_bytes: usize,
) -> Result<(), Cut> {
    let (reader, writer) = tokio::io::split(&mut *target);
    let outcome = tokio::try_join!(to_visitor(reader, send, read_bytes), to_target(receive, writer));
    if let Err(cut) = outcome {
        // Each fails only if its stream has ended already.
        send.reset(VarInt::from_u32(0)).ok();
        receive.stop(VarInt::from_u32(0)).ok();
        target.abort();
        return Err(cut);
    }
    Ok(())
}

/// Why a splice ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the target cut its connection")]
    Target(#[from] io::Error),
    #[error("the visitor's side cut the stream")]
    Visitor,
    #[error("the target read nothing for too long")]
    Stalled,
}

async fn to_visitor(mut reader: impl AsyncRead + Unpin, send: &mut SendStream, read_bytes: usize) -> Result<(), Cut> {
    let mut stopped = pin!(send.stopped());
    loop {
        let read = poll_fn(|cx| {
            // A visitor that went away must end a target that has nothing to say.
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Cut::Visitor));
            }
            poll_scratch(cx, &mut reader, read_bytes).map(Ok)
        });
        let (bytes, error) = read.await?;
        let end = bytes.is_empty();
        if !end {
            send.write_chunk(bytes).await.map_err(|_| Cut::Visitor)?;
        }
        match error {
            // A system tells it once: the next read would look like an end.
            Some(error) => return Err(Cut::Target(error)),
            None if end => {
                // Fails only if the visitor stopped the stream in this moment, and then there is nothing to finish.
                send.finish().ok();
                return Ok(());
            }
            None => {}
        }
    }
}

/// Reads all that is there, up to a number of bytes, and the error behind it. Nothing and no error is the end.
fn poll_scratch(
    cx: &mut Context<'_>,
    reader: &mut (impl AsyncRead + Unpin),
    read_bytes: usize,
) -> Poll<(Bytes, Option<io::Error>)> {
    SCRATCH.with_borrow_mut(|scratch| {
        let length = read_bytes.min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..length]);
        let error = loop {
            let before = buffer.filled().len();
            match Pin::new(&mut *reader).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() == before || buffer.remaining() == 0 => break None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Some(error),
                Poll::Pending if before == 0 => return Poll::Pending,
                Poll::Pending => break None,
            }
        };
        Poll::Ready((Bytes::copy_from_slice(buffer.filled()), error))
    })
}

async fn to_target(receive: &mut RecvStream, mut writer: impl AsyncWrite + Unpin) -> Result<(), Cut> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    loop {
        let count = match receive.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) => {
                writer.shutdown().await?;
                return Ok(());
            }
            Err(ReadError::Reset(_))
            | Err(ReadError::ConnectionLost(_))
            | Err(ReadError::ClosedStream)
            | Err(ReadError::IllegalOrderedRead)
            | Err(ReadError::ZeroRttRejected) => return Err(Cut::Visitor),
        };
        let written = async {
            write_all(&mut writer, &mut chunks[..count]).await?;
            writer.flush().await
        };
        timeout(STALL, written).await.map_err(|_| Cut::Stalled)??;
    }
}

/// Writes every chunk, many to a system call, and lets go of each as soon as it is written.
async fn write_all(writer: &mut (impl AsyncWrite + Unpin), chunks: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while first < chunks.len() {
        let mut written = poll_fn(|cx| {
            let mut slices = [IoSlice::new(&[]); CHUNKS];
            let rest = &chunks[first..];
            for (slice, chunk) in slices.iter_mut().zip(rest) {
                *slice = IoSlice::new(chunk);
            }
            Pin::new(&mut *writer).poll_write_vectored(cx, &slices[..rest.len()])
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < chunks.len() && written >= chunks[first].len() {
            written -= chunks[first].len();
            chunks[first] = Bytes::new();
            first += 1;
        }
        if written > 0 {
            chunks[first] = chunks[first].slice(written..);
        }
    }
    Ok(())
}

thread_local! {
    /// Held only within one poll.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_MAX].into_boxed_slice());
}

/// A target that reads nothing for this long is cut off: what waits for it takes credit from all tunnels. Long, because a
/// person may have paused a program.
const STALL: Duration = Duration::from_secs(900);

/// A full scratch buffer of datagrams at the usual MTU.
const CHUNKS: usize = 48;
