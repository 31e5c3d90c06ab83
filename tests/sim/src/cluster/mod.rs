//! The world of a cluster: many whole nodes that join, leave, crash, are cut off and lose their disks, and clients that ask
//! them.
//!
//! - [`swarm`]: what a seed means: how many nodes, how patient, which faults.
//! - `world`: the machines and what each event does; `machine`: a disk, a clock, an address, and the node on it.
//! - `store`: the disk, and the storage code of a real node on it.
//! - `nemesis`, `faults`: which faults happen when, and how they come about.
//! - `client`, `asking`: who asks what, and what becomes of it.
//! - `watch`: what must hold at every moment; `settled`: what must hold once nothing fails.
//! - `ending`: the phases of a world, and what is judged at its end.
//! - [`Scenario`]: what is to happen, line by line, in place of chance.
//! - `waits`, `traffic`: how long keys could not be had, how much nodes say.
//! - `trace`: what happens, in lines a person can read.

mod asking;
mod care;
mod client;
mod ending;
mod faults;
mod machine;
mod nemesis;
mod scenario;
mod settled;
mod store;
pub mod swarm;
mod trace;
mod traffic;
mod waits;
mod watch;
mod world;

pub use scenario::{Error as ScenarioError, Scenario};
pub use swarm::{Storage, Swarm};

use crate::Outcome;

/// Runs one world to its end, or to the first broken promise; prints what happens when it is asked to.
pub fn run(swarm: Swarm, tells: bool) -> Outcome {
    let mut world = world::World::new(swarm);
    world.tells = tells;
    world.run()
}
