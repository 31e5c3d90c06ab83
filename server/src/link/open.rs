//! A visitor's stream: on a link of this node, or to another node that has a link.

use super::registry::Link;
use crate::transport::{
    framed,
    pulse::{self, Pulse},
    relay::{self, OpenError, Opened},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use specter_wire::{
    error::ErrorCode,
    limits::STREAM_FRAME_BYTES,
    name::Hostname,
    stream::{self, StreamHeader, StreamKind},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Both directions of a visitor's stream. The header is on its way; the answer's first byte is the client's status.
#[derive(Debug)]
pub struct LinkStream {
    /// What carries it.
    pub carrier: Carrier,
    /// Whose target it leads to.
    pub hostname: Hostname,
    /// Towards the target.
    pub send: SendStream,
    /// From the target, status byte first.
    pub recv: RecvStream,
}

/// What carries a stream.
#[derive(Clone, Debug)]
pub enum Carrier {
    /// A link of this node.
    Link(Arc<Link>),
    /// Another node, and the connection to it on which the stream is.
    Node(Arc<relay::Node>, Connection),
}

/// The far end, or a node on the way, turned the visitor away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub ErrorCode);

/// Reset and stop code of a stream between nodes whose link died.
pub const LINK_LOST: VarInt = VarInt::from_u32(ErrorCode::NoLiveLink as u32);

/// A link whose client accepts no stream for this long is passed over.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Who waits for a target that is slow looks this much later whether what leads there still lives, and each time after
/// twice as long.
const AGAIN: Duration = Duration::from_secs(1);

impl Carrier {
    /// What came so far from the other end of the next hop.
    pub fn pulse(&self) -> Option<Pulse> {
        match self {
            Self::Link(link) => Some(link.pulse()),
            Self::Node(node, _) => node.pulse(),
        }
    }

    /// Ends when the next hop, or the link behind it, shows no life, although something was asked of it at `since`, as long
    /// ago as [`Carrier::patience`]: what is silent is doubted. A target that is slow does not end it.
    pub async fn silence(&self, hostname: &Hostname, since: Option<Pulse>) {
        let mut wait = AGAIN;
        match self {
            Self::Link(link) => {
                if since.is_some_and(|since| link.doubt_since(since)) {
                    return;
                }
                // If it died after that, its own task ends it, and with it what waits.
                loop {
                    sleep(wait).await;
                    link.ask();
                    wait *= 2;
                }
            }
            Self::Node(node, _) => {
                if node.doubt_since(since) {
                    return;
                }
                let visitor = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
                let Ok(question) = header(hostname, StreamKind::Life, visitor) else { return };
                while node.vouches(&question).await {
                    sleep(wait).await;
                    wait *= 2;
                }
            }
        }
    }

    /// Whether the next hop goes away: what is not in use ends now.
    pub fn is_leaving(&self) -> bool {
        match self {
            // This node's own end comes later.
            Self::Link(_) => false,
            Self::Node(node, _) => node.is_leaving(),
        }
    }

    /// How long the next hop may show no life after something was asked of it.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Link(link) => pulse::patience(link.connection()),
            Self::Node(node, _) => node.patience(),
        }
    }

    /// An answer came.
    pub fn answered(&self) {
        match self {
            // Links have probes.
            Self::Link(_) => {}
            Self::Node(node, _) => node.answered(),
        }
    }

    /// What a stream that failed says: whether it failed because its link is gone, here or at the other node.
    pub fn is_lost(&self, error: &io::Error) -> bool {
        let connection = match self {
            Self::Link(link) => link.connection(),
            Self::Node(_, connection) => connection,
        };
        let reset = error.get_ref().and_then(|error| error.downcast_ref::<quinn::ReadError>());
        connection.close_reason().is_some() || matches!(reset, Some(quinn::ReadError::Reset(LINK_LOST)))
    }
}

/// Waits for the first sign of life of a stream to `hostname`'s target; a long wait makes the node look whether its carrier
/// lives, so that visitors of a client that was cut off do not wait for QUIC's idle timeout.
pub async fn or_doubt<F: Future>(carrier: &Carrier, hostname: &Hostname, first: F) -> F::Output {
    let mut first = std::pin::pin!(first);
    let pulse = carrier.pulse();
    if let Ok(output) = timeout(carrier.patience(), &mut first).await {
        return output;
    }
    tokio::select! {
        output = &mut first => output,
        () = carrier.silence(hostname, pulse) => first.await,
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
    let frame = header(hostname, kind, visitor)?;
    let opened = timeout(OPEN_TIMEOUT, async {
        let (mut send, recv) = link.connection().open_bi().await.map_err(|_| Refusal(ErrorCode::NoLiveLink))?;
        send.write_all(&frame).await.map_err(|_| Refusal(ErrorCode::NoLiveLink))?;
        Ok(LinkStream { carrier: Carrier::Link(link.clone()), hostname: hostname.clone(), send, recv })
    });
    opened.await.unwrap_or(Err(Refusal(ErrorCode::Limit)))
}

/// Opens a stream to `hostname`'s target by way of another node, which has said that it has a link for it. `last` says that
/// there is nowhere else to go if that takes long.
///
/// # Errors
/// [`OpenError`]. Nothing of the visitor was sent: another way may be tried.
pub async fn open_by(
    node: &Arc<relay::Node>,
    hostname: &Hostname,
    kind: StreamKind,
    visitor: SocketAddr,
    last: bool,
) -> Result<LinkStream, OpenError> {
    let frame = header(hostname, kind, visitor).map_err(|refusal| OpenError::Refused(refusal.0))?;
    let Opened { connection, send, recv } = node.open(&frame, last).await?;
    Ok(LinkStream { carrier: Carrier::Node(node.clone(), connection), hostname: hostname.clone(), send, recv })
}

fn header(hostname: &Hostname, kind: StreamKind, visitor: SocketAddr) -> Result<Vec<u8>, Refusal> {
    let header = StreamHeader { kind, hostname: hostname.as_str(), visitor: visitor.into() };
    framed::encode(&header, STREAM_FRAME_BYTES).map_err(|_| Refusal(ErrorCode::Internal))
}

impl LinkStream {
    /// Waits for the status byte.
    ///
    /// # Errors
    /// The far end's refusal, or [`ErrorCode::NoLiveLink`] when the link died before it answered.
    pub async fn connected(&mut self) -> Result<(), Refusal> {
        let mut byte = [0];
        match or_doubt(&self.carrier, &self.hostname, self.recv.read(&mut byte)).await {
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
