//! Serves the streams that a node opens on a link: header, dial, status byte, splice. One task a stream.

use crate::{
    memory::Memory,
    splice::splice,
    target::{DialError, Target},
    tls::TargetTls,
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use specter_wire::{
    codec::{self, PREFIX_BYTES},
    error::ErrorCode,
    limits::STREAM_FRAME_BYTES,
    name::Hostname,
    stream::{CONNECTED, StreamHeader, StreamKind},
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Which target each served hostname leads to, by the name that messages carry.
pub(crate) type Routes = BTreeMap<Hostname, Arc<Target>>;

/// What the streams of all links share.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    routes: watch::Receiver<Arc<Routes>>,
    tls: Arc<TargetTls>,
    places: Arc<Semaphore>,
    read_bytes: usize,
}

impl Service {
    /// Only the routes decide what is dialled: a node can name a tunnel, never an address.
    pub(crate) fn new(routes: watch::Receiver<Arc<Routes>>, memory: Memory) -> Self {
        let budget = memory.budget();
        let places = Arc::new(Semaphore::new(budget.streams as usize));
        Self { routes, tls: Arc::default(), places, read_bytes: budget.read }
    }

    /// Accepts streams until the connection ends; `tasks` tells when those that came are over.
    pub(crate) async fn accept(&self, connection: &Connection, tasks: &TaskTracker) {
        while let Ok((send, receive)) = connection.accept_bi().await {
            let service = self.clone();
            tasks.spawn(async move { service.stream(send, receive).await });
        }
    }

    async fn stream(self, mut send: SendStream, mut receive: RecvStream) {
        let Ok(_place) = self.places.try_acquire() else {
            refuse(send, receive, ErrorCode::Limit).await;
            return;
        };
        let Ok(Ok(header)) = timeout(HEADER, Header::read(&mut receive)).await else {
            refuse(send, receive, ErrorCode::Malformed).await;
            return;
        };
        // Whose words the log repeats.
        let Header { hostname, visitor, .. } = &header;
        let stream = send.id();
        let mut target = match self.dial(&header).await {
            Ok(target) => target,
            Err(DialError { code, cause }) => {
                debug!(%stream, %hostname, %visitor, %code, cause = cause.map(tracing::field::display), "refused");
                refuse(send, receive, code).await;
                return;
            }
        };
        if send.write_all(&[CONNECTED]).await.is_err() {
            target.abort();
            return;
        }
        match splice(&mut target, &mut send, &mut receive, self.read_bytes).await {
            Ok(()) => debug!(%stream, %hostname, %visitor, "ended"),
            Err(cut) => debug!(%stream, %hostname, %visitor, %cut, "cut"),
        }
    }

    async fn dial(&self, header: &Header) -> Result<crate::target::TargetStream, DialError> {
        let target = self.routes.borrow().get(&header.hostname).cloned();
        let target = target.ok_or_else(|| DialError::code_only(ErrorCode::UnknownHostname))?;
        target.dial(header.kind, &self.tls).await
    }
}

/// A stream's header, kept beyond its frame.
struct Header {
    kind: StreamKind,
    hostname: Hostname,
    visitor: SocketAddr,
}

impl Header {
    async fn read(receive: &mut RecvStream) -> Result<Self, HeaderError> {
        let mut prefix = [0; PREFIX_BYTES];
        receive.read_exact(&mut prefix).await.map_err(|_| HeaderError)?;
        let length = codec::body_length(prefix, STREAM_FRAME_BYTES).map_err(|_| HeaderError)?;
        let mut body = [0; STREAM_FRAME_BYTES];
        let body = &mut body[..length];
        receive.read_exact(body).await.map_err(|_| HeaderError)?;
        let header: StreamHeader<'_> = codec::decode(body).map_err(|_| HeaderError)?;
        let hostname = Hostname::parse(header.hostname).map_err(|_| HeaderError)?;
        Ok(Self { kind: header.kind, hostname, visitor: header.visitor.into() })
    }
}

/// No header came, or something else did.
struct HeaderError;

/// Answers with a status byte and ends both directions. What the node has sent already is dropped.
async fn refuse(mut send: SendStream, mut receive: RecvStream, code: ErrorCode) {
    // Each fails only if the node has given the stream up already.
    send.write_all(&[code.number()]).await.ok();
    send.finish().ok();
    receive.stop(VarInt::from_u32(u32::from(code.number()))).ok();
}

/// Longest wait for a stream's header, which the node sends together with the opening.
const HEADER: Duration = Duration::from_secs(10);
