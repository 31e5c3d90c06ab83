//! Keeps a client's tunnels published: links, sessions, reconnecting, until it is told to stop. The façade of the
//! library.

mod drive;
mod events;

use crate::{
    backoff::Backoff,
    clock,
    config::{Config, ConfigError, raw::Secret},
    control::ControlError,
    identity::{Certificate, Key, KeyError},
    link::{Link, LinkError},
    rewrite::Values,
    serve::{Routes, Service},
    session::SessionError,
    store::{SaveError, Store},
    tls::{Trust, TrustError},
};
use quinn::ConnectionError;
use ring::{
    digest::{Context, SHA256},
    rand::{SecureRandom, SystemRandom},
};
use specter_wire::version::ALPN_LINK;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

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
/// Dropping the future cuts the link without a word; nodes notice within 30 s.
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

/// A client between its links.
pub(crate) struct Client {
    config: Config,
    store: Store,
    key: Arc<Key>,
    /// Whether the key is in the store.
    key_saved: bool,
    certificate: Option<Certificate>,
    instance: u64,
    routes: watch::Sender<Arc<Routes>>,
    service: Service,
    events: mpsc::Sender<Event>,
    draining: TaskTracker,
}

/// How a link ended.
enum End {
    /// By our own wish.
    Stopped,
    /// The node goes away; what runs on the link may end there.
    Drained,
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

impl Client {
    /// Checks all that can be checked without a node.
    pub(crate) fn new(config: Config, store: Store, events: mpsc::Sender<Event>) -> Result<Self, TunnelError> {
        if config.is_incomplete() {
            store.check()?;
        }
        let key_saved = !config.private_key.0.is_empty();
        if !key_saved && !config.certificate.is_empty() {
            return Err(TunnelError::KeyMissing);
        }
        let key = if key_saved { Key::from_pem(&config.private_key.0)? } else { Key::generate()? };
        let certificate = usable_certificate(&config, &key);
        let instance = instance(&store, &key);
        let (routes, receiver) = watch::channel(Arc::default());
        let memory = config.memory;
        Ok(Self {
            config,
            store,
            key: Arc::new(key),
            key_saved,
            certificate,
            instance,
            routes,
            service: Service::new(receiver, memory),
            events,
            draining: TaskTracker::new(),
        })
    }

