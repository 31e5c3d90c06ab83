//! `specter-server run` on loopback, with ports of its own choice.

use crate::{PATIENCE, Process, binary, process};
use serde::Deserialize;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Instant, interval},
};

/// A running node and its folder.
pub struct Node {
    /// The program.
    pub process: Process,
    /// Where visitors and links connect.
    pub address: SocketAddr,
    /// Where plain HTTP is answered.
    pub http: SocketAddr,
    folder: TempDir,
    apex: String,
}

impl Node {
    /// Starts a node for the apex `localhost`.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub async fn start() -> Self {
        Self::start_for("localhost").await
    }

    /// Starts a node for another apex.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub async fn start_for(apex: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        pki_init(&folder.path().join("certs")).await;
        let command = run_command(folder.path(), apex, 0, 0);
        Self::from_command(command, folder, apex).await
    }

    /// Starts another node of the same cluster, which joins this one.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub async fn another(&self) -> Self {
        let (folder, command) = self.prepare_another(&self.address.to_string()).await;
        Self::from_command(command, folder, &self.apex).await
    }

    /// A folder with certificates for another node of the same cluster, and the command that starts it and joins the node at
    /// `seed`.
    ///
    /// # Panics
    /// If the certificates cannot be made.
    pub async fn prepare_another(&self, seed: &str) -> (TempDir, Command) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(binary::specter_server());
        command.args(["pki", "node", "--advertise", "127.0.0.1:8443", "--cert-dir"]);
        command.arg(self.folder().join("certs")).arg("--out").arg(folder.path().join("certs"));
        let output = process::run(command, b"").await;
        assert!(output.status.success(), "pki node: {}", process::stderr(&output));
        let mut command = run_command(folder.path(), &self.apex, 0, 0);
        command.args(["--join", seed]);
        (folder, command)
    }

    /// What `ring status` says of this node, once it is as the test wants it.
    ///
    /// # Panics
    /// If it does not become so in time; `what` tells what was waited for.
    pub async fn status_when(&self, what: &str, want: impl Fn(&RingStatus) -> bool) -> RingStatus {
        status_when(&self.folder().join("data").display().to_string(), what, want).await
    }

    /// Stops the node with SIGTERM and starts it again on the same ports and folder.
    ///
    /// # Panics
    /// If it does not stop or start in time.
    pub async fn restart(&mut self) {
        self.process.signal("TERM").await;
        let status = self.process.ended().await;
        assert!(status.success(), "the node stops cleanly: {status}");
        self.start_again().await;
    }

    /// Starts the node again on the same ports and folder after it has ended.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub async fn start_again(&mut self) {
        let command = run_command(self.folder.path(), &self.apex, self.address.port(), self.http.port());
        let process = Process::start(command);
        process.line("that it is ready", |line| line == "ready").await;
        self.process = process;
    }

    /// The port of gateway and links.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The apex with the port, as a client's configuration has it.
    pub fn apex(&self) -> String {
        format!("{}:{}", self.apex, self.port())
    }

    /// The full name of a label under the apex.
    pub fn full_name(&self, label: &str) -> String {
        format!("{label}.{}", self.apex)
    }

    /// What visitors and clients trust.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("certs/gateway-ca.crt")
    }

    /// The folder that holds certificates, data and whatever the test puts there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a node by a command of the test's own, whose certificates lie in `certs` of the folder.
    ///
    /// # Panics
    /// If it is not ready in time.
    pub async fn from_command(command: Command, folder: TempDir, apex: &str) -> Self {
        let process = Process::start(command);
        process.line("that it is ready", |line| line == "ready").await;
        let tcp = process.line("its TCP port", |line| line.starts_with("listening tcp ")).await;
        let http = process.line("its HTTP port", |line| line.starts_with("listening http ")).await;
        Self { process, address: address_in(&tcp), http: address_in(&http), folder, apex: apex.to_owned() }
    }
}

/// What `specter-server ring status --json` prints, as far as tests look at it.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "they are documented where they are made")]
pub struct RingStatus {
    pub joined: bool,
    pub leaving: bool,
    pub slot_count: Option<u16>,
    pub replicas: Option<u8>,
    pub members: Vec<Member>,
    pub slots: Vec<Slot>,
    pub rtts: Vec<serde_json::Value>,
    pub link_count: usize,
    pub links: Vec<Link>,
}

/// Another node.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "they are documented where they are made")]
pub struct Member {
    pub standing: String,
}

/// A slot.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "they are documented where they are made")]
pub struct Slot {
    pub under_replicated: bool,
    pub changing: bool,
}

/// A link.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "they are documented where they are made")]
pub struct Link {
    pub tunnels: usize,
}

/// What `ring status` says of the node of a data directory, once it is as the test wants it.
///
/// # Panics
/// If it does not become so in time.
pub async fn status_when(data_dir: &str, what: &str, want: impl Fn(&RingStatus) -> bool) -> RingStatus {
    let deadline = Instant::now() + PATIENCE;
    let mut looks = interval(Duration::from_millis(200));
    let mut last = String::new();
    while Instant::now() < deadline {
        looks.tick().await;
        let output = server(&["ring", "status", "--json", "--data-dir", data_dir]).await;
        match serde_json::from_slice(&output.stdout) {
            Ok(status) if want(&status) => return status,
            Ok(status) => last = format!("{status:?}"),
            Err(_) => last = process::stderr(&output),
        }
    }
    panic!("{what}: not in time; last {last}")
}

/// Makes certificates for a node in `folder`.
///
/// # Panics
/// If that fails.
pub async fn pki_init(folder: &Path) {
    let mut command = Command::new(binary::specter_server());
    command.args(["pki", "init", "--advertise", "127.0.0.1:8443", "--cert-dir"]).arg(folder);
    let output = process::run(command, b"").await;
    assert!(output.status.success(), "pki init: {}", process::stderr(&output));
}

/// The address at the end of a line `listening <what> <address>`.
///
/// # Panics
/// If there is none.
pub fn address_in(line: &str) -> SocketAddr {
    let text = line.rsplit(' ').next().unwrap_or(line);
    text.parse().unwrap_or_else(|_| panic!("no address in {line:?}"))
}

/// Runs `specter-server` with these arguments to its end.
///
/// # Panics
/// If it does not end in time.
pub async fn server(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary::specter_server());
    command.args(arguments);
    process::run(command, b"").await
}

/// `specter-server run` with everything below `folder`, and a proof of work that costs a debug build nothing.
///
/// # Panics
/// If its configuration cannot be written.
pub fn run_command(folder: &Path, apex: &str, port: u16, http_port: u16) -> Command {
    let config = folder.join("server.toml");
    let loopback = Ipv4Addr::LOCALHOST;
    let text = format!(
        "listen = [\"{loopback}:{port}\"]\nlisten_http = [\"{loopback}:{http_port}\"]\napex = [\"{apex}\"]\nwork_bits = 8\n\
         data_dir = {:?}\ncert_dir = {:?}\n",
        folder.join("data"),
        folder.join("certs"),
    );
    fs::write(&config, text).expect("the folder is writable");
    let mut command = Command::new(binary::specter_server());
    command.args(["run", "--log", "debug", "--config"]).arg(config);
    command
}
