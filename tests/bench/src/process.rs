//! Processes that are measured: started in a folder of their own, ended with the benchmark.

use crate::Outcome;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// A running process. It is killed when dropped.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

/// How long a process may take to say what is expected of it.
const START: Duration = Duration::from_secs(30);

impl Process {
    /// Starts a program that tells on standard output when it is ready. Its log goes to `folder`.
    pub(crate) fn talking(name: &str, command: Command, folder: &Path) -> Outcome<Self> {
        Self::start(name, command, folder, true)
    }

    /// Starts a program whose output is all log.
    pub(crate) fn logging(name: &str, command: Command, folder: &Path) -> Outcome<Self> {
        Self::start(name, command, folder, false)
    }

    fn start(name: &str, mut command: Command, folder: &Path, talks: bool) -> Outcome<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
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
    pub(crate) async fn line<T>(&mut self, mut wanted: impl FnMut(&str) -> Option<T>) -> Outcome<T> {
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
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}
