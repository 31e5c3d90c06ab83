//! `specter-server dev`: a node and a client on this computer, with a page to look at. Needs no file, no root and no
//! network.
//!
//! | part | does |
//! |---|---|
//! | `folder` | the data directory: certificates, store, the client's configuration; the same at each start |
//! | `page` | the built-in page |
//! | `client` | the client, on a thread of its own |
//! | `welcome` | the lines to try next |

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
};

use specter_wire::name::Hostname;

use crate::{
    config::{Advertise, Config, CredentialsSource, SyncPolicy},
    run::Running,
    serve::{self, ServeError, serve},
    shutdown::Shutdown,
};

mod client;
mod folder;
mod page;
mod welcome;

pub use client::ClientError;
pub use folder::FolderError;

/// What `dev` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// For TLS and QUIC; 0 lets the system draw one.
    pub port: u16,
    /// For plain HTTP; 0 lets the system draw one.
    pub http_port: u16,
    /// A target to publish instead of the built-in page.
    pub expose: Option<String>,
    /// Filter of the log.
    pub log: String,
}

/// Runs until a signal ends it.
///
/// # Errors
/// [`DevError`], a sentence for whoever started it.
pub fn dev(options: &Options) -> Result<(), DevError> {
    if let Some(target) = &options.expose {
        check_target(target)?;
    }
    let folder = folder::Folder::open(&options.data_dir)?;
    let listen = loopback(options.port, "--port", Transport::TcpAndUdp)?;
    let config = Config {
        advertise: Advertise { host: APEX.to_owned(), port: options.port },
        listen_tcp: listen.clone(),
        listen_udp: listen,
        join: Vec::new(),
        listen_http: loopback(options.http_port, "--http-port", Transport::Tcp)?,
        data_dir: folder.node(),
        sync: SyncPolicy::default(),
        credentials: CredentialsSource::Directory(folder.certificates()),
        apexes: vec![Hostname::parse(APEX).map_err(|_| DevError::Apex)?],
        certificates: Vec::new(),
        log: options.log.clone(),
        log_json: false,
        work_bits: WORK_BITS,
        workers: 0,
    };
    serve(config, async |running: &Running, shutdown: &Shutdown| {
        publish(&folder, options.expose.as_deref(), running, shutdown)
            .await
            .map_err(|error| ServeError::Beside(Box::new(error)))
    })?;
    Ok(())
}

/// Why `dev` does not work here.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The data directory.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Somebody listens there already.
    #[error("port {port} is in use by another program; stop that one, or choose another port with {flag}")]
    PortInUse {
        /// The port.
        port: u16,
        /// The flag that chooses it.
        flag: &'static str,
    },
    /// The system refuses it.
    #[error("port {port} cannot be used; choose one above 1023 with {flag}")]
    Port {
        /// The port.
        port: u16,
        /// The flag that chooses it.
        flag: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Not a target.
    #[error("--expose: `{0}` is no target; write for example http://127.0.0.1:5173 or tcp://127.0.0.1:22")]
    Target(String),
    /// Cannot happen: the apex is a constant.
    #[error("`{APEX}` is no domain")]
    Apex,
    /// The built-in page.
    #[error("the built-in page cannot be served on loopback")]
    Page(#[source] io::Error),
    /// The client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Starts the page and the client, waits for the tunnel, and prints what to do with it.
async fn publish(
    folder: &folder::Folder,
    expose: Option<&str>,
    running: &Running,
    shutdown: &Shutdown,
) -> Result<impl Future<Output = ()> + use<>, DevError> {
    let target = match expose {
        Some(target) => target.to_owned(),
        None => format!("http://{}", page::serve(shutdown).await.map_err(DevError::Page)?),
    };
    let port = running.tcp.first().map_or(0, SocketAddr::port);
    folder.write_client_config(&format!("{APEX}:{port}"), &target)?;
    let (client, published) = client::Client::start(folder.client_config()).await?;
    serve::print(&welcome::text(&welcome::Facts {
        url: &published.url,
        target: &published.target,
        apex: APEX,
        port,
        http_port: running.http.first().map(SocketAddr::port),
        ca: &folder.ca(),
    }));
    Ok(client.stop())
}

enum Transport {
    Tcp,
    TcpAndUdp,
}

/// The loopback addresses of a port, checked: IPv4, and IPv6 where the system has it.
fn loopback(port: u16, flag: &'static str, transport: Transport) -> Result<Vec<SocketAddr>, DevError> {
    let four = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let six = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
    let try_bind = |address| -> io::Result<()> {
        TcpListener::bind(address)?;
        match transport {
            Transport::Tcp => {}
            Transport::TcpAndUdp => drop(UdpSocket::bind(address)?),
        }
        Ok(())
    };
    let refused = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => DevError::PortInUse { port, flag },
        _ => DevError::Port { port, flag, source },
    };
    try_bind(four).map_err(refused)?;
    // Two draws would give two ports.
    if port == 0 {
        return Ok(vec![four]);
    }
    match try_bind(six) {
        Ok(()) => Ok(vec![four, six]),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(refused(error)),
        // A system without IPv6.
        Err(_) => Ok(vec![four]),
    }
}

/// Refuses what is no target at all or cannot stand in the client's configuration; the client judges the rest.
fn check_target(target: &str) -> Result<(), DevError> {
    let clean = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    let known = ["tcp://", "http://", "https://", "unix://"].iter().any(|scheme| target.starts_with(scheme));
    if clean && known { Ok(()) } else { Err(DevError::Target(target.to_owned())) }
}

/// Resolves to loopback in browsers and curl (RFC 6761 §6.3).
const APEX: &str = "localhost";

/// Enough to exercise the proof of work, and no wait.
const WORK_BITS: u8 = 8;

#[cfg(test)]
mod tests;
