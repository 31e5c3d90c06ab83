//! Several nodes with one authority, each with its own ports and data.

use crate::{Outcome, process::Process};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use tokio::{process::Command, time::interval};

/// How nodes are made.
pub struct Plan<'a> {
    /// The program `specter-server`.
    pub program: &'a Path,
    /// Where everything goes.
    pub folder: &'a Path,
    /// What nodes log.
    pub log: &'a str,
    /// Words before the program of the n-th node, such as `ip netns exec NAME`.
    pub wrap: Vec<Vec<String>>,
    /// Where the n-th node listens.
    pub ips: Vec<IpAddr>,
    /// A node that is to be reached at another address than its own, such as a relay's.
    pub behind: Option<Behind>,
}

/// A node that tells others another address than the one that it listens on.
#[derive(Clone, Copy)]
pub struct Behind {
    /// Which node.
    pub index: usize,
    /// Its own port.
    pub port: u16,
    /// What it tells others.
    pub address: SocketAddr,
}

/// A node, running or not.
pub struct Node {
    /// Where visitors, links and other nodes connect.
    pub address: SocketAddr,
    /// What it is called in logs.
    pub name: String,
    folder: PathBuf,
    program: PathBuf,
    command: Vec<String>,
    process: Option<Process>,
}

/// A part of what `ring status` says of a node.
#[derive(Deserialize, Debug)]
pub struct Status {
    /// Its identity.
    pub node: String,
    /// The other nodes.
    pub members: Vec<Member>,
    /// What it keeps.
    pub slots: Vec<Slot>,
    /// How many links it has.
    pub link_count: usize,
}

/// Another node, as one node sees it.
#[derive(Deserialize, Debug)]
pub struct Member {
    /// Its identity.
    pub node: String,
    /// `alive`, `leaving` or `silent`.
    pub standing: String,
}

/// A slot that a node keeps.
#[derive(Deserialize, Debug)]
pub struct Slot {
    /// Whether it has fewer replicas than it should.
    pub under_replicated: bool,
    /// Whether its replicas are being changed.
    pub changing: bool,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |is: fn(&Slot) -> bool| self.slots.iter().filter(|slot| is(slot)).count();
        let (few, changing) = (count(|slot| slot.under_replicated), count(|slot| slot.changing));
        let (alive, members, slots) = (self.alive(), self.members.len(), self.slots.len());
        write!(
            f,
            "{alive} of {members} others alive, {few} of {slots} slots with too few replicas, {changing} changing"
        )
    }
}

impl Status {
    /// How many others are alive.
    pub fn alive(&self) -> usize {
        self.members.iter().filter(|member| member.standing == "alive").count()
    }

    /// Whether so many others are alive, and every slot is kept as it should be.
    pub fn is_whole(&self, others: usize) -> bool {
        self.alive() == others && self.slots.iter().all(|slot| !slot.under_replicated && !slot.changing)
    }
}

/// Nodes that join each other.
pub struct Nodes {
    /// In the order of the plan.
    pub nodes: Vec<Node>,
    /// What visitors and clients trust.
    pub authority: CertificateDer<'static>,
    /// The same as a file.
    pub authority_file: PathBuf,
}

/// The domain of every tunnel.
pub const APEX: &str = "localhost";

/// Ports below those that the system gives to outgoing connections: nobody takes the port of a node that is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Time between two looks at a node's status.
const POLL: Duration = Duration::from_millis(200);

/// Lines of each log that a failing test shows.
const SHOWN: usize = 60;

/// How long a node may take to stop in order: what is promised.
pub const STOP: Duration = Duration::from_secs(30);

impl<'a> Plan<'a> {
    /// So many nodes on loopback.
    pub fn loopback(program: &'a Path, folder: &'a Path, count: usize) -> Self {
        let ips = vec![Ipv4Addr::LOCALHOST.into(); count];
        Self { program, folder, log: "info", wrap: vec![Vec::new(); count], ips, behind: None }
    }
}

impl Nodes {
    /// Makes certificates and starts all, one after the other so that they find each other; waits until each is ready.
    ///
    /// # Errors
    /// What a program complained about.
    pub async fn start(plan: &Plan<'_>) -> Outcome<Self> {
        let mut nodes = Self::prepare(plan).await?;
        for node in &mut nodes.nodes {
            node.start().await?;
        }
        Ok(nodes)
    }

