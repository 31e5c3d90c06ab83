//! Processes with a log file each, ended with whoever started them.

use crate::Outcome;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// A running process. It is killed when dropped.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

/// How long a process may take to say what is expected of it.
const START: Duration = Duration::from_secs(60);

impl Process {
    /// Starts a program that tells on standard output when it is ready. Its log goes to the end of `NAME.log` in `folder`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn talking(name: &str, command: Command, folder: &Path) -> Outcome<Self> {
        Self::start(name, command, folder, true)
    }

    /// Starts a program whose output is all log.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn logging(name: &str, command: Command, folder: &Path) -> Outcome<Self> {
        Self::start(name, command, folder, false)
    }

    fn start(name: &str, mut command: Command, folder: &Path, talks: bool) -> Outcome<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::piped()).stderr(file.try_clone()?).kill_on_drop(true);
        if talks {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(file);
        }
        let mut child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { name: name.to_owned(), log, child, lines })
    }

    /// Waits for a line that `wanted` takes.
    ///
    /// # Errors
    /// If the program ends first or says no such thing in time.
    pub async fn line<T>(&mut self, mut wanted: impl FnMut(&str) -> Option<T>) -> Outcome<T> {
        let lines = self.lines.as_mut().ok_or("this process only logs")?;
        let search = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(found) = wanted(&line) {
                    return Ok(Some(found));
                }
            }
            Ok::<_, std::io::Error>(None)
        };
        match timeout(START, search).await {
            Ok(Ok(Some(found))) => Ok(found),
            Ok(Ok(None)) => Err(format!("{} ended: {}", self.name, self.last_words()).into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                Err(format!("{} is not ready after {} s: {}", self.name, START.as_secs(), self.last_words()).into())
            }
        }
    }

    /// Its process number; 0, which no process has, if it has ended.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// All that it logged, and what processes of the same name logged there before.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by its name, such as `TERM` or `STOP`.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn signal(&self, name: &str) -> Outcome<()> {
        let id = self.child.id().ok_or_else(|| format!("{} has ended: {}", self.name, self.last_words()))?;
        let status = Command::new("kill").arg(format!("-{name}")).arg(id.to_string()).status().await?;
        if status.success() { Ok(()) } else { Err(format!("SIG{name} for {} failed", self.name).into()) }
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> Outcome<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Outcome<ExitStatus> {
        match timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => Err(format!("{} still runs after {limit:?}: {}", self.name, self.last_words()).into()),
        }
    }
}
