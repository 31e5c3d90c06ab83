//! A node and a client of ours.

use crate::{
    Outcome,
    meter::Parts,
    path::{Path as Way, Speaks},
    programs::Programs,
};
use cluster::process::Process;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{net::SocketAddr, path::Path};
use tokio::process::Command;

/// Tunnels that the client publishes: one over HTTP, one raw, the rest idle.
pub(crate) const TUNNELS: usize = 10;

/// A node.
pub(crate) struct Node {
    pub(crate) process: Process,
    /// TLS, and QUIC at the same port.
    pub(crate) address: SocketAddr,
    /// Authority of what it serves.
    pub(crate) authority: CertificateDer<'static>,
    authority_file: std::path::PathBuf,
}

/// A client with [`TUNNELS`] tunnels.
pub(crate) struct Client {
    pub(crate) process: Process,
    /// Host name of the tunnel to the target over HTTP.
    pub(crate) http: String,
    /// Host name of the tunnel to the target as bytes.
    pub(crate) raw: String,
}

impl Node {
    /// Starts a node with new authorities and an empty store in `folder`.
    pub(crate) async fn start(programs: &Programs, folder: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(folder)?;
        let certificates = folder.join("certs");
        let mut init = Command::new(&programs.server);
        init.args(["pki", "init", "--advertise", "localhost:0", "--cert-dir"]).arg(&certificates);
        let made = init.output().await?;
        if !made.status.success() {
            return Err(format!("pki init: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let config = folder.join("server.toml");
        let settings = format!(
            "listen = [\"127.0.0.1:0\"]\nlisten_http = [\"127.0.0.1:0\"]\napex = [\"localhost\"]\nadvertise = \"localhost:0\"\n\
             data_dir = {:?}\ncert_dir = {certificates:?}\nlog = \"warn\"\n\
             # Registering thousands of clients is not what is measured.\nwork_bits = 1\n",
            folder.join("data"),
        );
        std::fs::write(&config, settings)?;
        let mut run = Command::new(&programs.server);
        run.args(["run", "--config"]).arg(&config);
        let mut process = Process::talking("node", run, folder)?;
        let mut address = None;
        process
            .line(|line| {
                address = address.or_else(|| line.strip_prefix("listening tcp ")?.parse().ok());
                (line == "ready").then_some(())
            })
            .await?;
        let address = address.ok_or("the node did not say where it listens")?;
        let authority_file = certificates.join("gateway-ca.crt");
        let authority = CertificateDer::from_pem_file(&authority_file)?;
        Ok(Self { process, address, authority, authority_file })
    }

    /// Starts a client of this node that leads to `target`.
    pub(crate) async fn client(&self, programs: &Programs, folder: &Path, target: SocketAddr) -> Outcome<Client> {
        std::fs::create_dir_all(folder)?;
        let config = folder.join("client.yaml");
        let mut settings = format!(
            "version: 2\napex: localhost:{}\ncaFile: {:?}\ntunnels:\n  - target: http://{target}\n  - target: tcp://{target}\n",
            self.address.port(),
            self.authority_file,
        );
        for _ in 2..TUNNELS {
            settings.push_str(&format!("  - target: http://{target}\n"));
        }
        std::fs::write(&config, settings)?;
        let mut run = Command::new(&programs.client);
        run.args(["tunnel", "--log", "warn", "--config"]).arg(&config);
        let mut process = Process::talking("client", run, folder)?;
        let (mut http, mut raw, mut published) = (None, None, 0);
        process
            .line(|line| {
                let (url, _) = line.split_once(" -> ")?;
                let (scheme, authority) = url.split_once("://")?;
                let host = authority.split(':').next()?.to_owned();
                if scheme == "tcp" {
                    raw = Some(host);
                } else {
                    http = Some(host);
                }
                published += 1;
                (published == TUNNELS).then_some(())
            })
            .await?;
        let missing = "the client did not publish what it was told to";
        Ok(Client { process, http: http.ok_or(missing)?, raw: raw.ok_or(missing)? })
    }

    /// The paths through this node and a client of it.
    pub(crate) fn paths(&self, client: &Client, target: u32) -> [Way; 2] {
        let way = |name, host: &str, speaks| Way {
            name,
            address: self.address,
            host: host.to_owned(),
            speaks,
            parts: Parts { node: vec![self.process.id()], client: vec![client.process.id()], target: vec![target] },
            trust: vec![self.authority.clone()],
        };
        [way("tunnel-http", &client.http, Speaks::Http), way("tunnel-raw", &client.raw, Speaks::Connect)]
    }
}
