//! The other nodes of `dev --nodes`: each is `specter-server run` in a process of its own, so that one of them can be killed.
//! They end with this process however it ends, because they read its end from their standard input.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{interval, timeout},
};

use super::folder::{Folder, FolderError};
use crate::{serve, shutdown::Shutdown};

/// What the other nodes are told.
#[derive(Debug)]
pub(super) struct Plan {
    /// This program's file.
    pub(super) program: PathBuf,
    /// How many nodes there are, the one of this process among them.
    pub(super) count: u8,
    /// Where each listens; none for what the first of these is for.
    pub(super) listen: Vec<(Vec<SocketAddr>, Vec<SocketAddr>)>,
    /// The domain.
    pub(super) apex: &'static str,
    /// The filter of their log.
    pub(super) log: String,
    /// Zero bits of the proof of work.
    pub(super) work_bits: u8,
}

/// The running nodes.
#[derive(Debug)]
pub(super) struct Members {
    tasks: Shutdown,
    pub(super) members: Vec<Member>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: u8,
    pub(super) pid: u32,
    pub(super) port: u16,
}

/// Why another node does not run.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The program cannot be started.
    #[error("node {number} cannot be started; the system may have too many processes")]
    Start {
        /// Which.
        number: u8,
        /// What the system says.
        source: io::Error,
    },
    /// It ended, or said nothing.
    #[error("node {number} did not start; what it says stands above. To start it by itself: {command}")]
    NotReady {
        /// Which.
        number: u8,
        /// How.
        command: String,
    },
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// How long a node may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the nodes of an earlier run, whose own end was not awaited, may take to end.
const FORMER: Duration = Duration::from_secs(10);

/// How often it is seen whether they have.
const LOOK: Duration = Duration::from_millis(50);

impl Members {
    /// Starts the nodes from the second on, which join the one at `first`, and waits until they serve.
    pub(super) async fn start(folder: &Folder, plan: &Plan, first: SocketAddr) -> Result<Self, MemberError> {
        let mut this = Self { tasks: Shutdown::new(), members: Vec::new() };
        for (number, (listen, listen_http)) in (2..=plan.count).zip(&plan.listen) {
            folder.make_certificates_of(number)?;
            let config = folder.write_node_config(number, &plan.config(folder, number, listen, listen_http, first))?;
            if timeout(FORMER, until_free(folder, number)).await.is_err() {
                folder.hold(number)?;
            }
            let member = this.start_one(number, &plan.program, config).await?;
            this.members.push(member);
        }
        Ok(this)
    }

    async fn start_one(&self, number: u8, program: &Path, config: PathBuf) -> Result<Member, MemberError> {
        let refused = |source| MemberError::Start { number, source };
        let command = format!("{} run --config '{}'", program.display(), config.display());
        let mut child = Command::new(program)
            .args(["run", "--with-parent", "--config"])
            .arg(&config)
            // Variables would beat the file.
            .env_clear()
            // Ctrl-C in a terminal is for this process, which ends the others.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(refused)?;
        let not_ready = || MemberError::NotReady { number, command: command.clone() };
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(not_ready)?).lines();
        let Ok(Some(port)) = timeout(PATIENCE, ready(&mut lines)).await else { return Err(not_ready()) };
        let pid = child.id().ok_or_else(not_ready)?;
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                ended = watch(&mut child, &mut lines) => ended,
                () = tasks.stopping() => {
                    drop(child.stdin.take());
                    // Whether and how it ended is not asked any more.
                    let _ = child.wait().await;
                    return;
                }
            };
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            serve::print(&format!("node {number} (process {pid}) has ended: {how}. To start it again:\n{command}\n"));
        });
        Ok(Member { number, pid, port })
    }

    /// Ends all of them, and waits until they have.
    pub(super) async fn stop(self) {
        self.tasks.finish(PATIENCE).await;
    }
}

impl Plan {
    fn config(
        &self,
        folder: &Folder,
        number: u8,
        listen: &[SocketAddr],
        listen_http: &[SocketAddr],
        first: SocketAddr,
    ) -> String {
        let list = |addresses: &[SocketAddr]| {
            let quoted: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
            quoted.join(", ")
        };
        let port = listen.first().map_or(0, SocketAddr::port);
        let Self { apex, log, work_bits, .. } = self;
        format!(
            "# Node {number} of `specter-server dev --nodes`, which writes this file at each start.\n\
             apex = [\"{apex}\"]\nadvertise = \"{apex}:{port}\"\nlisten = [{}]\nlisten_http = [{}]\njoin = [\"{first}\"]\n\
             data_dir = {:?}\ncert_dir = {:?}\nlog = {log:?}\nwork_bits = {work_bits}\n",
            list(listen),
            list(listen_http),
            folder.node_of(number),
            folder.certificates_of(number),
        )
    }
}

/// The port on which a node serves, once it says that it does.
async fn ready(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<u16> {
    let mut port = None;
    while let Ok(Some(line)) = lines.next_line().await {
        match line.strip_prefix("listening tcp ") {
            Some(address) => port = port.or_else(|| address.parse::<SocketAddr>().ok().map(|address| address.port())),
            None if line == "ready" => return port,
            None => {}
        }
    }
    None
}

/// Waits for the end of a node; what it prints is read, so that it can go on printing.
async fn watch(child: &mut Child, lines: &mut Lines<BufReader<ChildStdout>>) -> io::Result<ExitStatus> {
    while let Ok(Some(_)) = lines.next_line().await {}
    child.wait().await
}

/// A node of a run that was killed ends by itself.
async fn until_free(folder: &Folder, number: u8) {
    let mut looks = interval(LOOK);
    while folder.hold(number).is_err() {
        looks.tick().await;
    }
}
