//! The command line, and the only place that reads the environment.

use argh::FromArgs;
use std::path::PathBuf;

/// Measures the tunnel in one run against the target itself, nginx as a plain TLS proxy, and other tunnels.
#[derive(FromArgs, Debug)]
#[argh(
    help_triggers("-h", "--help"),
    example = "Everything, about ten minutes:\n  cargo run --release -p bench\n\
               Requests with 32 connections alone:\n  cargo run --release -p bench -- --only requests-32/",
    note = "Other tunnels are measured when tests/bench/peers.sh has installed them, nginx when it is installed."
)]
pub(crate) struct Args {
    /// fewer rounds, shorter and smaller
    #[argh(switch)]
    pub(crate) quick: bool,

    /// measure only the cases whose name WORK/PATH has this in it, such as download/ or /nginx, or memory; repeatable
    #[argh(option)]
    pub(crate) only: Vec<String>,

    /// how often each case is measured (default: 5; quick: 3)
    #[argh(option)]
    pub(crate) rounds: Option<usize>,

    /// size of a download and of an upload in MiB (default: 512; quick: 128)
    #[argh(option)]
    pub(crate) size_mib: Option<u64>,

    /// milliseconds of each round of requests and of new visitors (default: 2000; quick: 700)
    #[argh(option)]
    pub(crate) duration_ms: Option<u64>,

    /// idle clients, each with a link of its own (default: 1000; quick: 300)
    #[argh(option)]
    pub(crate) links: Option<usize>,

    /// idle visitors, at most 900: a client serves 1024 streams (default: 500; quick: 200)
    #[argh(option)]
    pub(crate) visitors: Option<usize>,

    /// write every sample to this file as JSON
    #[argh(option)]
    pub(crate) json: Option<PathBuf>,

    /// folder with specter-server and client-lite, instead of building them
    #[argh(option)]
    pub(crate) binaries: Option<PathBuf>,

    /// keep logs and configurations of all processes in this folder
    #[argh(option)]
    pub(crate) keep: Option<PathBuf>,

    #[argh(subcommand)]
    pub(crate) role: Option<Role>,
}

/// What this program is when it started itself.
#[derive(FromArgs, Debug)]
#[argh(subcommand)]
pub(crate) enum Role {
    Target(TargetArgs),
    Failover(FailoverArgs),
}

/// measure what visitors notice when nodes, clients and wires fail
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "failover",
    help_triggers("-h", "--help"),
    example = "All cases, about fifteen minutes; as root, for the partition:\n  cargo run --release -p bench -- failover\n\
               One of them, logs kept:\n  cargo run --release -p bench -- --keep /tmp/logs failover --only kill-one",
    note = "Cases: stop rolling kill-one kill-first kill-two freeze kill-all kill-client partition crowd."
)]
pub(crate) struct FailoverArgs {
    /// run only this case; repeatable
    #[argh(option)]
    pub(crate) only: Vec<String>,

    /// nodes (default: 5)
    #[argh(option, default = "5")]
    pub(crate) nodes: usize,

    /// clients (default: 10)
    #[argh(option, default = "10")]
    pub(crate) clients: usize,

    /// tunnels of all clients (default: 50)
    #[argh(option, default = "50")]
    pub(crate) tunnels: usize,

    /// visitors at each gateway (default: 5)
    #[argh(option, default = "5")]
    pub(crate) visitors: usize,

    /// milliseconds between two requests of a visitor (default: 100)
    #[argh(option, default = "100")]
    pub(crate) every_ms: u64,

    /// break something only after four seconds in which no visitor waited this many milliseconds (default: 100)
    #[argh(option, default = "100")]
    pub(crate) calm_ms: u64,

    /// clients that come back at once (default: 2000)
    #[argh(option, default = "2000")]
    pub(crate) crowd: usize,

    /// seconds that the network is in two parts (default: 60)
    #[argh(option, default = "60")]
    pub(crate) partition_s: u64,

    /// what nodes and clients log (default: info)
    #[argh(option, default = "String::from(\"info\")")]
    pub(crate) log: String,
}

/// serve as the target of all paths; the benchmark starts this itself
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "target")]
pub(crate) struct TargetArgs {
    /// certificate chain, PEM
    #[argh(option)]
    pub(crate) certificate: PathBuf,
    /// private key, PEM
    #[argh(option)]
    pub(crate) key: PathBuf,
}

/// The cargo that runs this program, to build the others with.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// Folders with programs: those that the peers' script installs into, then the system's.
pub(crate) fn program_folders() -> Vec<PathBuf> {
    let mut folders = vec![target_folder().join("peers").join("bin")];
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    // Servers are outside the search path of ordinary users.
    folders.push(PathBuf::from("/usr/sbin"));
    folders
}
