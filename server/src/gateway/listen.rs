//! Accepts visitors.

use super::{
    Gateway, http,
    sniff::{self, Speech},
    socket::Socket,
    tcp,
};
use crate::transport::endpoint;
use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::sleep};
use tracing::Instrument as _;

/// Pause after a failed accept: out of descriptors, most likely, and some visitor will leave.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections and runs `serve` for each in a task of its own, as long as the gateway has room.
pub(super) fn spawn<F, S>(gateway: &Arc<Gateway>, listener: TcpListener, serve: F) -> io::Result<()>
where
    F: Fn(Arc<Gateway>, Socket, SocketAddr) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let gateway = gateway.clone();
    let shutdown = gateway.shutdown.clone();
    shutdown.clone().spawn(async move {
        loop {
            // Without a place the connection waits in the kernel's queue, where it costs nothing here.
            let place = tokio::select! {
                () = shutdown.draining() => break,
                place = gateway.visitors.clone().acquire_owned() => place,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                () = shutdown.draining() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a visitor could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            admit(&gateway, &serve, stream, peer, place);
        }
        let last = listener.into_std().map(endpoint::close_listener).unwrap_or_default();
        for (stream, peer) in last {
            let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let (Ok(stream), Ok(place)) = (ready, gateway.visitors.clone().try_acquire_owned()) {
                admit(&gateway, &serve, stream, peer, place);
            }
        }
    });
    Ok(())
}

/// Serves a visitor in a task of its own, unless its source has no room left.
fn admit<F, S>(gateway: &Arc<Gateway>, serve: &F, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit)
where
    F: Fn(Arc<Gateway>, Socket, SocketAddr) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let Some(share) = gateway.sources.enter(peer.ip()) else {
        tracing::debug!(%peer, "a visitor was turned away: its source has as many connections as one may have");
        return;
    };
    let span = tracing::debug_span!("visitor", id = gateway.count.fetch_add(1, Ordering::Relaxed), %peer);
    let visit = serve(gateway.clone(), Socket::new(stream, (place, share)), peer);
    gateway.shutdown.spawn(visit.instrument(span));
}

impl Gateway {
    /// One visitor on the TLS port, from the handshake to the end.
    pub(super) async fn visit(self: Arc<Self>, socket: Socket, peer: SocketAddr) {
        let accepted = tokio::select! {
            accepted = self.tls.accept(socket) => accepted,
            // Its client has not sent a request yet.
            () = self.shutdown.stopping() => return,
        };
        let mut stream = match accepted {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%error, "a visitor's TLS handshake failed"),
        };
        let (_, session) = stream.get_ref();
        let speech = Speech::from_alpn(session.alpn_protocol());
        let destination = session.server_name().and_then(|name| sniff::destination(name, &self.apexes));
        match (speech, destination) {
            (Speech::Link, _) => {
                stream.get_mut().0.carries_packets();
                self.carrier.serve(stream, peer);
            }
            (_, None) => tracing::debug!("a visitor asked for a name outside the apexes"),
            (Speech::Http1, Some(destination)) => http::serve_http1(&self, stream, destination, peer).await,
            (Speech::Http2, Some(destination)) => http::serve_http2(&self, stream, destination, peer).await,
            (Speech::Connect, Some(destination)) => tcp::serve_connect(&self, stream, destination, peer).await,
            (Speech::Unstated, Some(destination)) => match &destination.tunnel {
                // Tools of old offer no ALPN: what the tunnel carries decides. HTTP, too, for a name that nobody
                // serves, since HTTP can say so.
                Some(tunnel) if self.router.find(tunnel).await.is_ok_and(|tunnel| tunnel.carries.raw()) => {
                    tcp::serve_bare(&self, stream, tunnel, peer).await;
                }
                Some(_) | None => http::serve_http1(&self, stream, destination, peer).await,
            },
        }
    }
}
