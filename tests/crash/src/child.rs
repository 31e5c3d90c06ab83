//! A child as its parent sees it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child as Process, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Longer than any answer and any start takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that may wait to be read.
const LINES: usize = 4096;

/// A child process with the store open, or on its way there.
#[derive(Debug)]
pub struct Child {
    process: Process,
    calls: Option<BufWriter<ChildStdin>>,
    answers: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    log: PathBuf,
    started: Instant,
}

/// What a child needs: the program, and a folder for certificates, log and data.
#[derive(Clone, Debug)]
pub struct Place {
    /// This program.
    pub program: PathBuf,
    /// Certificates of the cluster.
    pub certs: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Whether a write is acknowledged before it is on the disk.
    pub everysec: bool,
}

impl Place {
    /// Makes the certificates for children whose data directory is `data` below `folder`.
    ///
    /// # Errors
    /// The certificates cannot be written.
    pub fn prepare(program: &Path, folder: &Path) -> io::Result<Self> {
        let certs = folder.join("certs");
        specter_server::identity::pki::init(&certs, "localhost", std::time::SystemTime::now())
            .map_err(io::Error::other)?;
        Ok(Self { program: program.to_owned(), certs, data: folder.join("data"), everysec: false })
    }
}

impl Child {
    /// Starts a child. It is not ready yet.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(place: &Place) -> io::Result<Self> {
        let log = place.certs.with_file_name("log");
        let started = Instant::now();
        let mut process = Command::new(&place.program)
            .arg("node")
            .args(place.everysec.then_some("--everysec"))
            .arg(&place.data)
            .arg("--certs")
            .arg(&place.certs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let calls = process.stdin.take().map(BufWriter::new);
        let out = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, answers) = sync_channel(LINES);
        let reader = thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut line = String::new();
            // A line that was cut off by the kill is no answer.
            while out.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                line.truncate(line.len() - 1);
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, calls, answers, reader: Some(reader), log, started })
    }

    /// Waits until it serves, and tells how long that took.
    ///
    /// # Errors
    /// What it said if it does not serve.
    pub fn ready(&mut self) -> io::Result<Duration> {
        match self.line(PATIENCE) {
            Some(line) if line == "ready" => Ok(self.started.elapsed()),
            other => {
                self.kill()?;
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                Err(io::Error::other(format!("the node does not start: {other:?}\n{said}")))
            }
        }
    }

    /// The next line, if it comes in time.
    pub fn line(&mut self, patience: Duration) -> Option<String> {
        self.answers.recv_timeout(patience).ok()
    }

    /// The next answer, if it comes in time: the number of the call, and what is said.
    pub fn answer(&mut self, patience: Duration) -> Option<(u64, String)> {
        split(&self.line(patience)?)
    }

    /// Everything that was said and not read yet. Only for a child that has ended.
    pub fn rest(&mut self) -> Vec<(u64, String)> {
        self.answers.iter().filter_map(|line| split(&line)).collect()
    }

    /// Sends a call. [`Self::flush`] sends what was collected.
    ///
    /// # Errors
    /// The child is gone.
    pub fn call(&mut self, id: u64, call: &str) -> io::Result<()> {
        let Some(calls) = &mut self.calls else { return Err(io::ErrorKind::BrokenPipe.into()) };
        writeln!(calls, "{id} {call}")
    }

    /// Sends what was collected.
    ///
    /// # Errors
    /// The child is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        self.calls.as_mut().map_or(Ok(()), Write::flush)
    }

    /// Asks one thing and waits for the answer.
    ///
    /// # Errors
    /// There was none in time.
    pub fn ask(&mut self, call: &str) -> io::Result<String> {
        self.call(0, call)?;
        self.flush()?;
        let answer = self.answer(PATIENCE).map(|(_, answer)| answer);
        answer.ok_or_else(|| io::Error::other(format!("no answer to {call:.60}")))
    }

    /// Waits for the time to be over, or for the child to end before.
    pub fn lives_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            match self.answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        // What is left in the buffer goes nowhere.
        self.calls = None;
        Ok(())
    }

    /// Lets it end in order.
    ///
    /// # Errors
    /// It did not end well.
    pub fn stop(mut self) -> io::Result<()> {
        self.flush()?;
        self.calls = None;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{status}\n{}", self.said()))) }
    }

    /// What it wrote on standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

fn split(line: &str) -> Option<(u64, String)> {
    let (id, answer) = line.split_once(' ')?;
    Some((id.parse().ok()?, answer.to_owned()))
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended.
        self.process.kill().ok();
        self.process.wait().ok();
        while self.answers.recv().is_ok() {}
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}
