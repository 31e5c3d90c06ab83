//! Specter's node: a gateway for visitors, links to clients, and the store behind both.
//!
//! | layer | module | does |
//! |---|---|---|
//! | 0 | [`config`] [`identity`] [`shutdown`] [`private`] | what the node is told, who it is, how it ends |
//! | 1 | [`transport`] | bytes between machines |
//! | 2 | [`node`] | the store, on `specter-dht` and `specter-storage`, for everyone above |
//! | 3 | [`link`] | clients' connections |
//! | 4 | [`route`] | who owns a name, and a stream to its target |
//! | 5 | [`gateway`] [`acme`] | visitors; the certificates they are shown |
//! | 6 | [`run`] [`serve`] [`dev`] [`store`] [`status`] [`args`] | builds a node of all this, and runs it for a command |
//!
//! A module imports lower layers and itself only.

pub mod acme;
pub mod args;
pub mod config;
pub mod dev;
pub mod gateway;
pub mod identity;
pub mod link;
pub mod node;
pub mod private;
pub mod route;
pub mod run;
pub mod serve;
pub mod shutdown;
pub mod status;
pub mod store;
pub mod transport;
