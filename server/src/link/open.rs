//! A visitor's stream on a link.

use super::registry::Link;
use crate::transport::framed;
use quinn::{RecvStream, SendStream};
use specter_wire::{
    error::ErrorCode,
    limits::STREAM_FRAME_BYTES,
    name::Hostname,
    stream::{self, StreamHeader, StreamKind},
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Both directions of a visitor's stream. The header is on its way; the answer's first byte is a status.
#[derive(Debug)]
pub struct LinkStream {
    /// What carries it.
    pub link: Arc<Link>,
    /// Towards the target.
    pub send: SendStream,
    /// From the target, status byte first.
    pub recv: RecvStream,
}

/// The far end, or a node on the way, turned the visitor away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub ErrorCode);

/// A link whose client accepts no stream for this long is passed over.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// A client that has said nothing for this long on a stream may be busy or dead: a probe tells.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Waits for the first sign of life of a stream on `link`; a long wait makes the node look whether the link lives, so
/// that visitors of a client that was cut off do not wait for QUIC's idle timeout.
pub async fn or_doubt<F: Future>(link: &Link, first: F) -> F::Output {
    let mut first = std::pin::pin!(first);
    match timeout(SILENCE, &mut first).await {
        Ok(output) => output,
        Err(_) => {
            link.doubt();
            first.await
        }
    }
}

/// Opens a stream to `hostname`'s target and sends its header.
///
/// # Errors
/// [`ErrorCode::Limit`] when the client has no room for another stream, [`ErrorCode::NoLiveLink`] when the link is gone.
/// Nothing of the visitor was sent in either case: another link may be tried.
pub async fn open(
    link: &Arc<Link>,
    hostname: &Hostname,
    kind: StreamKind,
    visitor: SocketAddr,
) -> Result<LinkStream, Refusal> {
    let header = StreamHeader { kind, hostname: hostname.as_str(), visitor: visitor.into() };
    let frame = framed::encode(&header, STREAM_FRAME_BYTES).map_err(|_| Refusal(ErrorCode::Internal))?;
    let opened = timeout(OPEN_TIMEOUT, async {
        let (mut send, recv) = link.connection().open_bi().await.map_err(|_| Refusal(ErrorCode::NoLiveLink))?;
        send.write_all(&frame).await.map_err(|_| Refusal(ErrorCode::NoLiveLink))?;
        Ok(LinkStream { link: link.clone(), send, recv })
    });
    opened.await.unwrap_or(Err(Refusal(ErrorCode::Limit)))
}

impl LinkStream {
    /// Waits for the status byte.
    ///
    /// # Errors
    /// The far end's refusal, or [`ErrorCode::NoLiveLink`] when the link died before it answered.
    pub async fn connected(&mut self) -> Result<(), Refusal> {
        let mut byte = [0];
        match or_doubt(&self.link, self.recv.read(&mut byte)).await {
            Ok(Some(_)) => read_status(byte[0]),
            Ok(None) => Err(Refusal(ErrorCode::Malformed)),
            Err(_) => Err(Refusal(ErrorCode::NoLiveLink)),
        }
    }
}

/// What a status byte says.
///
/// # Errors
/// The refusal it tells.
pub fn read_status(byte: u8) -> Result<(), Refusal> {
    match stream::status(byte) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(code)) => Err(Refusal(code)),
        Err(_) => Err(Refusal(ErrorCode::Malformed)),
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::other(refusal)
    }
}
