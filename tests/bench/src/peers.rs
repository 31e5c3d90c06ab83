//! Other tunnels. None of them ends a visitor's TLS, so each is measured twice where it matters: carrying TLS that ends at
//! the target (`rathole`, `bore`, `chisel`), and as it is deployed to serve the web, behind nginx (`nginx+rathole`).

use crate::{
    Outcome,
    certificates::{Certificates, NAME},
    meter::Parts,
    nginx::{self, free_port},
    path::{Path as Way, Speaks},
    programs,
};
use cluster::process::Process;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::TcpStream, process::Command, time::sleep};

/// A tunnel that runs.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) server: Process,
    pub(crate) client: Process,
    /// Where visitors reach the target's TLS port.
    address: SocketAddr,
    /// Where visitors reach the target's plain port, if it carries that, too.
    plain: Option<SocketAddr>,
}

/// Where the target listens.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) process: u32,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

/// All peers that are installed; the names of the others.
pub(crate) async fn start(folder: &Path, target: Target) -> Outcome<(Vec<Peer>, Vec<&'static str>)> {
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    for name in ["rathole", "bore", "chisel"] {
        let Some(program) = programs::find(name) else {
            missing.push(name);
            continue;
        };
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let peer = match name {
            "rathole" => rathole(program, &folder, target).await?,
            "bore" => bore(program, &folder, target).await?,
            _ => chisel(program, &folder, target).await?,
        };
        peers.push(peer);
    }
    Ok((peers, missing))
}

impl Peer {
    /// Its path to the target's TLS port.
    pub(crate) fn path(&self, target: Target, certificates: &Certificates) -> Way {
        Way {
            name: self.name,
            address: self.address,
            host: NAME.to_owned(),
            speaks: Speaks::Http1,
            parts: self.parts(target),
            trust: vec![certificates.authority.clone()],
        }
    }

    /// Its path to the target's plain port with an nginx in front, if it carries that port.
    pub(crate) async fn behind_nginx(
        &self,
        nginx: &Path,
        folder: &Path,
        target: Target,
        certificates: &Certificates,
    ) -> Outcome<Option<(Process, Way)>> {
        let Some(plain) = self.plain else { return Ok(None) };
        let (process, address) = nginx::start(nginx, folder, certificates, plain).await?;
        let mut parts = self.parts(target);
        parts.node.push(process.id());
        Ok(Some((process, nginx::path("nginx+rathole", address, certificates, parts))))
    }

    fn parts(&self, target: Target) -> Parts {
        Parts { node: vec![self.server.id()], client: vec![self.client.id()], target: vec![target.process] }
    }
}

/// Encrypted with Noise: its TLS needs OpenSSL to build.
async fn rathole(program: PathBuf, folder: &Path, target: Target) -> Outcome<Peer> {
    let output = Command::new(&program).arg("--genkey").output().await?;
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let after = |title: &str| lines.iter().skip_while(|line| !line.starts_with(title)).nth(1).copied();
    let (Some(private), Some(public)) = (after("Private Key"), after("Public Key")) else {
        return Err(format!("rathole --genkey said: {text}").into());
    };
    let (control, secure, plain) = (free_port()?, free_port()?, free_port()?);
    let server = format!(
        "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
         [server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{private}\"\n\
         [server.services.secure]\nbind_addr = \"127.0.0.1:{secure}\"\n\
         [server.services.plain]\nbind_addr = \"127.0.0.1:{plain}\"\n"
    );
    let client = format!(
        "[client]\nremote_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
         [client.transport]\ntype = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{public}\"\n\
         [client.services.secure]\nlocal_addr = \"{}\"\n[client.services.plain]\nlocal_addr = \"{}\"\n",
        target.tls, target.plain
    );
    let run = |name: &str, settings: String| {
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, settings)?;
        let mut command = Command::new(&program);
        command.arg(format!("--{name}")).arg(&config).env("RUST_LOG", "error");
        Process::logging(name, command, folder)
    };
    let (server, client) = (run("server", server)?, run("client", client)?);
    let [address, plain] = [secure, plain].map(loopback);
    listening(address, &client).await?;
    listening(plain, &client).await?;
    Ok(Peer { name: "rathole", server, client, address, plain: Some(plain) })
}

/// Not encrypted. Its control port is fixed, so each run takes a loopback address of its own.
async fn bore(program: PathBuf, folder: &Path, target: Target) -> Outcome<Peer> {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = IpAddr::V4(Ipv4Addr::new(127, 77, high, low.clamp(1, 254))).to_string();
    let port = free_port()?;
    let run = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env("RUST_LOG", "error");
        Process::logging(name, command, folder)
    };
    let server = run("server", &["server", "--bind-addr", &host, "--bind-tunnels", "127.0.0.1"])?;
    listening(SocketAddr::new(host.parse()?, 7835), &server).await?;
    let (port_text, target_text) = (port.to_string(), target.tls.port().to_string());
    let client =
        run("client", &["local", "--to", &host, "--local-host", "127.0.0.1", "--port", &port_text, &target_text])?;
    let address = loopback(port);
    listening(address, &client).await?;
    Ok(Peer { name: "bore", server, client, address, plain: None })
}

/// SSH over a WebSocket.
async fn chisel(program: PathBuf, folder: &Path, target: Target) -> Outcome<Peer> {
    let (control, port) = (free_port()?, free_port()?);
    let mut server = Command::new(&program);
    server.args(["server", "--host", "127.0.0.1", "--reverse", "--port", &control.to_string()]);
    let server = Process::logging("server", server, folder)?;
    listening(loopback(control), &server).await?;
    let mut client = Command::new(&program);
    client.arg("client").arg(format!("http://127.0.0.1:{control}")).arg(format!("R:127.0.0.1:{port}:{}", target.tls));
    let client = Process::logging("client", client, folder)?;
    let address = loopback(port);
    listening(address, &client).await?;
    Ok(Peer { name: "chisel", server, client, address, plain: None })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits until something accepts connections at an address: these programs do not tell.
pub(crate) async fn listening(address: SocketAddr, process: &Process) -> Outcome<()> {
    for _ in 0..200 {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(format!("nothing listens on {address}: {}", process.last_words()).into())
}
