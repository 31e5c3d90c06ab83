//! `sim`: runs clusters, or single slots, under faults from a seed, or from many.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use argh::FromArgs;
use sim::cluster::{Scenario, Storage};
use sim::{Outcome, cluster, routes, slot};

/// Runs Specter's clusters and slots under faults and checks what they promise.
#[derive(FromArgs)]
struct Arguments {
    /// the cluster to run; everything that happens in it follows from this number
    #[argh(option, default = "1")]
    seed: u64,
    /// many clusters to run, from the first up to but without the last: 0..1000
    #[argh(option, from_str_fn(parse_seeds))]
    seeds: Option<(u64, u64)>,
    /// many single slots to run, in the same way
    #[argh(option, from_str_fn(parse_seeds))]
    slot_seeds: Option<(u64, u64)>,
    /// run new clusters and slots until so many hours are over
    #[argh(option)]
    hours: Option<f64>,
    /// how many nodes there are; drawn from the seed when not given
    #[argh(option)]
    nodes: Option<u64>,
    /// how long faults happen in each world: 30s, 10m, 1h
    #[argh(option, long = "for", from_str_fn(parse_span))]
    span: Option<Duration>,
    /// a scenario to play: the name of a file in tests/sim/scenario, or its path
    #[argh(option)]
    scenario: Option<String>,
    /// what nodes keep their records in: real, the storage code on a simulated disk (the default), or model, a list
    #[argh(option, default = "String::from(\"real\")")]
    disk: String,
    /// print what happens
    #[argh(switch)]
    trace: bool,
    /// break one rule, to see that it is noticed; all but kept-identity only in a program built with the feature `broken`
    #[argh(option)]
    broken: Option<String>,
    /// a ring of so many nodes in place of a cluster: grown, crashed, measured
    #[argh(option)]
    ring: Option<u32>,
    /// a large cluster with so many routes, which are told and looked up while nodes come, go and die
    #[argh(option)]
    routes: Option<u64>,
}

fn parse_seeds(text: &str) -> Result<(u64, u64), String> {
    let error = || format!("\"{text}\" is no range of seeds; write it like 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(error)?;
    Ok((from.parse().map_err(|_| error())?, to.parse().map_err(|_| error())?))
}

fn parse_span(text: &str) -> Result<Duration, String> {
    let error = || format!("\"{text}\" is no span of time; write it like 30s, 10m or 1h");
    let split = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(error)?;
    let count: u64 = text[..split].parse().map_err(|_| error())?;
    let unit = match &text[split..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(error()),
    };
    Ok(Duration::from_secs(count * unit))
}

#[cfg(feature = "broken")]
fn rules_without(name: &str) -> Result<specter_dht::kv::Rules, String> {
    use specter_dht::kv::{Rule, Rules};
    let names = || Rule::ALL.map(Rule::broken_name).join(", ");
    let rule = Rule::ALL.into_iter().find(|rule| rule.broken_name() == name);
    let rule = rule.ok_or_else(|| format!("there is no broken variant \"{name}\"; there are: {}", names()))?;
    Ok(Rules::without(rule))
}

#[cfg(not(feature = "broken"))]
fn rules_without(name: &str) -> Result<specter_dht::kv::Rules, String> {
    Err(format!("the variant \"{name}\" is not in this program; build it with --features broken"))
}

/// One world that can be run.
#[derive(Clone)]
enum World {
    Cluster(u64),
    Slot(u64),
    Scenario(String),
}

/// The variant in which a machine that lost its disk comes back as the node it was.
const KEPT_IDENTITY: &str = "kept-identity";

impl Arguments {
    fn run(&self, world: &World) -> Result<Outcome, String> {
        let broken = self.broken.as_deref();
        let rules =
            broken.filter(|name| *name != KEPT_IDENTITY).map_or_else(|| Ok(Default::default()), rules_without)?;
        let keeps_identity = broken == Some(KEPT_IDENTITY);
        let is_model = match self.disk.as_str() {
            "real" => false,
            "model" => true,
            other => return Err(format!("there is no disk \"{other}\"; there are real and model")),
        };
        Ok(match world {
            World::Scenario(name) => {
                let scenario = Scenario::read(&path_of(name)).map_err(|error| error.to_string())?;
                scenario.play(keeps_identity, self.trace)
            }
            World::Cluster(seed) => {
                let swarm = cluster::Swarm::new(*seed, self.nodes, self.span);
                let storage = if is_model { Storage::Model } else { swarm.storage };
                cluster::run(cluster::Swarm { rules, keeps_identity, storage, ..swarm }, self.trace)
            }
            World::Slot(seed) => slot::run(slot::Swarm { rules, ..slot::Swarm::new(*seed, self.nodes, self.span) }),
        })
    }

    /// The command that runs a world again.
    fn replay(&self, world: &World) -> String {
        let mut command = match world {
            World::Scenario(name) => format!("cargo run --release -p sim -- --scenario {name}"),
            World::Cluster(seed) => format!("cargo run --release -p sim -- --seed {seed}"),
            World::Slot(seed) => format!("cargo run --release -p sim -- --slot-seeds {seed}..{}", seed + 1),
        };
        if let Some(nodes) = self.nodes {
            command += &format!(" --nodes {nodes}");
        }
        if let Some(span) = self.span {
            command += &format!(" --for {}s", span.as_secs());
        }
        if self.disk != "real" {
            command += &format!(" --disk {}", self.disk);
        }
        if let Some(name) = &self.broken {
            if name != KEPT_IDENTITY {
                command = command.replace(" -p sim", " -p sim --features broken");
            }
            command += &format!(" --broken {name}");
        }
        command
    }

    /// Which worlds are to be run.
    fn worlds(&self) -> Box<dyn Iterator<Item = World>> {
        if let Some(hours) = self.hours {
            let end = Instant::now() + Duration::from_secs_f64(hours * 3600.0);
            // Seeds that nobody ran before; a failing one is printed.
            let first =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()) << 20;
            let worlds = (first..).flat_map(|seed| [World::Cluster(seed), World::Slot(seed)]);
            return Box::new(worlds.take_while(move |_| Instant::now() < end));
        }
        if let Some(name) = &self.scenario {
            return Box::new(std::iter::once(World::Scenario(name.clone())));
        }
        if let Some((first, end)) = self.slot_seeds {
            return Box::new((first..end).map(World::Slot));
        }
        let (first, end) = self.seeds.unwrap_or((self.seed, self.seed + 1));
        Box::new((first..end).map(World::Cluster))
    }
}

