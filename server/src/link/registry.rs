//! Which links live, and which tunnels each of them serves.

use specter_wire::{
    id::{ClientId, LinkId},
    link::{Carries, HostHeader},
    name::Hostname,
};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// Links of one identity on this node. More than any client needs, few enough that one key cannot fill the node.
pub const LINKS_PER_CLIENT: usize = 8;

/// Links on this node.
pub const LINKS: usize = 32_768;

/// Tunnels that one link may serve.
pub const TUNNELS_PER_LINK: usize = 1_024;

/// What the gateway has to know of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Protocols that the target takes.
    pub carries: Carries,
    /// `Host` that the target is shown; none for the tunnel's own name.
    pub host: Option<Arc<str>>,
    /// Longest wait for the head of an answer.
    pub header_timeout: Duration,
}

impl Tunnel {
    /// A tunnel whose fields keep their bounds, or none.
    pub fn checked(tunnel: &specter_wire::link::Tunnel<'_>) -> Option<Self> {
        tunnel.is_within_bounds().then(|| Self {
            carries: tunnel.carries,
            host: match tunnel.host {
                HostHeader::Hostname => None,
                HostHeader::Fixed(text) => Some(text.into()),
            },
            header_timeout: Duration::from_millis(tunnel.header_timeout_ms.into()),
        })
    }
}

/// A live link of a registered client.
pub struct Link {
    id: LinkId,
    client: ClientId,
    instance: u64,
    connection: quinn::Connection,
    probes: mpsc::Sender<()>,
    suspect: AtomicBool,
}

impl Link {
    /// Its number on this node; newer links have greater ones.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Whose it is.
    pub fn client(&self) -> ClientId {
        self.client
    }

    /// Its QUIC connection.
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Whether a newer link of the same identity came and this one has not shown life since.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// The link showed life.
    pub(crate) fn trust(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("id", &self.id).field("client", &self.client).finish_non_exhaustive()
    }
}

/// All links of the node. Cheap to share.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    links: HashMap<LinkId, Entry>,
    clients: HashMap<ClientId, Vec<LinkId>>,
    tunnels: HashMap<Hostname, Vec<(LinkId, Tunnel)>>,
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    hostnames: HashSet<Hostname>,
}

/// Why a link or a tunnel was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit on links or tunnels is reached")]
pub struct Full;

/// QUIC close code for a link whose client opened a newer one.
pub const CLOSE_REPLACED: u32 = 1;

impl Registry {
    /// Enters a link. Older links of the same client and instance are closed; others are probed, and suspect until
    /// they answer, because a client that was killed and started again leaves a dead link behind.
    ///
    /// `probes` wakes the link's own task to send a probe.
    ///
    /// # Errors
    /// [`Full`] at [`LINKS`] or [`LINKS_PER_CLIENT`].
    pub fn enter(
        &self,
        client: ClientId,
        instance: u64,
        connection: quinn::Connection,
        probes: mpsc::Sender<()>,
    ) -> Result<Arc<Link>, Full> {
        let id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let link = Arc::new(Link { id, client, instance, connection, probes, suspect: AtomicBool::new(false) });
        let mut state = self.lock();
        let siblings: Vec<Arc<Link>> = state
            .clients
            .get(&client)
            .map(|ids| ids.iter().filter_map(|id| state.links.get(id)).map(|entry| entry.link.clone()).collect())
            .unwrap_or_default();
        let (replaced, others): (Vec<_>, Vec<_>) = siblings.into_iter().partition(|old| old.instance == instance);
        if others.len() >= LINKS_PER_CLIENT || state.links.len() - replaced.len() >= LINKS {
            return Err(Full);
        }
        for old in &replaced {
            state.remove(old.id);
        }
        state.links.insert(id, Entry { link: link.clone(), hostnames: HashSet::new() });
        state.clients.entry(client).or_default().push(id);
        drop(state);

        for old in replaced {
            old.connection.close(CLOSE_REPLACED.into(), b"replaced by a newer link");
        }
        for other in others {
            other.suspect.store(true, Ordering::Relaxed);
            // A full queue means that a probe is under way.
            let _ = other.probes.try_send(());
        }
        Ok(link)
    }

    /// Forgets a link and what it serves.
    pub fn leave(&self, id: LinkId) {
        self.lock().remove(id);
    }

    /// The link serves `hostname` from now on. False if the link is gone.
    ///
    /// # Errors
    /// [`Full`] at [`TUNNELS_PER_LINK`].
    pub fn publish(&self, id: LinkId, hostname: &Hostname, tunnel: Tunnel) -> Result<bool, Full> {
        let state = &mut *self.lock();
        let Some(entry) = state.links.get_mut(&id) else { return Ok(false) };
        if entry.hostnames.len() >= TUNNELS_PER_LINK && !entry.hostnames.contains(hostname) {
            return Err(Full);
        }
        entry.hostnames.insert(hostname.clone());
        let serving = state.tunnels.entry(hostname.clone()).or_default();
        match serving.iter_mut().find(|(serving, _)| *serving == id) {
            Some((_, known)) => *known = tunnel,
            None => serving.push((id, tunnel)),
        }
        Ok(true)
    }

    /// The link no longer serves `hostname`.
    pub fn unpublish(&self, id: LinkId, hostname: &Hostname) {
        let mut state = self.lock();
        if let Some(entry) = state.links.get_mut(&id) {
            entry.hostnames.remove(hostname);
        }
        state.unserve(id, hostname);
    }

    /// No link serves `hostname` from now on.
    pub fn withdraw(&self, hostname: &Hostname) {
        let state = &mut *self.lock();
        for (id, _) in state.tunnels.remove(hostname).unwrap_or_default() {
            if let Some(entry) = state.links.get_mut(&id) {
                entry.hostnames.remove(hostname);
            }
        }
    }

    /// The links that serve `hostname`, oldest first, and the newest one's idea of the tunnel.
    pub fn serving(&self, hostname: &Hostname) -> Option<(Tunnel, Vec<Arc<Link>>)> {
        let state = self.lock();
        let serving = state.tunnels.get(hostname)?;
        let (_, tunnel) = serving.last()?;
        let links = serving.iter().filter_map(|(id, _)| state.links.get(id)).map(|entry| entry.link.clone()).collect();
        Some((tunnel.clone(), links))
    }

    /// Every live link.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.lock().links.values().map(|entry| entry.link.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code below can panic half-way through a change, so a poisoned lock still guards a whole state.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, id: LinkId) {
        let Some(entry) = self.links.remove(&id) else { return };
        for hostname in &entry.hostnames {
            self.unserve(id, hostname);
        }
        let client = entry.link.client;
        if let Some(ids) = self.clients.get_mut(&client) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.clients.remove(&client);
            }
        }
    }

    fn unserve(&mut self, id: LinkId, hostname: &Hostname) {
        if let Some(serving) = self.tunnels.get_mut(hostname) {
            serving.retain(|(known, _)| *known != id);
            if serving.is_empty() {
                self.tunnels.remove(hostname);
            }
        }
    }
}
