//! `sim`: runs slots under faults from a seed, or from many.

use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use sim::{Outcome, Swarm};

/// Runs Specter's slots under faults and checks what they promise.
#[derive(FromArgs)]
struct Arguments {
    /// the world to run; everything that happens in it follows from this number
    #[argh(option, default = "1")]
    seed: u64,
    /// many worlds to run, from the first up to but without the last: 0..1000
    #[argh(option, from_str_fn(parse_seeds))]
    seeds: Option<(u64, u64)>,
    /// how many nodes there are; drawn from the seed when not given
    #[argh(option)]
    nodes: Option<u64>,
    /// how long faults happen in each world: 30s, 10m, 1h
    #[argh(option, long = "for", from_str_fn(parse_span))]
    span: Option<Duration>,
    /// break one rule, to see that it is noticed; only in a program built with the feature `broken`
    #[argh(option)]
    broken: Option<String>,
    /// a ring of so many nodes in place of slots: grown, crashed, measured
    #[argh(option)]
    ring: Option<u32>,
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
fn break_rule(swarm: &mut Swarm, name: &str) -> Result<(), String> {
    use specter_dht::kv::{Rule, Rules};
    let names = || Rule::ALL.map(Rule::broken_name).join(", ");
    let rule = Rule::ALL.into_iter().find(|rule| rule.broken_name() == name);
    let rule = rule.ok_or_else(|| format!("there is no broken variant \"{name}\"; there are: {}", names()))?;
    swarm.rules = Rules::without(rule);
    Ok(())
}

#[cfg(not(feature = "broken"))]
fn break_rule(_swarm: &mut Swarm, name: &str) -> Result<(), String> {
    Err(format!("the variant \"{name}\" is not in this program; build it with --features broken"))
}

fn main() -> ExitCode {
    let arguments: Arguments = argh::from_env();
    if let Some(nodes) = arguments.ring {
        return measure(nodes, arguments.seed);
    }
    let (first, end) = arguments.seeds.unwrap_or((arguments.seed, arguments.seed + 1));
    let mut total = Outcome::default();
    for seed in first..end {
        let mut swarm = Swarm::new(seed, arguments.nodes, arguments.span);
        if let Some(name) = &arguments.broken
            && let Err(error) = break_rule(&mut swarm, name)
        {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
        let outcome = sim::run(swarm);
        total.add(&outcome);
        if let Some((violation, micros)) = &outcome.violation {
            print(&total, seed - first + 1);
            println!("seed {seed}, after {:.3} s: {violation}", Duration::from_micros(*micros).as_secs_f64());
            println!("again: {}", replay(&arguments, seed));
            return ExitCode::FAILURE;
        }
    }
    print(&total, end.saturating_sub(first));
    println!("every promise was kept");
    ExitCode::SUCCESS
}

fn measure(nodes: u32, seed: u64) -> ExitCode {
    let begun = std::time::Instant::now();
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
    println!("{:>12}  worlds ({hours:.2} hours)", worlds);
    for (what, count) in &total.counts {
        println!("{count:>12}  {what}");
    }
    println!("{:016x}  trace", std::hash::Hasher::finish(&total.trace));
}

fn replay(arguments: &Arguments, seed: u64) -> String {
    let mut command = format!("cargo run --release -p sim -- --seed {seed}");
    if let Some(nodes) = arguments.nodes {
        command += &format!(" --nodes {nodes}");
    }
    if let Some(span) = arguments.span {
        command += &format!(" --for {}s", span.as_secs());
    }
    if let Some(name) = &arguments.broken {
        command = command.replace(" -p sim", " -p sim --features broken") + &format!(" --broken {name}");
    }
    command
}
