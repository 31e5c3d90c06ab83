//! What all links of a client have in common: one identity, one set of tunnels, one table of targets.

use super::{End, LinkLost, TunnelError, random_u64, sentence, unix_now_s};
use crate::{
    config::{Config, Tunnel, raw::Secret},
    identity::{Certificate, Key},
    link::{Dialer, Settings, SettingsError},
    rewrite::{NewName, Values},
    serve::{Routes, Service},
    session::wire_name,
    store::{SaveError, Store},
    target::Authority,
    tls::Trust,
};
use ring::digest::{Context, SHA256};
use specter_wire::name::Hostname;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tracing::warn;

/// Shared by the tasks of all links.
pub(super) struct State {
    pub(super) apex: Authority,
    pub(super) store: Store,
    pub(super) key: Key,
    pub(super) service: Service,
    trust: Trust,
    routes: watch::Sender<Arc<Routes>>,
    tunnels: watch::Sender<Arc<Vec<Tunnel>>>,
    identity: Mutex<Identity>,
}

struct Identity {
    certificate: Option<Certificate>,
    /// Whether the key is in the store.
    key_saved: bool,
    instance: u64,
    /// What is dialled with, made of the certificate.
    dialling: Option<Settings>,
    /// Counts certificates, so that one that is refused is dropped once.
    generation: u32,
    /// What the routes were made of.
    routed: Option<(Arc<Vec<Tunnel>>, Hostname)>,
}

/// What a link is dialled with.
pub(super) struct Credentials {
    pub(super) settings: Settings,
    pub(super) generation: u32,
}

impl State {
    /// Checks all that can be checked without a node.
    pub(super) fn new(config: Config, store: Store) -> Result<Self, TunnelError> {
        if config.is_incomplete() {
            store.check()?;
        }
        let key_saved = !config.private_key.0.is_empty();
        if !key_saved && !config.certificate.is_empty() {
            return Err(TunnelError::KeyMissing);
        }
        let key = if key_saved { Key::from_pem(&config.private_key.0)? } else { Key::generate()? };
        let identity = Identity {
            certificate: usable_certificate(&config, &key),
            key_saved,
            instance: instance(&store, &key),
            dialling: None,
            generation: 0,
            routed: None,
        };
        let (routes, receiver) = watch::channel(Arc::default());
        Ok(Self {
            apex: config.apex,
            store,
            key,
            service: Service::new(receiver, config.memory),
            trust: config.trust,
            routes,
            tunnels: watch::Sender::new(Arc::new(config.tunnels)),
            identity: Mutex::new(identity),
        })
    }

    /// Whether every link could publish everything at once.
    pub(super) fn is_complete(&self) -> bool {
        self.lock().certificate.is_some() && self.tunnels.borrow().iter().all(|tunnel| tunnel.hostname.is_some())
    }

    /// The tunnels, and word of new names.
    pub(super) fn tunnels(&self) -> watch::Receiver<Arc<Vec<Tunnel>>> {
        self.tunnels.subscribe()
    }

    pub(super) fn instance(&self) -> u64 {
        self.lock().instance
    }

    /// Whoever else has this number, a copy of this machine's memory perhaps, is let alone from here on.
    pub(super) fn change_instance(&self) {
        self.lock().instance = random_u64();
    }

    /// What the next link is dialled with.
    pub(super) fn credentials(&self, dialer: &Dialer) -> Result<Credentials, TunnelError> {
        let mut identity = self.lock();
        if identity.certificate.as_ref().is_some_and(|certificate| certificate.is_expired(unix_now_s())) {
            warn!("the certificate in the configuration has expired: registering the same key again");
            identity.set(None);
        }
        let settings = match &identity.dialling {
            Some(settings) => settings.clone(),
            None => {
                let shown = identity.certificate.as_ref().map(|certificate| (certificate, &self.key));
                let settings = dialer.settings(&self.trust, shown).map_err(|error| match error {
                    SettingsError::Tls(error) => TunnelError::Tls(error),
                    SettingsError::Cipher => TunnelError::Cipher,
                })?;
                identity.dialling.insert(settings).clone()
            }
        };
        Ok(Credentials { settings, generation: identity.generation })
    }

    /// Gives up a certificate that a node refuses. False if it was given up before, or is no longer the one.
    pub(super) fn drop_certificate(&self, generation: u32) -> bool {
        let mut identity = self.lock();
        let current = identity.generation == generation && identity.certificate.is_some();
        if current {
            identity.set(None);
        }
        current
    }

    /// Whether the certificate should be renewed.
    pub(super) fn is_renewal_due(&self) -> bool {
        self.lock().certificate.as_ref().is_some_and(|certificate| certificate.is_due(unix_now_s()))
    }

    /// Keeps a certificate, and with the first one the key.
    pub(super) async fn save_certificate(&self, pem: String) -> Result<(), End> {
        let certificate = Certificate::from_pem(&pem, &self.key).map_err(|_| LinkLost::Certificate)?;
        let private_key = (!self.lock().key_saved).then(|| Secret(self.key.to_pem()));
        let first = private_key.is_some();
        let values = Values { certificate: Some(pem), private_key, hostnames: Vec::new() };
        match self.save(values).await {
            Ok(()) => self.lock().key_saved = true,
            Err(error) if first => return Err(End::Fatal(error.into())),
            Err(error) => {
                warn!(reason = sentence(&error), "the new certificate is not kept: the next start will register again");
            }
        }
        self.lock().set(Some(certificate));
        Ok(())
    }

    /// Keeps names for tunnels that have none. Every link learns of them.
    pub(super) async fn save_hostnames(&self, names: Vec<(usize, Hostname)>) -> Result<(), SaveError> {
        let known = self.tunnels.borrow().clone();
        let new_name = |(index, name): &(usize, Hostname)| {
            let tunnel = known.get(*index).filter(|tunnel| tunnel.hostname.is_none())?;
            Some(NewName { tunnel: *index, target: tunnel.target.to_string(), hostname: name.to_string() })
        };
        let hostnames = names.iter().filter_map(new_name).collect();
        drop(known);
        self.save(Values { hostnames, ..Values::default() }).await?;
        self.tunnels.send_modify(|tunnels| {
            let tunnels = Arc::make_mut(tunnels);
            for (index, name) in names {
                if let Some(tunnel) = tunnels.get_mut(index) {
                    tunnel.hostname.get_or_insert(name);
                }
            }
        });
        Ok(())
    }

    /// Makes the tunnels reachable: streams may come as soon as a node has read what is published.
    pub(super) fn set_routes(&self, apex: &Hostname) {
        let tunnels = self.tunnels.borrow().clone();
        let mut identity = self.lock();
        let same = |(routed, under): &(Arc<Vec<Tunnel>>, Hostname)| Arc::ptr_eq(routed, &tunnels) && under == apex;
        if identity.routed.as_ref().is_some_and(same) {
            return;
        }
        let route =
            |tunnel: &Tunnel| Some((wire_name(tunnel.hostname.as_ref()?, apex), Arc::new(tunnel.target.clone())));
        self.routes.send_replace(Arc::new(tunnels.iter().filter_map(route).collect()));
        identity.routed = Some((tunnels, apex.clone()));
    }

    async fn save(&self, values: Values) -> Result<(), SaveError> {
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.save(&values)).await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Identity {
    fn set(&mut self, certificate: Option<Certificate>) {
        self.certificate = certificate;
        self.dialling = None;
        self.generation = self.generation.wrapping_add(1);
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
