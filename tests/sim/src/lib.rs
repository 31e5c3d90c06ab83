//! Runs the slots of `specter-dht` under faults, in one thread, from a seed, and checks what they promise.
//!
//! - [`swarm`]: what a seed means: how many nodes, which faults, how patient they are.
//! - `world`: the event queue, and what each event does.
//! - `machine`, `network`: a node's disk, clock and pauses; what becomes of a message.
//! - `nemesis`: which faults happen when.
//! - `client`, `history`: who asks what, and what came of it.
//! - [`checker`]: whether the history of a key could have happened one operation at a time.
//! - `invariant`: what must hold at every moment.
//! - [`ring`]: the ring alone, with as many nodes as one likes.
//! - [`tally`]: what a run comes to, and the hash that is the same for the same seed.

pub mod checker;
mod client;
mod history;
mod invariant;
mod machine;
mod nemesis;
mod network;
pub mod ring;
pub mod swarm;
pub mod tally;
mod world;

pub use swarm::Swarm;
pub use tally::{Outcome, Violation};

/// Runs one world to its end, or to the first broken promise.
pub fn run(swarm: Swarm) -> Outcome {
    world::World::new(swarm).run()
}
