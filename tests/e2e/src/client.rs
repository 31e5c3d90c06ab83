//! `client-lite` in its forms.

use crate::{Node, Process, binary, process};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};
use tempfile::TempDir;
use tokio::process::Command;

/// A running `client-lite tunnel` with its own configuration file.
pub struct Client {
    /// The program.
    pub process: Process,
    /// Hostnames with the apex, in the order of the file.
    pub hosts: Vec<String>,
    config: PathBuf,
    ca: PathBuf,
    _folder: TempDir,
}

impl Client {
    /// Publishes targets and waits until all are published. Each is what stands behind `- ` in the list of tunnels:
    /// `target: http://127.0.0.1:1` and more lines of options.
    ///
    /// # Panics
    /// If they are not published in time.
    pub async fn publish(node: &Node, tunnels: &[&str]) -> Self {
        Self::start(node, &yaml(&node.apex(), tunnels), tunnels.len()).await
    }

    /// Publishes one target on a link to this node and no other.
    ///
    /// # Panics
    /// If it is not published in time.
    pub async fn publish_on_one_link(node: &Node, target: &str) -> Self {
        let text = yaml(&node.apex(), &[&format!("target: {target}")]);
        Self::start(node, &format!("{text}links: 1\n"), 1).await
    }

    async fn start(node: &Node, text: &str, tunnels: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("client.yaml");
        fs::write(&config, text).expect("the folder is writable");
        let process = Process::start(tunnel_command(&config, &node.ca()));
        let hosts = hosts(&process, &config, tunnels).await;
        Self { process, hosts, config, ca: node.ca(), _folder: folder }
    }

    /// Publishes one target without options.
    ///
    /// # Panics
    /// If it is not published in time.
    pub async fn publish_one(node: &Node, target: &str) -> Self {
        Self::publish(node, &[&format!("target: {target}")]).await
    }

    /// The first hostname.
    pub fn host(&self) -> &str {
        &self.hosts[0]
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts the program again with the file as it is now, after the old process has ended, and waits until all tunnels are
    /// published.
    ///
    /// # Panics
    /// If they are not published in time.
    pub async fn start_again(&mut self) {
        self.process = Process::start(tunnel_command(&self.config, &self.ca));
        self.hosts = hosts(&self.process, &self.config, self.hosts.len()).await;
    }

    /// A second process with a copy of the same file, ready when it has published as many tunnels.
    ///
    /// # Panics
    /// If they are not published in time.
    pub async fn twin(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("client.yaml");
        fs::copy(&self.config, &config).expect("the file can be copied");
        let process = Process::start(tunnel_command(&config, &self.ca));
        let hosts = hosts(&process, &config, self.hosts.len()).await;
        Self { process, hosts, config, ca: self.ca.clone(), _folder: folder }
    }
}

/// The text of a configuration file.
pub fn yaml(apex: &str, tunnels: &[&str]) -> String {
    let mut text = format!("version: 2\napex: {apex}\ntunnels:\n");
    for tunnel in tunnels {
        for (index, line) in tunnel.lines().enumerate() {
            let lead = if index == 0 { "  - " } else { "    " };
            text.push_str(&format!("{lead}{line}\n"));
        }
    }
    text
}

/// `client-lite tunnel` for a file.
pub fn tunnel_command(config: &Path, ca: &Path) -> Command {
    let mut command = client_command();
    command.args(["tunnel", "--log", "debug", "--config"]).arg(config).arg("--ca").arg(ca);
    command
}

/// `client-lite` with nothing of the tester's own configuration.
pub fn client_command() -> Command {
    let mut command = Command::new(binary::client_lite());
    for variable in ["SPECTER_CONFIG", "SPECTER_APEX", "SPECTER_CA", "SPECTER_LOG"] {
        command.env_remove(variable);
    }
    // Instead of the home folder's.
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

/// `client-lite connect HOST` to a node.
pub fn connect_command(node: &Node, host: &str) -> Command {
    let mut command = client_command();
    command.args(["connect", host, "--apex", &node.apex(), "--ca"]).arg(node.ca());
    command
}

/// Runs `client-lite` with these arguments to its end.
///
/// # Panics
/// If it does not end in time.
pub async fn client(arguments: &[&str]) -> Output {
    let mut command = client_command();
    command.args(arguments);
    process::run(command, b"").await
}

/// The hostname in a line `https://NAME.apex:port -> target`.
///
/// # Panics
/// If the line has another form.
pub fn host_in(line: &str) -> String {
    let (url, _) = line.split_once(" -> ").unwrap_or_else(|| panic!("{line:?} tells no tunnel"));
    let authority = url.split_once("://").unwrap_or_else(|| panic!("{line:?} tells no tunnel")).1;
    authority.split(':').next().unwrap_or(authority).trim_end_matches('/').to_owned()
}

/// Waits for the lines of the published tunnels, then takes the hostnames in the order of the file.
async fn hosts(process: &Process, config: &Path, count: usize) -> Vec<String> {
    let published: Vec<_> = process.lines(count).await.iter().map(|line| host_in(line)).collect();
    let labels = hostnames(config);
    let in_order: Vec<_> = labels
        .iter()
        .filter_map(|label| published.iter().find(|host| *host == label || host.starts_with(&format!("{label}."))))
        .cloned()
        .collect();
    assert_eq!(in_order.len(), count, "{published:?} were published, {labels:?} stand in the file");
    in_order
}

/// The hostnames in a configuration file, in order.
///
/// # Panics
/// If the file cannot be read.
pub fn hostnames(config: &Path) -> Vec<String> {
    let text = fs::read_to_string(config).expect("the file is readable");
    let names = text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("hostname:"));
    names.map(|name| name.split('#').next().unwrap_or(name).trim().trim_matches(['"', '\'']).to_owned()).collect()
}
