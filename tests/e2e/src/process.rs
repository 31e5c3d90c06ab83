//! A running program: its lines, its log, its end.

use crate::PATIENCE;
use std::{
    fs,
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// A program whose output is read line by line. Killed when dropped; if the test fails, its log is shown.
pub struct Process {
    name: String,
    child: Child,
    out: Lines,
    err: Lines,
}

impl Process {
    /// Starts a program with nothing on standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let name = format!("{:?}", command.as_std());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let out = Lines::read(child.stdout.take().expect("standard output is piped"));
        let err = Lines::read(child.stderr.take().expect("standard error is piped"));
        Self { name, child, out, err }
    }

    /// The first line of standard output, past or to come, that `want` accepts.
    ///
    /// # Panics
    /// If it does not come in time.
    pub async fn line(&self, what: &str, want: impl Fn(&str) -> bool) -> String {
        self.wanted(&self.out, what, want).await
    }

    /// The first line of the log on standard error, past or to come, that `want` accepts.
    ///
    /// # Panics
    /// If it does not come in time.
    pub async fn logged(&self, what: &str, want: impl Fn(&str) -> bool) -> String {
        self.wanted(&self.err, what, want).await
    }

    /// Waits until at least `count` lines stand on standard output, and returns all of them.
    ///
    /// # Panics
    /// If they do not come in time.
    pub async fn lines(&self, count: usize) -> Vec<String> {
        match self.out.until(|lines| (lines.len() >= count).then(|| lines.to_vec())).await {
            Some(lines) => lines,
            None => panic!("{} printed fewer than {count} lines:\n{}", self.name, self.everything()),
        }
    }

    /// What stands on standard error so far.
    pub fn log(&self) -> String {
        self.err.all().join("\n")
    }

    /// The process id.
    ///
    /// # Panics
    /// If it has ended and was waited for.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the program runs")
    }

    /// Sends a signal by its name.
    ///
    /// # Panics
    /// If there is no such signal or process.
    pub async fn signal(&self, name: &str) {
        // `kill` is part of every shell; the standard library can only send SIGKILL.
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).status().await;
        assert!(status.expect("sh runs").success(), "no SIG{name} for {}", self.name);
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("the program can be killed");
    }

    /// Waits until it ends by itself, and until its last line is read.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE).await
    }

    /// As [`Self::ended`], with a stated limit.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await else {
            panic!("{} still runs after {limit:?}:\n{}", self.name, self.everything());
        };
        self.out.finished().await;
        self.err.finished().await;
        status.expect("the program was started by this test")
    }

    /// The most memory it held so far, in KiB, as the kernel counts it.
    ///
    /// # Panics
    /// If the program has ended.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the program runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux counts memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    async fn wanted(&self, lines: &Lines, what: &str, want: impl Fn(&str) -> bool) -> String {
        match lines.until(|lines| lines.iter().find(|line| want(line)).cloned()).await {
            Some(line) => line,
            None => panic!("{} never said {what}:\n{}", self.name, self.everything()),
        }
    }

    fn everything(&self) -> String {
        format!("--- output\n{}\n--- log\n{}\n---", self.out.all().join("\n"), self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.name, self.everything());
        }
    }
}

/// Runs a program to its end with these bytes on standard input.
///
/// # Panics
/// If it does not start or does not end in time.
pub async fn run(mut command: Command, input: &[u8]) -> Output {
    use tokio::io::AsyncWriteExt;
    let name = format!("{:?}", command.as_std());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let feed = async move {
        // A program that refuses its input may close it early; what it says then is judged by the test.
        let _ = stdin.write_all(input).await;
    };
    let finished = async { tokio::join!(feed, child.wait_with_output()).1 };
    match tokio::time::timeout(PATIENCE, finished).await {
        Ok(output) => output.expect("the output can be read"),
        Err(_) => panic!("{name} still runs after {PATIENCE:?}"),
    }
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    changed: watch::Receiver<()>,
    reader: JoinHandle<()>,
}

impl Lines {
    fn read(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (change, changed) = watch::channel(());
        let sink = lines.clone();
        let reader = tokio::spawn(async move {
            let mut stream = BufReader::new(stream).lines();
            while let Ok(Some(line)) = stream.next_line().await {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                change.send_replace(());
            }
        });
        Self { lines, changed, reader }
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What `find` finds, or none if the stream ends or the time is up before.
    async fn until<T>(&self, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut changed = self.changed.clone();
        loop {
            changed.mark_unchanged();
            if let Some(found) = find(&self.all()) {
                return Some(found);
            }
            match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                // The stream ended; its last line may have come in between.
                Ok(Err(_)) => return find(&self.all()),
                Err(_) => return None,
            }
        }
    }

    async fn finished(&mut self) {
        // A grandchild may hold the pipe open: what is read by then is all there is.
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut self.reader).await;
    }
}