    /// Opens one link after the other.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), TunnelError> {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let lost = match self.link(&stop).await {
                End::Stopped => return Ok(()),
                End::Fatal(error) => return Err(error),
                End::Drained => {
                    info!("the node goes away: opening another link");
                    None
                }
                End::Lost(LinkLost::Link(LinkError::CertificateRefused { source })) if self.certificate.is_some() => {
                    warn!(%source, "the node refuses the certificate in the configuration: registering the same key again");
                    self.certificate = None;
                    continue;
                }
                End::Lost(lost) => Some(lost),
            };
            if let Some(LinkLost::Replaced) = lost {
                // Whoever else has this number, a copy of this machine's memory perhaps, is let alone from here on.
                self.instance = random_u64();
            }
            backoff.worked_for(began.elapsed());
            let delay = backoff.delay(random_u64() as u32);
            let mut clockless = None;
            if let Some(lost) = lost {
                let reason = sentence(&lost);
                let retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                clockless = if let LinkLost::Link(LinkError::Untrusted { .. }) = lost { clock::unset() } else { None };
                match lost {
                    LinkLost::Link(LinkError::Untrusted { .. } | LinkError::Version { .. }) => {
                        error!(reason, retry_in_ms, "no link");
                    }
                    LinkLost::Link(_)
                    | LinkLost::Session(_)
                    | LinkLost::Control(_)
                    | LinkLost::NoProof
                    | LinkLost::Certificate
                    | LinkLost::Exporter
                    | LinkLost::Replaced => warn!(reason, retry_in_ms, "no link"),
                }
                self.tell(Event::Disconnected { reason, retry_in: delay }).await;
            }
            if let Some(clock) = clockless {
                warn!(%clock, "this machine's clock is not set, so no certificate holds: waiting for the time");
            }
            let pause = async {
                match clockless {
                    Some(_) => clock::until_set(CLOCK).await,
                    None => sleep(delay).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = pause => {}
            }
        }
    }

    /// One link from dialling to its end.
    async fn link(&mut self, stop: &CancellationToken) -> End {
        let now_unix_s = unix_now_s();
        if self.certificate.as_ref().is_some_and(|certificate| certificate.is_expired(now_unix_s)) {
            warn!("the certificate in the configuration has expired: registering the same key again");
            self.certificate = None;
        }
        let identity = self.certificate.as_ref().map(|certificate| (certificate, self.key.as_ref()));
        let tls = match self.config.trust.client_config(ALPN_LINK, identity) {
            Ok(tls) => tls,
            Err(error) => return End::Fatal(error.into()),
        };
        let dialled = tokio::select! {
            () = stop.cancelled() => return End::Stopped,
            dialled = Link::dial(&self.config.apex, &tls, self.config.memory) => dialled,
        };
        let link = match dialled {
            Ok(link) => link,
            Err(error) => return End::Lost(error.into()),
        };
        let service = self.service.clone();
        let connection = link.connection.clone();
        let end = tokio::select! {
            end = drive::drive(self, &connection, stop) => end,
            () = service.accept(&connection) => End::Lost(self.reason_of(&connection)),
        };
        match end {
            End::Drained => {
                self.draining.spawn(async move {
                    // Streams that were under way when the node said so are served yet.
                    timeout(DRAIN, service.accept(&link.connection)).await.ok();
                    link.close().await;
                });
                End::Drained
            }
            End::Lost(lost) => {
                // The stream's error is less than what the connection knows.
                let lost = if connection.close_reason().is_some() { self.reason_of(&connection) } else { lost };
                link.close().await;
                End::Lost(lost)
            }
            End::Stopped | End::Fatal(_) => {
                link.close().await;
                end
            }
        }
    }

    /// Why a connection ended.
    fn reason_of(&self, connection: &quinn::Connection) -> LinkLost {
        match connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) if close.error_code.into_inner() == REPLACED => {
                LinkLost::Replaced
            }
            Some(error) => LinkError::from_connection(error, &self.config.apex).into(),
            None => ControlError::Ended.into(),
        }
    }

    /// Keeps a certificate, and with the first one the key.
    async fn save_certificate(&mut self, pem: String) -> Result<(), End> {
        let certificate = Certificate::from_pem(&pem, &self.key).map_err(|_| LinkLost::Certificate)?;
        let private_key = (!self.key_saved).then(|| Secret(self.key.to_pem()));
        let first = private_key.is_some();
        let values = Values { certificate: Some(pem), private_key, hostnames: Vec::new() };
        match self.save(values).await {
            Ok(()) => self.key_saved = true,
            Err(error) if first => return Err(End::Fatal(error.into())),
            Err(error) => {
                warn!(reason = sentence(&error), "the new certificate is not kept: the next start will register again");
            }
        }
        self.certificate = Some(certificate);
        Ok(())
    }

    async fn save(&self, values: Values) -> Result<(), SaveError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.save(&values)).await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    async fn tell(&self, event: Event) {
        // Nobody has to listen.
        self.events.send(event).await.ok();
    }
}

/// The certificate in the configuration, unless it is good for nothing; then the key is registered again.
fn usable_certificate(config: &Config, key: &Key) -> Option<Certificate> {
    if config.certificate.is_empty() {
        return None;
    }
    match Certificate::from_pem(&config.certificate, key) {
        Ok(certificate) => Some(certificate),
        Err(reason) => {
            warn!(%reason, "the certificate in the configuration cannot be used: registering the same key again");
            None
        }
    }
}

/// Tells this client from others with the same key, and is the same again after a restart: the node then replaces the
/// link of the run that died at once, instead of sending visitors to it until it notices. Two runs on one file would
/// replace each other; whoever is replaced draws another number, so that ends at the first time.
fn instance(store: &Store, key: &Key) -> u64 {
    let Store::File(path) = store else {
        return random_u64();
    };
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    // Copies of one file on several machines often lie at the same place. Where there is no such file, they meet once.
    let machine = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut context = Context::new(&SHA256);
    for part in [key.public_key().as_slice(), path.as_os_str().as_encoded_bytes(), &machine] {
        context.update(&part.len().to_le_bytes());
        context.update(part);
    }
    context.finish().as_ref().first_chunk().map_or_else(random_u64, |bytes| u64::from_le_bytes(*bytes))
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

/// Close code of a connection that a newer link of the same run replaced.
const REPLACED: u64 = 1;

/// Longest pause of a machine without a clock before another try: the node's certificate may be another by then.
const CLOCK: Duration = Duration::from_secs(60);

/// Longest that streams may go on at a node that goes away.
const DRAIN: Duration = Duration::from_secs(60);
