//! Measures the tunnel against the target itself, nginx as a plain TLS proxy, and other tunnels, in one run.
//!
//! ```text
//! programs  builds and finds what is measured     procfs, meter  CPU and memory of it
//! path      a way to the target; made by specter, nginx, peers, and for the target itself by this file
//! work      what is done on each path, by the visitors of http1 and http2
//! memory    what idle links and visitors cost     calibrate  how fast the machine is      report, stats  what is made of it
//! failover  what visitors notice when something fails, a benchmark of its own: `bench failover`
//! ```
//! Every case is measured once a round, rounds follow each other, and the order changes from round to round: what
//! disturbs the machine disturbs all alike. CPU time a unit and ratios within a run are what to compare; the load
//! generator runs in this process, on the same cores, and its CPU time is in no figure.

mod args;
mod calibrate;
mod certificates;
mod failover;
mod http1;
mod http2;
mod links;
mod memory;
mod meter;
mod nginx;
mod path;
mod peers;
mod procfs;
mod programs;
mod report;
mod specter;
mod stats;
mod target;
mod work;

use args::{Args, Role};
use certificates::{Certificates, NAME};
use cluster::process::Process;
use memory::Idle;
use meter::Parts;
use path::{Path as Way, Speaks};
use programs::Programs;
use report::Rounds;
use serde_json::json;
use specter::Node;
use std::{net::SocketAddr, path::Path, process::ExitCode, time::Duration};
use tokio::process::Command;
use work::Work;

/// Whatever goes wrong ends the benchmark, with a sentence.
use cluster::Outcome;

/// Name of the measurement that is no work on a path.
const MEMORY: &str = "memory";

fn main() -> ExitCode {
    let mut args: Args = argh::from_env();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match args.role.take() {
                Some(Role::Target(args)) => target::serve(args).await,
                Some(Role::Failover(cases)) => failover(&args, &cases).await,
                None => measure(&args).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All that runs, and the ways through it.
struct Scene {
    ways: Vec<Way>,
    /// Every process that is measured, by name.
    processes: Vec<(String, Process)>,
    missing: Vec<&'static str>,
}

async fn failover(args: &Args, cases: &args::FailoverArgs) -> Outcome<()> {
    let programs = Programs::build(args.binaries.as_deref()).await?;
    let temporary = tempfile::tempdir()?;
    let folder = args.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder)?;
    failover::measure(cases, &programs, folder).await
}

async fn measure(args: &Args) -> Outcome<()> {
    let programs = Programs::build(args.binaries.as_deref()).await?;
    let temporary = tempfile::tempdir()?;
    let folder = args.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder)?;
    let certificates = Certificates::make(folder)?;
    let (_target, target) = start_target(folder, &certificates).await?;

    let mut measured = Vec::new();
    let mut others = Vec::new();
    let mut seals = vec![calibrate::seal_cpu_s_per_gib()?];
    let works = works(args);
    if args.wants_work() {
        let scene = Scene::set(folder, &programs, &certificates, target).await?;
        for name in &scene.missing {
            println!("{name} is not installed and left out; see tests/bench/peers.sh\n");
        }
        let memory = |(name, process): &(String, Process)| (format!("{name}, idle"), procfs::memory(process.id()));
        others.extend(scene.processes.iter().map(memory));
        for work in works {
            let rounds = run(args, work, &scene.ways).await?;
            seals.push(calibrate::seal_cpu_s_per_gib()?);
            if !rounds.paths.is_empty() {
                println!("{}", rounds.table());
                measured.push(rounds);
            }
        }
    }
    let idle = if args.wants_memory() { Some(idle(args, &programs, folder, target).await?) } else { None };
    if let Some(idle) = &idle {
        println!("{}", report::memory_table(idle, &others, &programs));
    }
    println!("{}", report::goals(&measured, idle.as_ref(), stats::median(seals)));
    if let Some(file) = &args.json {
        std::fs::write(file, json(&measured, idle.as_ref(), &others).to_string())?;
    }
    Ok(())
}

impl Args {
    fn wants_memory(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == MEMORY)
    }

    /// Whether anything besides is asked for.
    fn wants_work(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only != MEMORY)
    }

    fn wants_case(&self, work: Work, path: &str) -> bool {
        let case = format!("{work}/{path}");
        self.only.is_empty() || self.only.iter().any(|only| case.contains(only.as_str()))
    }

    fn either<T>(&self, given: Option<T>, full: T, quick: T) -> T {
        given.unwrap_or(if self.quick { quick } else { full })
    }
}

