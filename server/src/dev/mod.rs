//! `specter-server dev`: a node and a client on this computer, with a page to look at. Needs no file, no root and no
//! network.
//!
//! | part | does |
//! |---|---|
//! | `folder` | the data directory: certificates, store, the client's configuration; the same at each start |
//! | `members` | the other nodes of `--nodes`, each a process of its own |
//! | `page` | the built-in page |
//! | `client` | the client, on a thread of its own |
//! | `welcome` | the lines to try next |

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use members::{Member, Members, Plan};
use specter_wire::name::Hostname;

use crate::{
    config::{Advertise, Config, CredentialsSource, SyncPolicy},
    run::Running,
    serve::{self, ServeError, serve},
    shutdown::Shutdown,
};

mod client;
mod folder;
mod members;
mod page;
mod welcome;

pub use client::ClientError;
pub use folder::{FolderError, NODES_MAX};
pub use members::MemberError;

/// What `dev` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// This program's file.
    pub program: PathBuf,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// For TLS and QUIC; 0 lets the system draw one.
    pub port: u16,
    /// For plain HTTP; 0 lets the system draw one.
    pub http_port: u16,
    /// How many nodes; none for as many as there were before, or one. The ports of the others follow on those of the first.
    pub nodes: Option<u8>,
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
    let count = options.nodes.unwrap_or(1).max(folder.nodes());
    if options.nodes.is_some_and(|nodes| nodes < count) {
        serve::print(&format!(
            "All {count} nodes that were started here before are started: they keep data together.\n"
        ));
    }
    let listen = loopback(options.port, "--port", Transport::TcpAndUdp)?;
    let others = (1..u16::from(count)).map(|offset| {
        Ok((
            loopback(next_port(options.port, offset), "--port", Transport::TcpAndUdp)?,
            loopback(next_port(options.http_port, offset), "--http-port", Transport::Tcp)?,
        ))
    });
    let plan = Plan {
        count,
        listen: others.collect::<Result<_, DevError>>()?,
        program: options.program.clone(),
        apex: APEX,
        log: options.log.clone(),
        work_bits: WORK_BITS,
    };
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
        // Where there are others, they end together with this one: nobody is there to go on.
        drain: if count > 1 { Duration::ZERO } else { DRAIN },
        workers: 0,
    };
    serve(config, async |running: &Running, shutdown: &Shutdown| {
        publish(&folder, &plan, options.expose.as_deref(), running, shutdown)
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
    /// Another node.
    #[error(transparent)]
    Member(#[from] MemberError),
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
    plan: &Plan,
    expose: Option<&str>,
    running: &Running,
    shutdown: &Shutdown,
) -> Result<impl Future<Output = ()> + use<>, DevError> {
    let target = match expose {
        Some(target) => target.to_owned(),
        None => format!("http://{}", page::serve(shutdown).await.map_err(DevError::Page)?),
    };
    let port = running.tcp.first().map_or(0, SocketAddr::port);
    let members = match running.udp.first() {
        Some(first) => Some(Members::start(folder, plan, *first).await?),
        None => None,
    };
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
    if let Some(members) = members.as_ref().map(|members| &members.members).filter(|members| !members.is_empty()) {
        serve::print(&nodes_text(port, members));
    }
    Ok(async move {
        client.stop().await;
        if let Some(members) = members {
            members.stop().await;
        }
    })
}

/// Where each node is, and how to end it.
fn nodes_text(port: u16, members: &[Member]) -> String {
    let mut text = format!(
        "\nNodes of this cluster. Ending one with the words behind it does no harm; `kill -9` does not either.\n\
         node 1  {APEX}:{port}  this process, which ends the others, too\n"
    );
    for Member { number, pid, port } in members {
        text.push_str(&format!("node {number}  {APEX}:{port}  kill {pid}\n"));
    }
    text
}

/// Zero is drawn by the system for each node.
fn next_port(port: u16, offset: u16) -> u16 {
    if port == 0 { 0 } else { port.saturating_add(offset) }
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

/// What is in progress when it ends has this long.
const DRAIN: Duration = Duration::from_secs(5);

/// Enough to exercise the proof of work, and no wait.
const WORK_BITS: u8 = 8;

#[cfg(test)]
mod tests;
