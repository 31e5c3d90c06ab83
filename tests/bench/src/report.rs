//! Turns samples into tables that can be pasted, and says which goals were reached.

use crate::{
    calibrate::REFERENCE_CPU_S_PER_GIB,
    memory::Idle,
    meter::Cpu,
    procfs::Memory,
    programs::{Programs, size_kib},
    specter::TUNNELS,
    stats::{calmest, median},
    work::{Sample, Work},
};
use std::fmt::Write as _;

/// All rounds of one kind of work, over all paths that can do it.
pub(crate) struct Rounds {
    pub(crate) work: Work,
    pub(crate) paths: Vec<&'static str>,
    /// `samples[round][path]`.
    pub(crate) samples: Vec<Vec<Sample>>,
}

/// Medians of one case over the rounds kept.
struct Row {
    path: &'static str,
    rate: f64,
    latency_us: Option<[f64; 2]>,
    /// CPU seconds per unit.
    cpu: Cpu,
    to_nginx: Option<f64>,
    to_direct: Option<f64>,
    /// Sum of the CPU time, by that of nginx.
    cpu_to_nginx: Option<f64>,
    foreign: f64,
}

/// What the first version is to reach.
const REQUESTS_TO_NGINX: f64 = 0.8;
const CPU_S_PER_GIB: f64 = 4.0;
const LINK_KIB: f64 = 40.0;

/// Concurrency at which the requests per second are compared.
pub(crate) const GOAL_CONCURRENCY: usize = 32;

impl Rounds {
    /// Indices of the rounds in which others used the machine least.
    fn kept(&self) -> Vec<usize> {
        let disturbance: Vec<f64> = self
            .samples
            .iter()
            .map(|round| round.iter().map(|sample| sample.foreign).sum::<f64>() / round.len().max(1) as f64)
            .collect();
        calmest(&disturbance)
    }

    fn rows(&self) -> Vec<Row> {
        let kept = self.kept();
        let place = |name: &str| self.paths.iter().position(|path| *path == name);
        let over = |value: &dyn Fn(&[Sample]) -> f64| median(kept.iter().map(|round| value(&self.samples[*round])));
        // Ratios are taken within a round, where both were measured under the same conditions.
        let ratio =
            |path: usize, base: Option<usize>| base.map(|base| over(&|round| round[path].rate() / round[base].rate()));
        let row = |(index, path): (usize, &&'static str)| {
            let latency = |which: usize| over(&|round| round[index].latency_us.map_or(0.0, |times| times[which]));
            let timed = self.samples.first().is_some_and(|round| round[index].latency_us.is_some());
            Row {
                path,
                rate: over(&|round| round[index].rate()),
                latency_us: timed.then(|| [latency(0), latency(1)]),
                cpu: Cpu {
                    node: over(&|round| round[index].cpu_s.node / round[index].units),
                    client: over(&|round| round[index].cpu_s.client / round[index].units),
                    target: over(&|round| round[index].cpu_s.target / round[index].units),
                },
                to_nginx: ratio(index, place("nginx")),
                to_direct: ratio(index, place("direct")),
                cpu_to_nginx: place("nginx").map(|nginx| {
                    let each = |sample: &Sample| (sample.cpu_s.node + sample.cpu_s.client) / sample.units;
                    over(&|round| each(&round[index]) / each(&round[nginx]))
                }),
                foreign: over(&|round| round[index].foreign),
            }
        };
        self.paths.iter().enumerate().map(row).collect()
    }

    /// A Markdown table.
    pub(crate) fn table(&self) -> String {
        let bulk = self.work.is_bulk();
        let (rate, unit, scale) = if bulk { ("GiB/s", "cpu-s/GiB", 1.0) } else { ("per s", "µs each", 1e6) };
        let latency = if bulk { "" } else { " p50 µs | p99 µs |" };
        let rule = if bulk { "" } else { "---:|---:|" };
        let mut text = format!(
            "### {} ({} of {} rounds)\n\n\
             | path | {rate} |{latency} node {unit} | client {unit} | sum | target | to nginx | to direct | cpu to nginx | foreign |\n\
             |---|---:|{rule}---:|---:|---:|---:|---:|---:|---:|---:|\n",
            self.work,
            self.kept().len(),
            self.samples.len(),
        );
        for row in self.rows() {
            let digits = if bulk { 2 } else { 0 };
            let latency = row.latency_us.map_or(String::new(), |[p50, p99]| format!(" {p50:.0} | {p99:.0} |"));
            let Cpu { node, client, target } = row.cpu;
            let cpu = [node, client, node + client, target].map(|value| amount(value * scale));
            let [node, client, sum, target] = cpu;
            let ratio = |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = writeln!(
                text,
                "| {} | {:.digits$} |{latency} {node} | {client} | {sum} | {target} | {} | {} | {} | {:.0} % |",
                row.path,
                row.rate,
                ratio(row.to_nginx),
                ratio(row.to_direct),
                ratio(row.cpu_to_nginx.filter(|ratio| *ratio > 0.0)),
                row.foreign * 100.0
            );
        }
        text
    }
}

impl Sample {
    fn rate(&self) -> f64 {
        self.units / self.wall_s
    }
}