    /// Makes certificates and settings, and starts nothing.
    ///
    /// # Errors
    /// What a program complained about.
    pub async fn prepare(plan: &Plan<'_>) -> Outcome<Self> {
        fs::create_dir_all(plan.folder)?;
        let mut addresses: Vec<_> = plan.ips.iter().map(|ip| draw(*ip)).collect::<Outcome<_>>()?;
        if let Some(Behind { index, port, .. }) = plan.behind {
            addresses[index].set_port(port);
        }
        let certificates = |index: usize| plan.folder.join(format!("certs-{index}"));
        let mut nodes = Vec::new();
        for (index, (address, wrap)) in addresses.iter().zip(&plan.wrap).enumerate() {
            let (first, own) = (certificates(0), certificates(index));
            let behind = plan.behind.filter(|behind| behind.index == index).map(|behind| behind.address);
            let advertise = behind.unwrap_or(*address).to_string();
            let mut make = Command::new(plan.program);
            if index == 0 {
                make.args(["pki", "init", "--advertise", &advertise, "--cert-dir"]).arg(&own);
            } else {
                make.args(["pki", "node", "--advertise", &advertise, "--cert-dir"]).arg(first).arg("--out").arg(&own);
            }
            succeed("pki", make).await?;
            let folder = plan.folder.join(format!("node-{index}"));
            fs::create_dir_all(&folder)?;
            let others: Vec<_> = addresses.iter().filter(|other| *other != address).map(ToString::to_string).collect();
            // The first makes the cluster on its first start; settings for later starts are written by `Node::start`.
            let join = if index == 0 { Vec::new() } else { others.clone() };
            let settings = Settings { address: *address, behind, folder: &folder, certificates: &own, log: plan.log };
            fs::write(folder.join("server.toml"), settings.text(&join))?;
            fs::write(folder.join("again.toml"), settings.text(&others))?;
            let mut command = wrap.clone();
            command.push(plan.program.display().to_string());
            nodes.push(Node {
                address: *address,
                name: format!("node-{index}"),
                folder,
                program: plan.program.to_owned(),
                command,
                process: None,
            });
        }
        let authority_file = certificates(0).join("gateway-ca.crt");
        let authority = CertificateDer::from_pem_file(&authority_file)?;
        Ok(Self { nodes, authority, authority_file })
    }

    /// Where each listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Waits until all that run agree that they are one ring and that nothing is to be moved, and tells how long it took.
    ///
    /// # Errors
    /// What the first one that is not content says at the end.
    pub async fn whole(&self, limit: Duration) -> Outcome<Duration> {
        let running: Vec<&Node> = self.nodes.iter().filter(|node| node.process.is_some()).collect();
        let others = running.len() - 1;
        self.when(limit, "one ring", |status| status.is_whole(others)).await
    }

    /// Waits until the status of every node that runs is as wanted.
    ///
    /// # Errors
    /// What the first one whose status is not so says at the end.
    pub async fn when(&self, limit: Duration, what: &str, want: impl Fn(&Status) -> bool) -> Outcome<Duration> {
        let (start, mut pace) = (Instant::now(), interval(POLL));
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            loop {
                let said = node.status().await;
                if said.as_ref().is_ok_and(&want) {
                    break;
                }
                if start.elapsed() > limit {
                    let said = said.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Err(format!("{} is not {what} after {limit:?}: {said}", node.name).into());
                }
                pace.tick().await;
            }
        }
        Ok(start.elapsed())
    }

    /// Starts all that do not run, at once, and waits until each is ready.
    ///
    /// # Errors
    /// What a program complained about.
    pub async fn start_all(&mut self) -> Outcome<()> {
        for node in &mut self.nodes {
            node.spawn()?;
        }
        for node in &mut self.nodes {
            node.ready().await?;
        }
        Ok(())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = node.log();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {}\n{}", node.name, lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
            }
        }
    }
}

