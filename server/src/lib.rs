//! Specter's node.

pub mod acme;
pub mod config;
pub mod identity;
pub mod node;
pub mod private;
pub mod shutdown;
pub mod storage;
