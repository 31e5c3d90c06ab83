//! Streams that other nodes pass on to the links of this one. They go no further: a node without a link says so.

use super::{
    join::join,
    open::{self, LinkStream, Refusal},
    registry::{Registry, Serving},
};
use crate::{
    shutdown::Shutdown,
    transport::{endpoint::CLOSE_NORMAL, framed, pulse::patience, relay::Relays, room::Place},
};
use quinn::{Connection, RecvStream, SendStream};
use specter_wire::{
    codec,
    error::ErrorCode,
    limits::STREAM_FRAME_BYTES,
    name::Hostname,
    stream::{PASSED_ON, StreamHeader, StreamKind},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;

/// What all streams of other nodes share.
#[derive(Debug)]
pub struct Passing {
    registry: Arc<Registry>,
    relays: Arc<Relays>,
    connections: Shutdown,
    streams: Shutdown,
}

/// A stream's header comes together with its opening.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A node that does not let itself be told of our end for this long is not told.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);

impl Passing {
    /// Passes streams to the links of `registry`. The scope `streams` gives those in progress their time to end, while
    /// `connections` still turns new ones away.
    pub fn new(registry: Arc<Registry>, relays: Arc<Relays>, connections: Shutdown, streams: Shutdown) -> Arc<Self> {
        Arc::new(Self { registry, relays, connections, streams })
    }

    /// Serves the streams of a connection until it ends. It has shown a valid certificate of a node of this cluster, as
    /// those of [`crate::transport::accept::Accepted::Relay`] have.
    pub fn serve(self: &Arc<Self>, connection: Connection) {
        match self.relays.admit(&connection) {
            Some(place) => {
                let span = tracing::info_span!("relay", peer = %connection.remote_address());
                self.connections.spawn(self.clone().accept(connection, place).instrument(span));
            }
            None => connection.close(CLOSE_NORMAL.into(), b"no room for another node"),
        }
    }

    async fn accept(self: Arc<Self>, connection: Connection, _place: Place) {
        let mut was_told = false;
        loop {
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, recv)) => {
                        let passing = self.clone();
                        self.streams.spawn(async move { passing.stream(send, recv).await }.in_current_span());
                    }
                    Err(error) => {
                        return tracing::debug!(%error, "a connection of a node that passes visitors on ended");
                    }
                },
                () = self.streams.draining(), if !was_told => {
                    was_told = true;
                    say_farewell(&connection).await;
                }
            }
        }
    }

    async fn stream(&self, mut send: SendStream, mut recv: RecvStream) {
        let opened = tokio::select! {
            opened = self.open(&mut recv) => opened,
            // The visitor went elsewhere.
            _ = send.stopped() => return,
        };
        match opened {
            Ok(stream) => {
                if send.write_all(&[PASSED_ON]).await.is_ok()
                    && let Some(stream) = stream
                {
                    join((send, recv), stream).await;
                }
            }
            Err(Refusal(code)) => {
                // Each fails only if the other node has given the stream up already.
                let _ = send.write_all(&[code.number()]).await;
                let _ = send.finish();
                let _ = recv.stop(u32::from(code.number()).into());
            }
        }
    }

    /// Opens a stream on the first link that takes it. None if the other node only asks whether the links are alive, and
    /// they are.
    async fn open(&self, recv: &mut RecvStream) -> Result<Option<LinkStream>, Refusal> {
        if self.streams.is_stopping() {
            return Err(Refusal(ErrorCode::Draining));
        }
        let frame = timeout(HEADER_TIMEOUT, framed::read_body(recv, STREAM_FRAME_BYTES)).await;
        let Ok(Ok(Some(frame))) = frame else { return Err(Refusal(ErrorCode::Malformed)) };
        let header: StreamHeader<'_> = codec::decode(&frame).map_err(|_| Refusal(ErrorCode::Malformed))?;
        let hostname = Hostname::parse(header.hostname).map_err(|_| Refusal(ErrorCode::Malformed))?;
        let Some(serving) = self.registry.serving(&hostname) else {
            // The other node read it somewhere: what this node once said of itself has to go.
            self.registry.changes().note(&hostname);
            return Err(Refusal(ErrorCode::NoLiveLink));
        };
        let carried = match header.kind {
            StreamKind::Raw => serving.tunnel.carries.raw(),
            StreamKind::Http1 | StreamKind::Http2 => serving.tunnel.carries.http(),
            StreamKind::Life => {
                return if show_life(serving).await { Ok(None) } else { Err(Refusal(ErrorCode::NoLiveLink)) };
            }
        };
        if !carried {
            return Err(Refusal(ErrorCode::WrongKind));
        }
        let mut refusal = Refusal(ErrorCode::NoLiveLink);
        for link in serving.trusted.iter().chain(&serving.suspect) {
            // The other node takes our first byte for a link that lives, and sends what it cannot send twice.
            if !link.is_trusted().await {
                continue;
            }
            match open::open(link, &hostname, header.kind, header.visitor.into()).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

/// Asks all links of a tunnel for a sign of life, and tells whether each gave one: the other node does not know on which of
/// them its visitor waits.
async fn show_life(serving: Serving) -> bool {
    let links: Vec<_> = serving.trusted.into_iter().chain(serving.suspect).map(|link| (link.pulse(), link)).collect();
    links.iter().for_each(|(_, link)| link.ask());
    sleep(links.iter().map(|(_, link)| patience(link.connection())).max().unwrap_or_default()).await;
    links.iter().all(|(pulse, link)| link.pulse() != *pulse)
}

/// Tells the other node to take its visitors elsewhere: a stream with nothing in it says so.
async fn say_farewell(connection: &Connection) {
    // Without room for it, the other node hears of it from its next stream.
    if let Ok(Ok(mut stream)) = timeout(FAREWELL_TIMEOUT, connection.open_uni()).await {
        let _ = stream.finish();
    }
}
