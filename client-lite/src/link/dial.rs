//! Dials one address over UDP, over TCP, or over both until one answers.

use super::{HANDSHAKE, Link, LinkError, Settings, runtime::DeferRuntime};
use crate::{links::Plan, target::Authority};
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig};
use rustls_pki_types::ServerName;
use specter_carry::Carried;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

/// Opens a link as planned. Over TCP none is tried that UDP has an answer for, be it a refusal.
pub(super) async fn dial(
    (apex, address): (Authority, SocketAddr),
    endpoint: Result<Endpoint, LinkError>,
    settings: Settings,
    plan: Plan,
) -> Result<Link, LinkError> {
    let silent = || LinkError::Silent { apex: apex.to_string() };
    let udp = async {
        if !plan.udp {
            return Err(silent());
        }
        let connection = shake(&endpoint?, (&apex, address), settings.udp).await?;
        Ok(Link { connection, carried: None })
    };
    let Some(head_start) = plan.tcp_after else { return udp.await };
    let tcp = async {
        if plan.udp {
            sleep(head_start).await;
        }
        // One deadline for all that it takes.
        timeout(HANDSHAKE, over_tcp(&apex, address, settings.tls, settings.tcp)).await.unwrap_or_else(|_| Err(silent()))
    };
    tokio::pin!(udp, tcp);
    let (mut udp_silent, mut tcp_failed) = (None, None);
    loop {
        tokio::select! {
            dialled = &mut udp, if udp_silent.is_none() => match dialled {
                Err(error @ (LinkError::Silent { .. } | LinkError::Socket { .. })) => udp_silent = Some(error),
                dialled @ (Ok(_) | Err(_)) => return dialled,
            },
            dialled = &mut tcp, if tcp_failed.is_none() => match dialled {
                Ok(link) => return Ok(link),
                Err(error) => tcp_failed = Some(error),
            },
        }
        // What somebody said tells more than silence.
        match (udp_silent.take(), tcp_failed.take()) {
            (Some(silence), Some(LinkError::Silent { .. } | LinkError::Socket { .. })) if plan.udp => {
                return Err(silence);
            }
            (Some(_), Some(error)) => return Err(error),
            (udp, tcp) => (udp_silent, tcp_failed) = (udp, tcp),
        }
    }
}

/// Makes the QUIC handshake.
async fn shake(
    endpoint: &Endpoint,
    (apex, address): (&Authority, SocketAddr),
    config: quinn::ClientConfig,
) -> Result<Connection, LinkError> {
    let connecting = endpoint
        .connect_with(config, address, &apex.host)
        .map_err(|source| LinkError::Name { host: apex.host.clone(), source })?;
    match timeout(HANDSHAKE, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(ConnectionError::TimedOut)) | Err(_) => Err(LinkError::Silent { apex: apex.to_string() }),
        Ok(Err(error)) => Err(LinkError::from_connection(error, apex)),
    }
}

/// Opens a link whose packets go over TLS on TCP.
async fn over_tcp(
    apex: &Authority,
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    config: quinn::ClientConfig,
) -> Result<Link, LinkError> {
    let failed = |source: io::Error| LinkError::from_tcp(source, apex);
    let name = ServerName::try_from(apex.host.clone())
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidInput, "the name cannot stand in a certificate")))?;
    let tcp = TcpStream::connect(address).await.map_err(|error| {
        tracing::debug!(%address, %error, "no connection over TCP");
        LinkError::Silent { apex: apex.to_string() }
    })?;
    // They only tune.
    tcp.set_nodelay(true).ok();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES).ok();
    let tls = TlsConnector::from(tls).connect(name, tcp).await.map_err(failed)?;
    let runtime = Arc::new(DeferRuntime::default());
    let carried = Carried::new(tls, address, EndpointConfig::default(), None, runtime).map_err(failed)?;
    let connection = tokio::select! {
        shaken = shake(&carried.endpoint, (apex, address), config) => shaken?,
        error = carried.lost() => return Err(failed(error)),
    };
    Ok(Link { connection, carried: Some(carried) })
}

/// What the kernel holds of a link's packets beyond what is on its way: a small one must not stand behind many large ones.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 * 1024;