/// Where a scenario is: among those of the repository, unless it is named like a file.
fn path_of(name: &str) -> PathBuf {
    if name.ends_with(".txt") {
        return name.into();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenario").join(name).with_extension("txt")
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    if let Some(nodes) = arguments.ring {
        return measure(nodes, arguments.seed);
    }
    if let Some(count) = arguments.routes {
        return route(count, &arguments);
    }
    let begun = Instant::now();
    let (mut total, mut worlds) = (Outcome::default(), 0);
    for world in arguments.worlds() {
        let outcome = match arguments.run(&world) {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        };
        worlds += 1;
        total.add(&outcome);
        if let Some((violation, micros)) = &outcome.violation {
            print(&total, worlds);
            println!("after {:.3} s: {violation}", Duration::from_micros(*micros).as_secs_f64());
            outcome.notes.iter().for_each(|note| println!("  {note}"));
            println!("again: {}", arguments.replay(&world));
            return ExitCode::FAILURE;
        }
    }
    print(&total, worlds);
    let times = Duration::from_micros(total.micros).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("{times:>12.1}  times as fast as real time");
    println!("every promise was kept");
    ExitCode::SUCCESS
}

fn route(routes: u64, Arguments { seed, nodes, span, .. }: &Arguments) -> ExitCode {
    let (begun, nodes) = (Instant::now(), nodes.unwrap_or(1000));
    let churn = span.unwrap_or(Duration::from_secs(600));
    let plan = routes::Plan { seed: *seed, nodes, routes, churn, pace: Duration::from_secs(5), look_ups: 200 };
    match routes::run(plan) {
        Ok(figures) => {
            println!("{figures}");
            let (life, real) = (Duration::from_micros(figures.micros), begun.elapsed());
            println!("{:>10.1}  times as fast as real time", life.as_secs_f64() / real.as_secs_f64());
            if let Some(bytes) = resident_bytes() {
                println!("{:>10}  bytes of memory a node", bytes / nodes.max(1));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("seed {seed}: {error}");
            println!("again: cargo run --release -p sim -- --routes {routes} --nodes {nodes} --seed {seed}");
            ExitCode::FAILURE
        }
    }
}

fn measure(nodes: u32, seed: u64) -> ExitCode {
    let begun = Instant::now();
    match sim::ring::measure(nodes, seed) {
        Ok(figures) => {
            println!("{figures}");
            println!("{:>10.1}  s of real time", begun.elapsed().as_secs_f64());
            if let Some(bytes) = resident_bytes() {
                println!("{:>10}  bytes of memory a node", bytes / u64::from(nodes));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("seed {seed}: {error}");
            println!("again: cargo run --release -p sim -- --ring {nodes} --seed {seed}");
            ExitCode::FAILURE
        }
    }
}

/// The memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn print(total: &Outcome, worlds: u64) {
    let hours = Duration::from_micros(total.micros).as_secs_f64() / 3600.0;
    println!("{worlds:>12}  worlds ({hours:.2} hours)");
    for (what, count) in &total.counts {
        println!("{count:>12}  {what}");
    }
    for (what, value) in &total.most {
        println!("{value:>12}  {what}, at most");
    }
    println!("{:016x}  trace", std::hash::Hasher::finish(&total.trace));
}