fn works(args: &Args) -> Vec<Work> {
    let bytes = args.either(args.size_mib, 512, 128) << 20;
    let duration = Duration::from_millis(args.either(args.duration_ms, 2000, 700));
    let requests = |concurrency| Work::Requests { concurrency, duration };
    vec![
        Work::Download { bytes },
        Work::Upload { bytes },
        requests(1),
        requests(report::GOAL_CONCURRENCY),
        requests(128),
        Work::Http2 { concurrency: report::GOAL_CONCURRENCY, duration },
        Work::FirstByte { duration },
    ]
}

async fn run(args: &Args, work: Work, ways: &[Way]) -> Outcome<Rounds> {
    let ways: Vec<&Way> = ways.iter().filter(|way| work.suits(way) && args.wants_case(work, way.name)).collect();
    let mut rounds = Rounds { work, paths: ways.iter().map(|way| way.name).collect(), samples: Vec::new() };
    if ways.is_empty() {
        return Ok(rounds);
    }
    for round in 0..args.either(args.rounds, 5, 3).max(1) {
        eprintln!("{work}: round {}", round + 1);
        let mut samples = Vec::new();
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            let sample = work.run(ways[index]).await;
            samples.push((index, sample.map_err(|error| format!("{work}/{}: {error}", ways[index].name))?));
        }
        samples.sort_by_key(|(index, _)| *index);
        rounds.samples.push(samples.into_iter().map(|(_, sample)| sample).collect());
    }
    Ok(rounds)
}

async fn idle(args: &Args, programs: &Programs, folder: &Path, target: peers::Target) -> Outcome<Idle> {
    eprintln!("{MEMORY}");
    let counts = (args.either(args.links, 1000, 300), args.either(args.visitors, 500, 200));
    memory::measure(programs, folder, (target.process, target.plain), counts).await
}

async fn start_target(folder: &Path, certificates: &Certificates) -> Outcome<(Process, peers::Target)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("target").arg("--certificate").arg(&certificates.certificate).arg("--key").arg(&certificates.key);
    let mut process = Process::talking("target", command, folder)?;
    let address = |kind: &'static str| move |line: &str| line.strip_prefix(kind)?.trim().parse::<SocketAddr>().ok();
    let (plain, tls) = (process.line(address("plain")).await?, process.line(address("tls")).await?);
    let target = peers::Target { process: process.id(), plain, tls };
    Ok((process, target))
}

impl Scene {
    async fn set(
        folder: &Path,
        programs: &Programs,
        certificates: &Certificates,
        target: peers::Target,
    ) -> Outcome<Self> {
        let (mut ways, mut processes) = (Vec::new(), Vec::new());
        let trust = vec![certificates.authority.clone()];
        let parts = Parts { target: vec![target.process], ..Parts::default() };
        let (host, speaks) = (NAME.to_owned(), Speaks::Http);
        ways.push(Way { name: "direct", address: target.tls, host, speaks, parts: parts.clone(), trust });

        let nginx = programs::find("nginx");
        if let Some(program) = &nginx {
            let (process, address) = nginx::start(program, &folder.join("nginx"), certificates, target.plain).await?;
            peers::listening(address, &process).await?;
            let parts = Parts { node: vec![process.id()], ..parts };
            ways.push(nginx::path("nginx", address, certificates, parts));
            processes.push(("nginx".to_owned(), process));
        }

        let folder_of_node = folder.join("node");
        let node = Node::start(programs, &folder_of_node).await?;
        let client = node.client(programs, &folder_of_node, target.plain).await?;
        ways.extend(node.paths(&client, target.process));
        processes.extend([("node".to_owned(), node.process), ("client".to_owned(), client.process)]);

        let (peers, mut missing) = peers::start(folder, target).await?;
        for peer in peers {
            ways.push(peer.path(target, certificates));
            if let Some(program) = &nginx
                && let Some((process, way)) =
                    peer.behind_nginx(program, &folder.join("nginx-rathole"), target, certificates).await?
            {
                peers::listening(way.address, &process).await?;
                ways.push(way);
                processes.push((format!("nginx before {}", peer.name), process));
            }
            processes.push((format!("{} server", peer.name), peer.server));
            processes.push((format!("{} client", peer.name), peer.client));
        }
        if nginx.is_none() {
            missing.push("nginx");
        }
        Ok(Self { ways, processes, missing })
    }
}

fn json(measured: &[Rounds], idle: Option<&Idle>, others: &[(String, procfs::Memory)]) -> serde_json::Value {
    let works = measured
        .iter()
        .map(|rounds| json!({ "work": rounds.work.to_string(), "paths": rounds.paths, "rounds": rounds.samples }));
    json!({ "works": works.collect::<Vec<_>>(), "idle": idle, "processes": others })
}
