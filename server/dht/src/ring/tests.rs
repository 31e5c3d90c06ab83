//! Rings of a few nodes, in memory.

mod chaos;
mod crashes;
mod growth;
mod nonsense;
mod partitions;
pub(super) mod world;