/// Three digits are all that these figures are good for.
fn amount(value: f64) -> String {
    if value == 0.0 {
        "–".to_owned()
    } else if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Memory and sizes as Markdown tables.
pub(crate) fn memory_table(idle: &Idle, others: &[(String, Memory)], programs: &Programs) -> String {
    let mut text = "### memory\n\n| what | resident | anonymous |\n|---|---:|---:|\n".to_owned();
    let mut line = |what: &str, memory: Memory| {
        let _ = writeln!(text, "| {what} | {} KiB | {} KiB |", memory.resident_kib, memory.anonymous_kib);
    };
    line("node, seen nobody", idle.node);
    line(&format!("client, 1 link, {TUNNELS} tunnels, idle"), idle.client);
    for (name, memory) in others {
        line(name, *memory);
    }
    let _ = write!(
        text,
        "\n| each | node | client |\n|---|---:|---:|\n\
         | idle client, registered ({} links) | {:.1} KiB | |\n| idle client that serves a tunnel | {:.1} KiB | |\n",
        idle.links, idle.link_kib, idle.tunnel_link_kib
    );
    for (path, node, client) in &idle.visitor_kib {
        let _ = writeln!(text, "| idle visitor on {path} ({}) | {node:.1} KiB | {client:.1} KiB |", idle.visitors);
    }
    let _ = write!(
        text,
        "\n| program | size |\n|---|---:|\n| specter-server | {} KiB |\n| client-lite | {} KiB |\n",
        size_kib(&programs.server),
        size_kib(&programs.client)
    );
    if let Some(lite) = &programs.lite {
        let _ = writeln!(text, "| client-lite, profile lite | {} KiB |", size_kib(lite));
    }
    text
}

/// One line for each goal.
pub(crate) fn goals(measured: &[Rounds], idle: Option<&Idle>, seal_cpu_s_per_gib: f64) -> String {
    let mut text = format!(
        "### goals\n\nSealing a GiB of packets took {seal_cpu_s_per_gib:.2} cpu-s here, {REFERENCE_CPU_S_PER_GIB} where the \
         goals were set.\n\n"
    );
    let mut line = |goal: &str, value: Option<f64>, reached: &dyn Fn(f64) -> bool| {
        let verdict = match value {
            Some(value) if reached(value) => format!("**reached** ({value:.2})"),
            Some(value) => format!("**not reached** ({value:.2})"),
            None => "not measured".to_owned(),
        };
        let _ = writeln!(text, "- {goal}: {verdict}");
    };
    let find = |path: &str, of: &dyn Fn(Work) -> bool| {
        let rounds = measured.iter().find(|rounds| of(rounds.work))?;
        rounds.rows().into_iter().find(|row| row.path == path)
    };
    let requests = |work| matches!(work, Work::Requests { concurrency: GOAL_CONCURRENCY, .. });
    for path in ["tunnel-http", "tunnel-raw"] {
        let ratio = find(path, &requests).and_then(|row| row.to_nginx);
        line(
            &format!("{path}: at least {REQUESTS_TO_NGINX} of nginx in requests per second at {GOAL_CONCURRENCY}"),
            ratio,
            &|ratio| ratio >= REQUESTS_TO_NGINX,
        );
    }
    let download = |work| matches!(work, Work::Download { .. });
    let upload = |work| matches!(work, Work::Upload { .. });
    let directions: [(&str, &dyn Fn(Work) -> bool); 2] = [("down", &download), ("up", &upload)];
    for path in ["tunnel-http", "tunnel-raw"] {
        for (direction, of) in directions {
            let cpu = find(path, of).map(|row| row.cpu.node + row.cpu.client);
            line(
                &format!("{path} {direction}: at most {CPU_S_PER_GIB} CPU-seconds per GiB, node and client"),
                cpu,
                &|cpu| cpu <= CPU_S_PER_GIB,
            );
        }
    }
    line(
        &format!("at most {LINK_KIB} KiB of the node per idle client that serves a tunnel"),
        idle.map(|idle| idle.tunnel_link_kib),
        &|kib| kib <= LINK_KIB,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(units: f64, foreign: f64) -> Sample {
        let cpu_s = Cpu { node: units * 2e-5, client: units * 1e-5, target: 0.0 };
        Sample { units, wall_s: 1.0, cpu_s, foreign, latency_us: Some([10.0, 20.0]) }
    }

    #[test]
    fn ratios_are_taken_within_the_calm_rounds() {
        let work = Work::Requests { concurrency: GOAL_CONCURRENCY, duration: Duration::from_secs(1) };
        let rounds = Rounds {
            work,
            paths: vec!["nginx", "tunnel-http"],
            samples: vec![
                vec![sample(100.0, 0.1), sample(90.0, 0.1)],
                vec![sample(50.0, 0.2), sample(45.0, 0.2)],
                vec![sample(100.0, 0.9), sample(10.0, 0.9)],
            ],
        };
        let row = &rounds.rows()[1];
        assert!((row.to_nginx.expect("a ratio") - 0.9).abs() < 1e-9);
        assert_eq!(row.to_direct, None);
        assert!((row.cpu.node - 2e-5).abs() < 1e-12);
        assert!(
            goals(&[rounds], None, REFERENCE_CPU_S_PER_GIB)
                .contains("in requests per second at 32: **reached** (0.90)")
        );
    }
}
