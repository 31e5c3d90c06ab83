//! Measures the CPU time of each part of a path, and how much of the machine others used meanwhile.

use crate::procfs;
use std::{
    thread::available_parallelism,
    time::{Duration, Instant},
};

/// The processes of a path, by what they do on it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Parts {
    /// Where visitors arrive: our node, a proxy, a tunnel's server.
    pub(crate) node: Vec<u32>,
    /// Beside the target: our client, a tunnel's client.
    pub(crate) client: Vec<u32>,
    /// The target. Never in a sum: every path has it, but on some it does TLS, too.
    pub(crate) target: Vec<u32>,
}

/// CPU seconds of the parts of a path.
#[derive(Clone, Copy, Default, Debug, serde::Serialize)]
pub(crate) struct Cpu {
    pub(crate) node: f64,
    pub(crate) client: f64,
    pub(crate) target: f64,
}

/// What a meter read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) wall: Duration,
    pub(crate) cpu: Cpu,
    /// Share of all cores that was used by processes that are not ours.
    pub(crate) foreign: f64,
}

/// A meter that runs.
pub(crate) struct Meter<'a> {
    parts: &'a Parts,
    begun: Instant,
    cpu: [Duration; 3],
    busy: Duration,
    own: Duration,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(parts: &'a Parts) -> Self {
        Self { parts, begun: Instant::now(), cpu: cpu(parts), busy: procfs::busy(), own: own() }
    }

    pub(crate) fn read(&self) -> Reading {
        let wall = self.begun.elapsed();
        let after = cpu(self.parts);
        let [node, client, target] = [0, 1, 2].map(|index| after[index].saturating_sub(self.cpu[index]).as_secs_f64());
        let busy = procfs::busy().saturating_sub(self.busy).as_secs_f64();
        let own = own().saturating_sub(self.own).as_secs_f64();
        let cores = available_parallelism().map_or(1, usize::from) as f64;
        let foreign = ((busy - own) / (wall.as_secs_f64() * cores)).clamp(0.0, 1.0);
        Reading { wall, cpu: Cpu { node, client, target }, foreign }
    }
}

fn cpu(parts: &Parts) -> [Duration; 3] {
    [&parts.node, &parts.client, &parts.target].map(|processes| processes.iter().map(|id| procfs::cpu(*id)).sum())
}

fn own() -> Duration {
    procfs::family(std::process::id()).into_iter().map(procfs::cpu).sum()
}
