//! Keeps a client's tunnels published on links to several nodes until it is told to stop. The façade of the library.
//!
//! `keep` is the one task that knows of all links and asks `links` what to do; `drive` is one link; `state` is what they
//! have in common.

mod drive;
mod events;
mod keep;
mod state;
mod wake;

use crate::{
    config::{Config, ConfigError},
    control::ControlError,
    identity::KeyError,
    link::{Link, LinkError},
    session::SessionError,
    store::{SaveError, Store},
    tls::{Trust, TrustError},
};
use keep::Keeper;
use ring::rand::{SecureRandom, SystemRandom};
use specter_wire::{id::NodeId, link::Neighbour};
use state::State;
use std::{path::PathBuf, sync::Arc, time::SystemTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use events::Event;

/// What to run.
#[derive(Clone, Debug)]
pub struct TunnelOptions {
    /// The configuration. Certificate, key and hostnames are written into it.
    pub config_path: PathBuf,
    /// A file of certificates to trust instead of what the configuration says.
    pub ca_file: Option<PathBuf>,
}

impl TunnelOptions {
    /// Runs what a file says.
    pub fn new(config_path: impl Into<PathBuf>) -> Self {
        Self { config_path: config_path.into(), ca_file: None }
    }
}

/// Why no tunnel can be kept. A node that cannot be reached is no such reason: it is tried for ever.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// There is no usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What a node gave cannot be kept.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no usable CA file.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The TLS settings cannot be made of the given certificates.
    #[error("the certificates in the CA file cannot be used: give PEM files of X.509 version 3")]
    Tls(#[from] rustls::Error),
    /// The program was built with a TLS provider that cannot do QUIC.
    #[error("the TLS provider lacks what QUIC needs")]
    Cipher,
    /// There is nothing to publish.
    #[error("the configuration {} has no tunnels: add `tunnels:` with one `- target: …` for each service", path.display())]
    NoTunnels {
        /// The file.
        path: PathBuf,
    },
    /// There is a certificate without its key.
    #[error(
        "the configuration has a `certificate` without its `privKey`: restore the key from a backup, or remove `certificate` and every `hostname` to start as a new client"
    )]
    KeyMissing,
}

/// Publishes the tunnels of a file and serves them until `stop` is cancelled; then closes in good order.
///
/// Events must be taken from the channel: a full one holds the control stream up. A closed one is ignored. Runs on any
/// tokio runtime with IO and time, a `current_thread` one included.
///
/// # Errors
/// [`TunnelError`], before anything is published or when the file cannot be completed. The network is no reason to end.
///
/// # Cancel safety
/// Dropping the future cuts the link without a word; nodes notice within 16 s.
pub async fn run_tunnel(
    options: TunnelOptions,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) -> Result<(), TunnelError> {
    let mut config = Config::load(&options.config_path)?;
    if let Some(file) = &options.ca_file {
        config.trust = Trust::read_file(file)?;
    }
    if config.tunnels.is_empty() {
        return Err(TunnelError::NoTunnels { path: options.config_path });
    }
    Client::new(config, Store::File(options.config_path), events)?.run(stop).await
}

/// A client that was checked and can run.
pub(crate) struct Client {
    config: Config,
    state: State,
    events: mpsc::Sender<Event>,
}

impl Client {
    /// Checks all that can be checked without a node.
    pub(crate) fn new(config: Config, store: Store, events: mpsc::Sender<Event>) -> Result<Self, TunnelError> {
        let state = State::new(config.clone(), store)?;
        Ok(Self { config, state, events })
    }

    /// Keeps links until `stop` is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), TunnelError> {
        // Ended by a child: a failure must not cancel what the caller gave.
        Keeper::new(Arc::new(self.state), &self.config, self.events, stop.child_token()).run().await
    }
}

/// What the keeper wants of a link. Only ever more of it, but for the lead.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    /// To publish, once it was welcomed.
    serve: bool,
    /// To register, renew and ask for names.
    lead: bool,
    /// To publish no longer, and to end with the last stream.
    leave: bool,
    /// To end at once.
    close: bool,
}

/// What a link tells the keeper.
enum Report {
    /// A node answered, and the link waits for orders.
    Welcomed {
        node: NodeId,
        opened: Link,
    },
    /// Certificate and names are there: other links may be opened.
    Ready,
    /// Everything that could be published was answered.
    Settled,
    Published {
        tunnel: usize,
        url: String,
        target: String,
    },
    Refused {
        tunnel: usize,
        target: String,
        reason: String,
    },
    Neighbours(Vec<Neighbour>),
    Draining,
}

/// How a link ended.
enum End {
    /// With the program.
    Stopped,
    /// By the keeper's wish, or after its node went away.
    Closed,
    Lost(LinkLost),
    Fatal(TunnelError),
}

impl<E: Into<LinkLost>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

/// Why another link is needed.
#[derive(Debug, thiserror::Error)]
enum LinkLost {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("no proof of work was found")]
    NoProof,
    #[error("the certificate that the node gave cannot be used")]
    Certificate,
    #[error("the TLS session gives no key for the registration")]
    Exporter,
    #[error("another link of this very run has replaced it")]
    Replaced,
}

/// An error and its causes in one line.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The time that certificates are judged by.
pub(crate) fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A number to tell runs apart and to spread delays; nothing secret. A system without randomness gives the time.
pub(crate) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
    }
}
