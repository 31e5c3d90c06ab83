//! What a node keeps on disk. [`folder`] is the data directory and its lock, [`snapshot`] the SQLite file in it.

pub mod folder;
pub mod snapshot;
