//! Real processes on ports of their own choice, real tools as visitors, and targets that run inside the test.
//!
//! A test starts a [`Node`], a [`Client`] for some [`target::Target`], and visits it. Everything lives in its own temporary folder, every
//! wait has a deadline, and what fails shows the log of the program that failed.
//!
//! | module | holds |
//! |---|---|
//! | [`binary`] | the programs under test, built once |
//! | [`process`] | a running program: its lines, its log, its end |
//! | [`node`] | `specter-server run` on loopback |
//! | [`client`] | `client-lite` in its forms |
//! | [`target`] | services to be reached |
//! | [`visit`] | curl and raw TLS connections to the gateway |
//! | [`tool`] | programs of the operating system |

pub mod binary;
pub mod client;
pub mod node;
pub mod process;
pub mod target;
pub mod tool;
pub mod visit;

pub use client::Client;
pub use node::Node;
pub use process::Process;

use std::{future::Future, time::Duration};

/// How long anything may take that should be quick. Long enough for a debug build on a busy machine of two cores, and
/// for QUIC to notice after 30 s that the other side is gone.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
///
/// # Panics
/// If it has not happened after [`PATIENCE`]; `what` tells what was waited for.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("after {PATIENCE:?} still waiting for {what}"),
    }
}
