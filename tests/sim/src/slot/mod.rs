//! The world of one slot: a few bare `kv::Slot`s whose members are changed at random. The hardest test of a slot.
//!
//! - [`swarm`]: what a seed means: how many nodes, which faults, how patient they are.
//! - `world`: what each event does; `asking`: how clients ask, ask again, and give up; `ending`: what is judged at the end.
//! - `machine`: a node's disk, clock and pauses.
//! - `nemesis`, `faults`: which faults happen when, and how they come about.
//! - `client`: who asks what.

mod asking;
mod client;
mod ending;
mod faults;
mod machine;
mod nemesis;
pub mod swarm;
mod world;

pub use swarm::Swarm;

use crate::Outcome;

/// Runs one world to its end, or to the first broken promise.
pub fn run(swarm: Swarm) -> Outcome {
    world::World::new(swarm).run()
}
