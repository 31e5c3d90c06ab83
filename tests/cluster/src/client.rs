//! A client with its file.

use crate::{Outcome, nodes::APEX, process::Process};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::process::Command;

/// A client, running or not.
pub struct Client {
    /// What it is called in logs.
    pub name: String,
    /// Its hostnames with the apex, in the order in which it published them first.
    pub hosts: Vec<String>,
    program: PathBuf,
    folder: PathBuf,
    log: String,
    tunnels: usize,
    process: Option<Process>,
}

/// What a client publishes, and through which node it comes first.
pub struct Publish<'a> {
    /// The program `client-lite`.
    pub program: &'a Path,
    /// Where its file goes.
    pub folder: &'a Path,
    /// Port on loopback that it reaches first.
    pub port: u16,
    /// Nodes that it keeps a link to; as many as it likes if none.
    pub links: Option<usize>,
    /// PEM file that it trusts.
    pub authority: &'a Path,
    /// Entries of the list of tunnels, each as it stands in the file.
    pub tunnels: &'a [String],
    /// What it logs.
    pub log: &'a str,
}

impl Client {
    /// Starts a client and waits until it has published everything.
    ///
    /// # Errors
    /// What it complained about.
    pub async fn start(name: &str, publish: &Publish<'_>) -> Outcome<Self> {
        let folder = publish.folder.join(name);
        fs::create_dir_all(&folder)?;
        let text = format!(
            "version: 2\napex: {APEX}:{}\ncaFile: {:?}\n{}tunnels:\n{}",
            publish.port,
            publish.authority,
            publish.links.map(|links| format!("links: {links}\n")).unwrap_or_default(),
            publish.tunnels.concat()
        );
        fs::write(folder.join("client.yaml"), text)?;
        let mut client = Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            program: publish.program.to_owned(),
            folder,
            log: publish.log.to_owned(),
            tunnels: publish.tunnels.len(),
            process: None,
        };
        client.hosts = client.run().await?;
        Ok(client)
    }

    /// A second client of the same identity: its file is a copy of this one's as it is now, changed by `edit`.
    ///
    /// # Errors
    /// What it complained about.
    pub async fn twin(&self, name: &str, edit: impl FnOnce(String) -> String) -> Outcome<Self> {
        let folder = self.folder.with_file_name(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("client.yaml"), edit(fs::read_to_string(self.config())?))?;
        let mut twin = Self {
            name: name.to_owned(),
            hosts: Vec::new(),
            program: self.program.clone(),
            folder,
            log: self.log.clone(),
            tunnels: self.tunnels,
            process: None,
        };
        twin.hosts = twin.run().await?;
        Ok(twin)
    }

    /// Starts it again with its file and waits until it has published everything.
    ///
    /// # Errors
    /// What it complained about, or that its hostnames changed.
    pub async fn start_again(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        let mut hosts = self.run().await?;
        let took = start.elapsed();
        let mut before = self.hosts.clone();
        hosts.sort();
        before.sort();
        if hosts == before { Ok(took) } else { Err(format!("{} had {before:?} and now {hosts:?}", self.name).into()) }
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn kill(&mut self) -> Outcome<()> {
        self.process.take().ok_or("the client does not run")?.kill().await
    }

    /// Its program as it runs.
    ///
    /// # Errors
    /// If it does not.
    pub fn running(&self) -> Outcome<&Process> {
        self.process.as_ref().ok_or_else(|| format!("{} does not run", self.name).into())
    }

    /// Its file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("client.yaml")
    }

    async fn run(&mut self) -> Outcome<Vec<String>> {
        let mut command = Command::new(&self.program);
        for variable in ["SPECTER_CONFIG", "SPECTER_APEX", "SPECTER_CA", "SPECTER_LOG"] {
            command.env_remove(variable);
        }
        command.args(["tunnel", "--log", &self.log, "--config"]).arg(self.config());
        let mut process = Process::talking(&self.name, command, &self.folder)?;
        let (mut hosts, tunnels) = (Vec::new(), self.tunnels);
        process
            .line(|line| {
                let (url, _) = line.split_once(" -> ")?;
                let host = url.split_once("://")?.1.split(':').next()?.trim_end_matches('/').to_owned();
                if !hosts.contains(&host) {
                    hosts.push(host);
                }
                (hosts.len() == tunnels).then_some(())
            })
            .await?;
        self.process = Some(process);
        Ok(hosts)
    }
}
