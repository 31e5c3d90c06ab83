//! Rings of a few nodes, in memory.

mod crashes;
mod growth;
mod nonsense;
mod partitions;
pub(super) mod world;
