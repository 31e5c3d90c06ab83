//! Specter's ring and its replicated key-value store, without sockets, clock, files or randomness of its own.

mod ballot;
pub mod codec;
pub mod kv;
mod peer;
mod point;
mod random;
pub mod ring;
mod time;

pub use ballot::{Ballot, NodeId, Version};
pub use peer::{Peer, SEATS_MAX};
pub use point::Point;
pub use random::Random;
pub use time::Instant;
