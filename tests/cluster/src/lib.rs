//! Nodes and clients as processes, visitors that count what they miss, and wires that are slow, lossy or cut.
//!
//! | module | holds |
//! |---|---|
//! | [`process`] | a program that runs: its lines, its log, its end |
//! | [`nodes`] | several nodes with one authority that join each other |
//! | [`network`] | network namespaces for nodes, which can be cut in two |
//! | [`client`] | a client with its file |
//! | [`target`] | a page that says which tunnel it was reached through |
//! | [`visitor`] | one visitor: a connection, a request, what became of it |
//! | [`load`] | a steady load of visitors through every gateway, with what failed and the longest gap |
//! | [`relay`] | UDP and TCP with delay, loss, reordering, a narrow wire, black holes and changes of address |
//!
//! Nothing here asserts: what fails is a sentence, for a test to `expect` and a benchmark to print.

pub mod client;
pub mod load;
pub mod network;
pub mod nodes;
pub mod process;
pub mod relay;
pub mod target;
pub mod visitor;

/// Whatever goes wrong, as a sentence.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
