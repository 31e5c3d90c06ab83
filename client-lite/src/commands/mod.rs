//! Runs what the command line asks for and turns the outcome into an exit code.

use crate::{
    args::{self, Args, Command, UsageError},
    config::{Config, ConfigError},
    connect, log, owned,
    store::Store,
    tls::Trust,
    tunnel::{Client, Event, TunnelError, TunnelOptions, run_tunnel, sentence},
};
use argh::FromArgs;
use std::{
    collections::BTreeSet,
    io::{self, Write},
    process::ExitCode,
};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;

mod signals;

/// Runs the program: parses the command line, sets up logging and a runtime of one thread, and returns the exit code.
///
/// `connect` does not return: it leaves the process, because reading standard input cannot be interrupted.
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, words) = words.split_first().map_or(("client-lite", &[][..]), |(name, words)| (*name, words));
    let name = std::path::Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or("client-lite");
    let args = match Args::from_args(&[name], words) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => return print(&exit.output),
        Err(exit) => {
            eprintln!("{}\nRun `{name} --help` for the commands.", exit.output.trim_end());
            return ExitCode::from(USAGE);
        }
    };
    if args.version {
        return print(concat!("client-lite ", env!("CARGO_PKG_VERSION")));
    }
    let Some(command) = args.command else {
        eprintln!("No command is given.\nRun `{name} --help` for the commands.");
        return ExitCode::from(USAGE);
    };
    log::start(command.log());
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A failed command.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    Connect(#[from] connect::ConnectError),
    #[error(transparent)]
    Owned(#[from] owned::OwnedError),
    #[error("the runtime cannot be started")]
    Runtime(#[source] io::Error),
    #[error("standard output cannot be written")]
    Output(#[source] io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Connect(error) => error.exit_code(),
            Self::Config(_) | Self::Tunnel(_) | Self::Owned(_) | Self::Runtime(_) | Self::Output(_) => 1,
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Tunnel(args) => {
            let options =
                TunnelOptions { config_path: args::config_path(args.config)?, ca_file: args::ca_file(args.ca) };
            runtime()?.block_on(publish(|events, stop| run_tunnel(options, events, stop)))
        }
        Command::Http(args) => publish_one(args::http_config(args)?),
        Command::Tcp(args) => publish_one(args::tcp_config(args)?),
        Command::Connect(args) => {
            let route = args::route(&args.host, args.apex, args.ca)?;
            // Never dropped: it would wait for the thread that reads standard input.
            let runtime = runtime()?;
            let code = match runtime.block_on(connect::connect(&route)) {
                Ok(()) => 0,
                Err(error) => {
                    tell(&error);
                    error.exit_code()
                }
            };
            std::process::exit(i32::from(code))
        }
        Command::Listen(args) => {
            let route = args::route(&args.host, args.apex, args.ca)?;
            runtime()?.block_on(async {
                let stop = signals::stop();
                let (listener, bound) = connect::bind(&args.listen).await?;
                write(&format!("tcp://{bound} -> tcp://{}", route.gateway))?;
                Ok(connect::listen(&route, listener, stop).await?)
            })
        }
        Command::Ls(args) => {
            let config = load(args.config, args.ca)?;
            let names = runtime()?.block_on(owned::list(&config))?;
            write(&names.join("\n"))
        }
        Command::Release(args) => {
            let config = load(args.config, args.ca)?;
            let released = runtime()?.block_on(owned::release(&config, &args.hostname))?;
            write(&released)
        }
        Command::Validate(args) => {
            let path = args::config_path(args.config)?;
            let config = Config::load(&path)?;
            write(&format!("OK: {} is valid and has {} tunnels", path.display(), config.tunnels.len()))
        }
        Command::ConfigExample(_) => write(EXAMPLE.trim_end()),
    }
}

fn load(config: Option<std::path::PathBuf>, ca: Option<std::path::PathBuf>) -> Result<Config, Failure> {
    let mut config = Config::load(&args::config_path(config)?)?;
    if let Some(file) = args::ca_file(ca) {
        config.trust = Trust::read_file(&file).map_err(UsageError::from)?;
    }
    Ok(config)
}

fn publish_one(config: Config) -> Result<(), Failure> {
    runtime()?.block_on(publish(|events, stop| async { Client::new(config, Store::Memory, events)?.run(stop).await }))
}

/// Runs a client until a signal comes, and prints a line for each tunnel when it is published for the first time.
async fn publish<F>(client: impl FnOnce(mpsc::Sender<Event>, CancellationToken) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), TunnelError>>,
{
    let (sender, mut events) = mpsc::channel(EVENTS);
    let print = async {
        let mut printed = BTreeSet::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Published { url, target } => {
                    let line = format!("{url} -> {target}");
                    if printed.insert(line.clone()) {
                        write(&line)?;
                    }
                }
                // The log has told them.
                Event::Refused { .. } | Event::Links { .. } | Event::Disconnected { .. } => {}
            }
        }
        Ok(())
    };
    let run = async { client(sender, signals::stop()).await.map_err(Failure::from) };
    tokio::try_join!(run, print).map(|_| ())
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)
}

/// Tells a failure as a sentence.
fn tell(failure: &dyn std::error::Error) {
    eprintln!("Error: {}.", sentence(failure).trim_end_matches('.'));
}

/// Writes a line at once: whoever reads it may be a program.
fn write(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Failure::Output)
}

fn print(text: &str) -> ExitCode {
    match write(text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Exit code of a wrong command line.
const USAGE: u8 = 2;

/// Room for the events of a link with many tunnels before printing begins.
const EVENTS: usize = 64;

const EXAMPLE: &str = include_str!("../../example.yaml");
