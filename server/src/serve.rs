//! Runs a node from start to end: log, runtime, signals, the lines on standard output.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    process,
    thread::{self, available_parallelism},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::{
    args,
    config::{Config, CredentialsSource},
    identity::{Credentials, CredentialsError},
    run::{self, Running, StartError},
    shutdown::Shutdown,
};

/// Runs a node until a signal ends it. `ready` is called once it serves; the future that it returns is awaited when the
/// node is to end, before it does.
///
/// # Errors
/// [`ServeError`]: the node did not start, or did not end in time.
pub fn serve<Started, Ended>(config: Config, ready: Started) -> Result<(), ServeError>
where
    Started: AsyncFnOnce(&Running, &Shutdown) -> Result<Ended, ServeError>,
    Ended: Future<Output = ()>,
{
    log_to_stderr(&config)?;
    raise_descriptor_limit();
    let credentials = match &config.credentials {
        CredentialsSource::Directory(directory) => Credentials::from_directory(directory)?,
        CredentialsSource::Environment => Credentials::from_environment(args::variable)?,
    };
    let runtime = runtime(config.workers).map_err(ServeError::Runtime)?;
    let patience = config.drain.max(run::LEAVE) + MARGIN;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(ServeError::Runtime)?;
        let shutdown = Shutdown::new();
        let running = tokio::select! {
            started = run::start(config, credentials, shutdown.clone()) => started?,
            () = signals.next() => return Ok(()),
        };
        announce(&running);
        let ended = tokio::select! {
            ended = ready(&running, &shutdown) => ended,
            () = signals.next() => {
                stop(running, std::future::ready(()), &shutdown, signals, patience).await?;
                return Ok(());
            }
        };
        match ended {
            Ok(ended) => {
                signals.next().await;
                stop(running, ended, &shutdown, signals, patience).await
            }
            Err(error) => {
                stop(running, std::future::ready(()), &shutdown, signals, patience).await?;
                Err(error)
            }
        }
    });
    // A name that is being looked up would hold everything up until DNS gives up.
    runtime.shutdown_background();
    outcome
}

/// Why a node did not serve, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The log filter.
    #[error(
        "the log filter `{filter}` is not understood; write a level (error, warn, info, debug, trace) or \
        specter_server=debug,info"
    )]
    Log {
        /// The filter.
        filter: String,
    },
    /// Certificates and keys.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system refuses threads or signals.
    #[error("the system refuses what the node needs to run: threads, signals or file descriptors; look at its limits")]
    Runtime(#[source] io::Error),
    /// The node itself.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What was to run beside the node.
    #[error(transparent)]
    Beside(Box<dyn std::error::Error + Send + Sync>),
    /// Some task did not end.
    #[error("the node was stopped, but {tasks} of its tasks did not end within {} s and were dropped", patience.as_secs())]
    Late {
        /// How many.
        tasks: usize,
        /// How long they had.
        patience: Duration,
    },
}

async fn stop(
    running: Running,
    beside: impl Future<Output = ()>,
    shutdown: &Shutdown,
    mut signals: Signals,
    patience: Duration,
) -> Result<(), ServeError> {
    info!("stopping; a second signal ends the program at once");
    let orderly = async {
        beside.await;
        running.stop().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(patience, orderly) => match ended {
            Ok(()) => Ok(()),
            Err(_) => Err(ServeError::Late { tasks: shutdown.running(), patience }),
        },
        () = signals.next() => {
            warn!("ended by a second signal");
            process::exit(130)
        }
    }
}

/// Every visitor needs a file descriptor, and the limit that most systems set at first is far below what a node takes.
fn raise_descriptor_limit() {
    match rlimit::increase_nofile_limit(DESCRIPTORS) {
        Ok(granted) if granted < DESCRIPTORS => warn!(
            granted,
            wanted = DESCRIPTORS,
            "the system allows few open files: some visitors may be refused until the limit (ulimit -n) is raised"
        ),
        Ok(_) => {}
        Err(error) => warn!(%error, "the limit on open files stays as it is"),
    }
}

fn log_to_stderr(config: &Config) -> Result<(), ServeError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|_| ServeError::Log { filter: config.log.clone() })?;
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // An error means that there is a log already, which is as good.
    if config.log_json {
        log.json().try_init().ok()
    } else {
        log.try_init().ok()
    };
    Ok(())
}

/// On two cores or fewer, one thread is faster than handing work between threads.
fn runtime(workers: usize) -> io::Result<Runtime> {
    let workers = if workers == 0 { available_parallelism()?.get() } else { workers };
    let mut builder = match workers {
        0..=2 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if workers > 2 {
        builder.worker_threads(workers);
    }
    builder.enable_all().build()
}

/// Tells on standard output where the node listens, then that it serves. Programs that start it read these lines.
fn announce(running: &Running) {
    let mut lines = String::new();
    for (what, addresses) in [("tcp", &running.tcp), ("udp", &running.udp), ("http", &running.http)] {
        for address in addresses {
            lines.push_str(&format!("listening {what} {address}\n"));
        }
    }
    lines.push_str("ready\n");
    print(&lines);
}

/// Ends the process as soon as its standard input ends: whoever started it is gone. The store is made for that.
///
/// # Errors
/// [`ServeError::Runtime`]
pub fn end_with_input() -> Result<(), ServeError> {
    let watch = || {
        // Nothing is to be said there: an error is as good as an end.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        process::exit(0);
    };
    thread::Builder::new().name("parent".to_owned()).spawn(watch).map_err(ServeError::Runtime)?;
    Ok(())
}

/// Writes to standard output at once. A reader that went away is no reason to stop serving.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Taken and ignored: a terminal that is closed sends it, and nothing is to be read anew.
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ends with the next signal that asks the node to end.
    async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => info!("SIGHUP changes nothing; SIGTERM stops the node"),
            }
        }
    }
}

/// Visitors at most, and some for listeners, links and the store.
const DESCRIPTORS: u64 = 20_000;

/// How much longer an orderly end may take than streams in progress and the other nodes: links and the store come after.
const MARGIN: Duration = Duration::from_secs(10);
