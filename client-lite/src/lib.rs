//! Specter's small client: publishes services behind NAT through links to public nodes, and connects to such services.
//!
//! The program `client-lite` is [`main`]. A program that brings its own command line runs a configuration file itself:
//!
//! ```no_run
//! use client_lite::{Event, TunnelOptions, run_tunnel};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), client_lite::TunnelError> {
//! let (sender, mut events) = tokio::sync::mpsc::channel(64);
//! let stop = CancellationToken::new();
//! let client = run_tunnel(TunnelOptions::new("client.yaml"), sender, stop.clone());
//! let print = async {
//!     while let Some(event) = events.recv().await {
//!         if let Event::Published { url, target } = event {
//!             println!("{url} -> {target}");
//!         }
//!     }
//! };
//! let (outcome, ()) = tokio::join!(client, print);
//! # outcome
//! # }
//! ```
//!
//! | module | does |
//! |---|---|
//! | `args`, `commands`, `log` | command line, exit codes, what is told |
//! | `config`, `yaml`, `rewrite`, `store` | the YAML file: parsed, checked, edited in place, replaced as a whole |
//! | `identity`, `work` | key, certificate, proof of work |
//! | `tunnel` | keeps links to several nodes, until told to stop |
//! | `clock`, `memory` | the calendar, the bounds on what is on its way |
//! | `links` | which nodes to keep links to: pure |
//! | `session`, `backoff` | what to say on a link, how long to wait between two: pure |
//! | `link`, `control`, `tls`, `resolve` | QUIC connection, its control stream, trust, names |
//! | `serve`, `target`, `splice` | a visitor's stream: header, dial, bytes both ways |
//! | `connect`, `owned` | the visitor's end; questions about owned hostnames |

mod args;
mod backoff;
mod clock;
mod commands;
mod config;
mod connect;
mod control;
mod identity;
mod link;
mod links;
mod log;
mod memory;
mod owned;
mod resolve;
mod rewrite;
mod serve;
mod session;
mod splice;
mod store;
mod target;
mod tls;
mod tunnel;
mod work;
mod yaml;

pub use commands::main;
pub use config::{ConfigError, Place};
pub use identity::KeyError;
pub use rewrite::RewriteError;
pub use store::SaveError;
pub use tls::TrustError;
pub use tunnel::{Event, TunnelError, TunnelOptions, run_tunnel};
