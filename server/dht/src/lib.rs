//! Specter's ring and its replicated key-value store, without sockets, clock, files or randomness of its own.

mod ballot;
pub mod codec;
mod io;
pub mod kv;
pub mod node;
mod peer;
mod point;
mod random;
pub mod ring;
mod state;
mod time;

pub use ballot::{Ballot, NodeId, Version};
pub use io::{Ask, ClusterId, Event, Failure, Freshness, Input, Output, Packet, Part, Reply, SlotId, Terms};
pub use node::{Life, Node};
pub use peer::{Peer, SEATS_MAX};
pub use point::Point;
pub use random::Random;
pub use state::{Record, State};
pub use time::Instant;
