//! Raw TCP by SNI.

use super::{
    Gateway,
    sniff::Destination,
    socket::Socket,
    splice::{Status, Visitor, splice},
};
use bytes::Bytes;
use specter_wire::{error::ErrorCode, name::Hostname};
use std::{net::SocketAddr, sync::Arc};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::server::TlsStream;

/// A visitor of `client-lite connect`: it is told by one byte how the dial went, then the bytes follow.
pub(super) async fn serve_connect(
    gateway: &Arc<Gateway>,
    mut stream: TlsStream<Socket>,
    destination: Destination,
    peer: SocketAddr,
) {
    let opened = match &destination.tunnel {
        None => Err(ErrorCode::UnknownHostname),
        Some(tunnel) => gateway.router.open(tunnel, peer).await.map_err(|refusal| refusal.0),
    };
    match opened {
        Ok(tunnel) => {
            stream.get_mut().0.carries_raw_bytes();
            report(splice(stream, Bytes::new(), tunnel, Status::Pass).await);
        }
        Err(code) => {
            tracing::debug!(%code, "a visitor was turned away");
            // A visitor that has gone needs no answer.
            let _ = stream.write_all(&[code.number()]).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// A visitor of any TLS program that states no protocol: it gets the bytes alone.
pub(super) async fn serve_bare(
    gateway: &Arc<Gateway>,
    mut stream: TlsStream<Socket>,
    tunnel: &Hostname,
    peer: SocketAddr,
) {
    match gateway.router.open(tunnel, peer).await {
        Ok(tunnel) => {
            stream.get_mut().0.carries_raw_bytes();
            report(splice(stream, Bytes::new(), tunnel, Status::Take).await);
        }
        Err(refusal) => {
            tracing::debug!(%refusal, "a visitor was turned away");
            stream.abort();
        }
    }
}

pub(super) fn report(outcome: Result<(), super::splice::SpliceError>) {
    if let Err(error) = outcome {
        tracing::debug!(error = &error as &dyn std::error::Error, "a visitor's stream broke off");
    }
}
