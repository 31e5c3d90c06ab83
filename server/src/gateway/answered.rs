//! A stream as an HTTP connection: the status byte is taken off the front of what is read.

use crate::route::{LinkStream, Refusal, read_status};
use specter_wire::error::ErrorCode;
use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream. A refusal fails the first read, a dead link any of them with [`ErrorCode::NoLiveLink`].
pub(super) struct Answered {
    stream: LinkStream,
    connected: bool,
}

impl Answered {
    pub(super) fn new(stream: LinkStream) -> Self {
        Self { stream, connected: false }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(AsyncRead::poll_read(Pin::new(&mut self.stream.recv), context, buffer));
        Poll::Ready(read.map_err(|error| {
            if self.stream.carrier.is_lost(&error) { Refusal(ErrorCode::NoLiveLink).into() } else { error }
        }))
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

impl AsyncRead for Answered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.connected {
            let mut byte = [0];
            let mut status = ReadBuf::new(&mut byte);
            ready!(self.poll_bytes(context, &mut status))?;
            match status.filled() {
                [status] => read_status(*status)?,
                _ => return Poll::Ready(Err(Refusal(ErrorCode::NoLiveLink).into())),
            }
            self.connected = true;
        }
        self.poll_bytes(context, buffer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_found_inside_other_errors() {
        let inside = io::Error::other(io::Error::from(Refusal(ErrorCode::TargetRefused)));
        assert_eq!(refusal(&inside), Some(Refusal(ErrorCode::TargetRefused)));
        assert_eq!(refusal(&io::Error::other("something else")), None);
    }
}
