//! A large cluster that keeps routes, as gateways use it: nodes tell which hostnames they serve, look others up by hint reads,
//! and come, go and die meanwhile.
//!
//! Nodes keep the rules of `server/src/route`: a name is a set with a child for each node that serves it; a read that finds
//! nobody is confirmed by a majority; who goes removes its children first; children of a node that has been silent for
//! [`UNREACHABLE_SECONDS`] are removed by whoever finds them.
//!
//! Nodes are whole ones with the patience of real ones, and their records are durable at once: what disks do is a matter of
//! [`crate::cluster`].
//!
//! - `world`: nodes, messages, time, and who comes and goes.
//! - `names`: who serves what, look-ups, and what they must find.

mod names;
mod world;

use std::fmt;
use std::time::Duration;

use specter_dht::kv;

/// How long a node may be silent until its routes are removed.
pub const UNREACHABLE_SECONDS: u64 = 300;

/// Nodes that serve each name.
pub const SERVERS: u64 = 2;

/// How long a look-up may take under churn.
pub const LOOK_UP_SECONDS: u64 = 10;

/// A large cluster, its routes and its churn.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What it is made from.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: u64,
    /// How many routes: names times [`SERVERS`].
    pub routes: u64,
    /// For how long nodes come, go and die.
    pub churn: Duration,
    /// How long after one node has gone or died the next one does, and another one comes.
    pub pace: Duration,
    /// Look-ups in a second, from random nodes for random names.
    pub look_ups: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many nodes there were at first.
    pub nodes: u64,
    /// How many routes there were.
    pub routes: u64,
    /// Until every slot was led and had all its replicas, in seconds.
    pub formed_seconds: u64,
    /// Until all routes were told at first, in seconds.
    pub told_seconds: u64,
    /// How many nodes left in order.
    pub left: u64,
    /// How many died without a word.
    pub died: u64,
    /// How many came.
    pub came: u64,
    /// Look-ups while they did.
    pub look_ups: u64,
    /// Of these, those that a hint read was not enough for.
    pub confirmed: u64,
    /// How many times a look-up tried a node that was dead or did not serve the name any more.
    pub in_vain: u64,
    /// How many times a look-up had to be asked anew, because no replica answered.
    pub again: u64,
    /// The longest time until a living route was found, in microseconds.
    pub slowest_micros: u64,
    /// Half of them took no longer than the first, and 99 of a hundred no longer than the second.
    pub usual_micros: (u64, u64),
    /// How many children of dead nodes were removed by others.
    pub removed: u64,
    /// How many slots a node has of which it is or was a member, at most.
    pub slots_most: usize,
    /// How many names a node keeps, at most.
    pub kept_most: usize,
    /// How many packets nodes sent.
    pub packets: u64,
    /// For how long the cluster lived, in microseconds.
    pub micros: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { look_ups, confirmed, in_vain, again, removed, packets, .. } = self;
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        writeln!(f, "{:>10}  nodes", self.nodes)?;
        writeln!(f, "{:>10}  routes", self.routes)?;
        writeln!(f, "{:>10}  s until each slot has its replicas", self.formed_seconds)?;
        writeln!(f, "{:>10}  s until all routes are told", self.told_seconds)?;
        writeln!(f, "{:>10}  nodes left, {} died, {} came", self.left, self.died, self.came)?;
        writeln!(f, "{look_ups:>10}  look-ups meanwhile, each found who lives")?;
        writeln!(
            f,
            "{confirmed:>10}  of them confirmed by a majority, {again} asked anew, {in_vain} nodes tried in vain"
        )?;
        writeln!(f, "{:>10.1}  ms for half of them, at most", ms(self.usual_micros.0))?;
        writeln!(f, "{:>10.1}  ms for 99 of 100, at most", ms(self.usual_micros.1))?;
        writeln!(f, "{:>10.1}  ms for all, at most", ms(self.slowest_micros))?;
        writeln!(f, "{removed:>10}  routes to dead nodes removed; none is left")?;
        writeln!(f, "{:>10}  slots a node keeps or kept, at most", self.slots_most)?;
        writeln!(f, "{:>10}  names a node keeps, at most", self.kept_most)?;
        writeln!(f, "{packets:>10}  packets")?;
        write!(f, "{:>10.0}  s of the cluster's life", Duration::from_micros(self.micros).as_secs_f64())
    }
}

/// Runs a cluster as planned.
///
/// # Errors
/// What was not as it must be, in words.
pub fn run(plan: Plan) -> Result<Figures, String> {
    let mut world = world::World::new(plan);
    world.grow()?;
    world.tell_all()?;
    world.churn()?;
    world.rest()?;
    Ok(world.figures())
}

/// The key of a name.
fn key_of(name: usize) -> kv::Key {
    format!("/route/h{name}.tunnels.example").into_bytes()
}

/// A child as a real node writes it, as far as its length goes: which node, and what it knows of the tunnel.
fn child_of(node: usize) -> Vec<u8> {
    let mut child = vec![0; 24];
    child[..8].copy_from_slice(&(node as u64).to_be_bytes());
    child
}

/// Which node a child leads to.
fn node_of(child: &[u8]) -> Option<usize> {
    let number = child.get(..8)?.try_into().ok()?;
    usize::try_from(u64::from_be_bytes(number)).ok()
}
