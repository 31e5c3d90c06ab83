//! Frames on the control stream of a link. `tunnel` lets a session speak here; short commands ask one thing at a time.

use crate::session::AGENT;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use specter_wire::{
    codec::{self, FrameError, PREFIX_BYTES},
    error::ErrorCode,
    limits::CONTROL_FRAME_BYTES,
    link::{ClientFrame, NodeFrame, Reply, Request},
};
use std::time::Duration;
use tokio::time::timeout;

/// The stream, with memory for small frames; a large one gets its own for as long as it is there.
#[derive(Debug)]
pub(crate) struct Control {
    send: SendStream,
    receive: RecvStream,
    incoming: Vec<u8>,
    /// Bytes of `incoming` that hold something.
    filled: usize,
    /// Bytes at the front of `incoming` that were handed out already.
    consumed: usize,
}

impl Control {
    /// Opens the first stream of a connection.
    pub(crate) async fn open(connection: &Connection) -> Result<Self, ControlError> {
        let (send, receive) = timeout(ANSWER, connection.open_bi()).await.map_err(|_| ControlError::Silent)??;
        Ok(Self { send, receive, incoming: vec![0; SMALL_FRAME_BYTES], filled: 0, consumed: 0 })
    }

    /// Sends the frame that `encode` writes.
    pub(crate) async fn send(
        &mut self,
        encode: impl Fn(&mut [u8]) -> Result<&[u8], FrameError>,
    ) -> Result<(), ControlError> {
        let mut small = [0; SMALL_FRAME_BYTES];
        let mut large;
        let frame = match encode(&mut small) {
            Err(FrameError::Buffer) => {
                large = vec![0; PREFIX_BYTES + CONTROL_FRAME_BYTES];
                encode(&mut large)?
            }
            outcome @ (Ok(_) | Err(_)) => outcome?,
        };
        timeout(ANSWER, self.send.write_all(frame)).await.map_err(|_| ControlError::Silent)??;
        Ok(())
    }

    /// Waits for the node's next frame, which [`Control::frame`] then reads.
    ///
    /// # Cancel safety
    /// Part of a frame stays here for the next call.
    pub(crate) async fn advance(&mut self) -> Result<(), ControlError> {
        self.incoming.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
        if self.filled <= SMALL_FRAME_BYTES && self.incoming.len() > SMALL_FRAME_BYTES {
            self.incoming.truncate(SMALL_FRAME_BYTES);
            self.incoming.shrink_to_fit();
        }
        loop {
            if let Some(prefix) = self.incoming[..self.filled].first_chunk() {
                let end = PREFIX_BYTES + codec::body_length(*prefix, CONTROL_FRAME_BYTES)?;
                if end > self.incoming.len() {
                    self.incoming.resize(end, 0);
                }
                if end <= self.filled {
                    self.consumed = end;
                    return Ok(());
                }
            }
            match self.receive.read(&mut self.incoming[self.filled..]).await? {
                Some(count) => self.filled += count,
                None => return Err(ControlError::Ended),
            }
        }
    }

    /// The frame that [`Control::advance`] waited for.
    pub(crate) fn frame(&self) -> Result<NodeFrame<'_>, ControlError> {
        let body = self.incoming.get(PREFIX_BYTES..self.consumed).unwrap_or_default();
        Ok(codec::decode(body)?)
    }

    /// Asks one thing and waits for its answer; answers pings meanwhile and drops what else comes.
    pub(crate) async fn ask(&mut self, id: u32, request: Request<'_>) -> Result<Reply<'_>, ControlError> {
        let frame = ClientFrame { id, request };
        self.send(|buffer| codec::encode(&frame, buffer)).await?;
        timeout(ANSWER, self.skip_to(id)).await.map_err(|_| ControlError::Silent)??;
        Ok(self.frame()?.reply)
    }

    /// Greets as a client that publishes nothing.
    pub(crate) async fn greet(&mut self, instance: u64) -> Result<Reply<'_>, ControlError> {
        self.ask(1, Request::Hello { instance, agent: AGENT }).await
    }

    /// Reads up to the frame of that number, which stays the last one consumed.
    async fn skip_to(&mut self, id: u32) -> Result<(), ControlError> {
        loop {
            self.advance().await?;
            let (got, nonce) = {
                let frame = self.frame()?;
                let nonce = if let Reply::Ping { nonce } = frame.reply { Some(nonce) } else { None };
                (frame.id, nonce)
            };
            if got == id {
                return Ok(());
            }
            if let Some(nonce) = nonce {
                let pong = ClientFrame { id: PONG_ID, request: Request::Pong { nonce } };
                self.send(|buffer| codec::encode(&pong, buffer)).await?;
            }
        }
    }
}

/// Why the control stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("the node does not answer")]
    Silent,
    #[error("the node ended the control stream")]
    Ended,
    #[error("the node sent bytes that are no message of this version: update this program or the node")]
    Frame(#[from] FrameError),
    #[error("the connection was lost")]
    Connection(#[from] ConnectionError),
    #[error("the control stream cannot be read")]
    Read(#[from] ReadError),
    #[error("the control stream cannot be written")]
    Write(#[from] WriteError),
    #[error("the node refused: {0}")]
    Refused(ErrorCode),
    #[error("the node sent an answer of another kind than what was asked")]
    Kind,
}

/// Longest wait for a node's answer. Its store may have to elect somebody first.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);

/// Most frames of a link that is up are smaller: pings, pongs, the names of neighbours.
const SMALL_FRAME_BYTES: usize = 1024;

/// Pongs are not answered, so their number tells nothing.
const PONG_ID: u32 = u32::MAX;
