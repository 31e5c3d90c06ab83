//! Specter's node.

pub mod acme;
pub mod args;
pub mod config;
pub mod dev;
pub mod identity;
pub mod node;
pub mod private;
pub mod run;
pub mod serve;
pub mod shutdown;
pub mod storage;
