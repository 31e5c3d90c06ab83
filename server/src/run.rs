//! Stands in for the composition root on this branch.
#![allow(missing_docs, unused)]

use std::net::SocketAddr;

use crate::{config::Config, identity::Credentials, shutdown::Shutdown};

#[derive(Debug)]
pub struct Running {
    pub tcp: Vec<SocketAddr>,
    pub udp: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct StartError {
    address: SocketAddr,
    source: std::io::Error,
}

pub async fn start(config: Config, credentials: Credentials, shutdown: Shutdown) -> Result<Running, StartError> {
    let mut tcp = Vec::new();
    if let Some(address) = config.listen_tcp.first().copied() {
        let listener = std::net::TcpListener::bind(address).map_err(|source| StartError { address, source })?;
        tcp.push(listener.local_addr().map_err(|source| StartError { address, source })?);
        shutdown.clone().spawn(async move {
            let _listener = listener;
            shutdown.stopping().await;
        });
    }
    Ok(Running { udp: tcp.clone(), http: config.listen_http, tcp })
}

impl Running {
    pub async fn stop(self) {}
}
