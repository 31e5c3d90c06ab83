//! Rings of a few nodes, in memory.

mod growth;
mod world;
