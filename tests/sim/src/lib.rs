//! Runs `specter-dht` under faults, in one thread, from a seed, and checks what it promises.
//!
//! Two worlds:
//! - [`slot`]: a few bare slots whose members change at random: the hardest test of the registers' rules.
//! - [`cluster`]: many whole nodes that join, leave, crash and lose their disks: the ring, the slots and their requests.
//!
//! The ring alone, with as many nodes as one likes, is [`ring`]; a large cluster under the load of gateways is [`routes`].
//!
//! And what the two worlds are made of:
//! - `queue`: what is due when.
//! - `network`, `disk`, `clock`: what becomes of a message, of a log, of time.
//! - `workload`: what a client asks next.
//! - `history`, [`checker`]: what clients saw, and whether it could have happened one operation at a time.
//! - `invariant`, `lease`: what must hold at every moment.
//! - [`tally`]: what a run comes to, and the hash that is the same for the same seed.

pub mod checker;
mod clock;
pub mod cluster;
mod disk;
mod history;
mod invariant;
mod lease;
pub mod network;
mod queue;
pub mod ring;
pub mod routes;
pub mod slot;
pub mod tally;
mod workload;

pub use tally::{Outcome, Violation};