impl Node {
    /// Starts it with the data that it has, and waits until it is ready. After its first start it joins all others.
    ///
    /// # Errors
    /// What it complained about.
    pub async fn start(&mut self) -> Outcome<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&mut self) -> Outcome<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let has_data = self.data().exists();
        let settings = self.folder.join(if has_data { "again.toml" } else { "server.toml" });
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(["run", "--config"]).arg(settings);
        self.process = Some(Process::talking(&self.name, command, &self.folder)?);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// What it complained about.
    pub async fn ready(&mut self) -> Outcome<()> {
        let process = self.process.as_mut().ok_or("the node was not started")?;
        process.line(|line| (line == "ready").then_some(())).await
    }

    /// Stops it with SIGTERM and tells how long that took.
    ///
    /// # Errors
    /// If it takes more than [`STOP`], or ends with another code than 0.
    pub async fn stop(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        let mut process = self.process.take().ok_or("the node does not run")?;
        process.signal("TERM").await?;
        let status = process.ended(STOP).await?;
        if status.success() {
            Ok(start.elapsed())
        } else {
            Err(format!("{} ended with {status}: {}", self.name, process.last_words()).into())
        }
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Outcome<()> {
        self.process.take().ok_or("the node does not run")?.kill().await
    }

    /// Makes it stand still, without a word to anybody.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn pause(&self) -> Outcome<()> {
        self.running()?.signal("STOP").await
    }

    /// Ends [`Self::pause`].
    ///
    /// # Errors
    /// If it does not run.
    pub async fn resume(&self) -> Outcome<()> {
        self.running()?.signal("CONT").await
    }

    /// Makes it join these at its first start, too.
    ///
    /// # Errors
    /// If its settings cannot be written.
    pub fn join(&self, others: &[SocketAddr]) -> Outcome<()> {
        let file = self.folder.join("server.toml");
        let others: Vec<_> = others.iter().map(ToString::to_string).collect();
        let text = fs::read_to_string(&file)?.replace("join = []", &format!("join = {others:?}"));
        Ok(fs::write(file, text)?)
    }

    /// Words before its program from the next start on, such as `faketime`.
    pub fn wrap(&mut self, words: &[&str]) {
        self.command.splice(0..0, words.iter().map(|word| (*word).to_owned()));
    }

    /// Its program as it runs.
    ///
    /// # Errors
    /// If it does not.
    pub fn running(&self) -> Outcome<&Process> {
        self.process.as_ref().ok_or_else(|| format!("{} does not run", self.name).into())
    }

    /// What `ring status` says of it.
    ///
    /// # Errors
    /// What it complained about.
    pub async fn status(&self) -> Outcome<Status> {
        let mut command = Command::new(&self.program);
        command.args(["ring", "status", "--json", "--data-dir"]).arg(self.data());
        Ok(serde_json::from_str(&succeed("ring status", command).await?)?)
    }

    /// Where its store is.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// All that it logged, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join(format!("{}.log", self.name))).unwrap_or_default()
    }
}

struct Settings<'a> {
    address: SocketAddr,
    behind: Option<SocketAddr>,
    folder: &'a Path,
    certificates: &'a Path,
    log: &'a str,
}

impl Settings<'_> {
    fn text(&self, join: &[String]) -> String {
        let Self { address, behind, folder, certificates, log } = self;
        // A node tells others the address that it listens on, unless that is any.
        let udp =
            if behind.is_some() { SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()) } else { *address };
        format!(
            "listen_tcp = [\"{address}\"]\nlisten_udp = [\"{udp}\"]\nlisten_http = [\"{}:0\"]\napex = [\"{APEX}\"]\n\
             advertise = \"{}\"\ndata_dir = {:?}\ncert_dir = {certificates:?}\njoin = {join:?}\nlog = {log:?}\n\
             # Registering is not what is looked at.\nwork_bits = 1\n",
            address.ip(),
            behind.unwrap_or(*address),
            folder.join("data"),
        )
    }
}

/// Runs a program that must succeed.
///
/// # Errors
/// What it said on standard error.
pub async fn succeed(what: &str, mut command: Command) -> Outcome<String> {
    let output = command.output().await.map_err(|error| format!("{what} does not start: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}

/// How many ports this process has tried: tests that run at a time draw different ones, since a node binds its own later.
static DRAWN: AtomicU32 = AtomicU32::new(0);

/// A port that is free for TCP and UDP, and never the same twice. Others may draw at the same time, so each process begins
/// elsewhere.
fn draw(ip: IpAddr) -> Outcome<SocketAddr> {
    let span = u32::from(PORTS.end - PORTS.start);
    let from = std::process::id().wrapping_mul(977);
    for _ in 0..span {
        let step = DRAWN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(from.wrapping_add(step) % span)?;
        // An address of another network namespace cannot be tried from here, and has all ports free.
        let is_free = || TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok();
        if !ip.is_loopback() || is_free() {
            return Ok(SocketAddr::new(ip, port));
        }
    }
    Err("no port is free".into())
}
