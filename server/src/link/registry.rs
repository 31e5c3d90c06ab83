//! Which links live, and which tunnels each of them serves.

use super::{budget::Budget, changes::Changes};
use crate::transport::pulse::Pulse;
use specter_wire::{
    id::{ClientId, LinkId},
    link::{Carries, HostHeader},
    name::Hostname,
};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};

/// Links of one identity on this node. More than any client needs, few enough that one key cannot fill the node.
pub const LINKS_PER_CLIENT: usize = 8;

/// Links on this node.
pub const LINKS: usize = 32_768;

/// Clients without a link whose asking is remembered until it is earned, so that connecting anew brings nothing.
const DEBTORS: usize = 4_096;

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
    trusted: Notify,
    /// Shared with the other links of the client.
    budget: Arc<Mutex<Budget>>,
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

    /// Whether there is reason to think that the link is dead, and it has not shown life since.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Lets visitors go elsewhere until the link has answered a probe; one that does not answer is closed.
    pub fn doubt(&self) {
        self.suspect.store(true, Ordering::Relaxed);
        self.ask();
    }

    /// If nothing came since `pulse`, doubts the link; tells whether it was so.
    pub(super) fn doubt_since(&self, pulse: Pulse) -> bool {
        let is_silent = pulse == self.pulse();
        if is_silent {
            self.doubt();
        }
        is_silent
    }

    /// Asks the client for a sign of life. Without one the link is doubted, and closed at last.
    pub(super) fn ask(&self) {
        // A full queue means that a probe is under way.
        let _ = self.probes.try_send(());
    }

    /// What came from the client so far.
    pub(super) fn pulse(&self) -> Pulse {
        Pulse::of(&self.connection)
    }

    /// A probe was not answered: see [`Link::is_suspect`].
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// Waits until there is no reason to think that the link is dead; false if it is.
    pub(super) async fn is_trusted(&self) -> bool {
        loop {
            let trusted = self.trusted.notified();
            if self.connection.close_reason().is_some() {
                return false;
            }
            if !self.is_suspect() {
                return true;
            }
            tokio::select! {
                () = trusted => {}
                _ = self.connection.closed() => {}
            }
        }
    }

    /// Its client asks for something that costs so much. Tells how long to wait before that is done.
    pub(super) fn spend(&self, cost: u32) -> Duration {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(Instant::now(), cost)
    }

    /// The link showed life.
    pub(crate) fn trust(&self) {
        self.suspect.store(false, Ordering::Relaxed);
        self.trusted.notify_waiters();
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
    turn: AtomicUsize,
    changes: Arc<Changes>,
}

/// Who serves a hostname, in the order to try them.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The newest link's idea of the tunnel.
    pub tunnel: Tunnel,
    /// Links without a doubt, beginning with another one each time.
    pub trusted: Vec<Arc<Link>>,
    /// The others, newest first.
    pub suspect: Vec<Arc<Link>>,
}

#[derive(Debug, Default)]
struct State {
    links: HashMap<LinkId, Entry>,
    clients: HashMap<ClientId, Vec<LinkId>>,
    tunnels: HashMap<Hostname, Vec<(LinkId, Tunnel)>>,
    debtors: HashMap<ClientId, Arc<Mutex<Budget>>>,
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

/// Application close code for a link whose client opened a newer one.
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
        let mut state = self.lock();
        let siblings: Vec<Arc<Link>> = state
            .clients
            .get(&client)
            .map(|ids| ids.iter().filter_map(|id| state.links.get(id)).map(|entry| entry.link.clone()).collect())
            .unwrap_or_default();
        let budget = siblings.first().map(|sibling| sibling.budget.clone());
        let budget = budget.or_else(|| state.debtors.get(&client).cloned()).unwrap_or_else(|| {
            let unspent = Budget::new(Instant::now());
            Arc::new(Mutex::new(unspent))
        });
        let (suspect, trusted) = (AtomicBool::new(false), Notify::new());
        let link = Arc::new(Link { id, client, instance, connection, probes, suspect, trusted, budget });
        let (replaced, others): (Vec<_>, Vec<_>) = siblings.into_iter().partition(|old| old.instance == instance);
        if others.len() >= LINKS_PER_CLIENT || state.links.len() - replaced.len() >= LINKS {
            return Err(Full);
        }
        let unserved: Vec<Hostname> = replaced.iter().flat_map(|old| state.remove(old.id)).collect();
        state.debtors.remove(&client);
        state.links.insert(id, Entry { link: link.clone(), hostnames: HashSet::new() });
        state.clients.entry(client).or_default().push(id);
        drop(state);

        unserved.iter().for_each(|hostname| self.changes.note(hostname));
        for old in replaced {
            old.connection.close(CLOSE_REPLACED.into(), b"replaced by a newer link");
        }
        others.iter().for_each(|other| other.doubt());
        Ok(link)
    }

    /// Forgets a link and what it serves.
    pub fn leave(&self, id: LinkId) {
        let unserved = self.lock().remove(id);
        unserved.iter().for_each(|hostname| self.changes.note(hostname));
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
        if serving.last().is_none_or(|(_, known)| *known != tunnel) {
            self.changes.note(hostname);
        }
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
        if state.unserve(id, hostname) {
            self.changes.note(hostname);
        }
    }

    /// No link serves `hostname` from now on.
    pub fn withdraw(&self, hostname: &Hostname) {
        let state = &mut *self.lock();
        for (id, _) in state.tunnels.remove(hostname).unwrap_or_default() {
            if let Some(entry) = state.links.get_mut(&id) {
                entry.hostnames.remove(hostname);
            }
        }
        self.changes.note(hostname);
    }

    /// Who serves `hostname`.
    pub fn serving(&self, hostname: &Hostname) -> Option<Serving> {
        let state = self.lock();
        let serving = state.tunnels.get(hostname)?;
        let (_, tunnel) = serving.last()?;
        let links = serving.iter().filter_map(|(id, _)| state.links.get(id)).map(|entry| &entry.link);
        let (suspect, mut trusted): (Vec<_>, Vec<_>) = links.cloned().partition(|link| link.is_suspect());
        // Most tunnels are served by one link.
        if trusted.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % trusted.len();
            trusted.rotate_left(turn);
        }
        Some(Serving { tunnel: tunnel.clone(), trusted, suspect: suspect.into_iter().rev().collect() })
    }

    /// What other nodes are to be told of `hostname`, if a link serves it.
    pub fn tunnel(&self, hostname: &Hostname) -> Option<Tunnel> {
        self.lock().tunnels.get(hostname)?.last().map(|(_, tunnel)| tunnel.clone())
    }

    /// All hostnames that some link serves.
    pub fn hostnames(&self) -> Vec<Hostname> {
        self.lock().tunnels.keys().cloned().collect()
    }

    /// Hostnames that are served in another way than before.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Whether there is no link.
    pub fn is_empty(&self) -> bool {
        self.lock().links.is_empty()
    }

    /// How many links there are, and the oldest of them, at most so many, each with how many tunnels it serves.
    pub fn overview(&self, most: usize) -> (usize, Vec<(Arc<Link>, usize)>) {
        let state = self.lock();
        let mut links: Vec<_> = state.links.values().map(|entry| (entry.link.clone(), entry.hostnames.len())).collect();
        drop(state);
        links.sort_unstable_by_key(|(link, _)| link.id);
        let count = links.len();
        links.truncate(most);
        (count, links)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code below can panic half-way through a change, so a poisoned lock still guards a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Returns what nobody serves any more, or whose tunnel is another link's idea now.
    fn remove(&mut self, id: LinkId) -> Vec<Hostname> {
        let Some(entry) = self.links.remove(&id) else { return Vec::new() };
        let changed = entry.hostnames.into_iter().filter(|hostname| self.unserve(id, hostname)).collect();
        let client = entry.link.client;
        if let Some(ids) = self.clients.get_mut(&client) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.clients.remove(&client);
                self.remember(client, entry.link.budget.clone());
            }
        }
        changed
    }

    /// Remembers what a client without a link has asked.
    fn remember(&mut self, client: ClientId, budget: Arc<Mutex<Budget>>) {
        let now = Instant::now();
        let owes = |budget: &Arc<Mutex<Budget>>| !budget.lock().unwrap_or_else(PoisonError::into_inner).is_settled(now);
        if !owes(&budget) {
            return;
        }
        if self.debtors.len() >= DEBTORS {
            self.debtors.retain(|_, budget| owes(budget));
        }
        // So many cost more connections than the memory of them saves.
        if self.debtors.len() < DEBTORS {
            self.debtors.insert(client, budget);
        }
    }

    /// Whether the name is served in another way now.
    fn unserve(&mut self, id: LinkId, hostname: &Hostname) -> bool {
        let Some(serving) = self.tunnels.get_mut(hostname) else { return false };
        let before = serving.last().map(|(_, tunnel)| tunnel.clone());
        serving.retain(|(known, _)| *known != id);
        let changed = before.as_ref() != serving.last().map(|(_, tunnel)| tunnel);
        if serving.is_empty() {
            self.tunnels.remove(hostname);
        }
        changed
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{identity, transport::endpoint};
    use futures_util::FutureExt as _;
    use quinn::crypto::rustls::QuicClientConfig;
    use rustls_pki_types::PrivateKeyDer;
    use std::net::SocketAddr;

    const ANN: ClientId = ClientId([1; 32]);
    const BOB: ClientId = ClientId([2; 32]);

    /// Two endpoints on loopback that make as many connections as a test needs.
    pub(crate) struct Loopback {
        node: quinn::Endpoint,
        client: quinn::Endpoint,
        kept: Vec<quinn::Connection>,
    }

    impl Loopback {
        pub(crate) fn new() -> Self {
            let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
            let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
            let certificate = certified.cert.der().clone();
            let tls = rustls::ServerConfig::builder_with_provider(identity::provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .expect("TLS");
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let node = endpoint::serve(endpoint::bind_udp(any).expect("bound"), Arc::new(tls), b"").expect("endpoint");
            let mut roots = rustls::RootCertStore::empty();
            roots.add(certificate).expect("root");
            let tls = rustls::ClientConfig::builder_with_provider(identity::provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
            let mut client = quinn::Endpoint::client(any).expect("endpoint");
            let crypto = QuicClientConfig::try_from(tls).expect("QUIC");
            client.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
            Self { node, client, kept: Vec::new() }
        }

        async fn connection(&mut self) -> quinn::Connection {
            let address = self.node.local_addr().expect("address");
            let dial = self.client.connect(address, "localhost").expect("dial");
            let accept = async { self.node.accept().await.expect("incoming").await };
            let (near, far) = tokio::try_join!(accept, dial).expect("connected");
            self.kept.push(far);
            near
        }

        pub(crate) async fn enter(
            &mut self,
            registry: &Registry,
            client: ClientId,
            instance: u64,
        ) -> Result<Entered, Full> {
            let (probes, asked) = mpsc::channel(1);
            let link = registry.enter(client, instance, self.connection().await, probes)?;
            Ok(Entered { link, asked })
        }
    }

    #[derive(Debug)]
    pub(crate) struct Entered {
        pub(crate) link: Arc<Link>,
        asked: mpsc::Receiver<()>,
    }

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).expect("name")
    }

    fn tunnel(seconds: u64) -> Tunnel {
        Tunnel { carries: Carries::Http, host: None, header_timeout: Duration::from_secs(seconds) }
    }

    fn serving(registry: &Registry, hostname: &str) -> Vec<LinkId> {
        let Some(Serving { trusted, suspect, .. }) = registry.serving(&name(hostname)) else { return Vec::new() };
        let mut ids: Vec<LinkId> = trusted.iter().chain(&suspect).map(|link| link.id()).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn a_newer_link_of_the_same_instance_replaces_the_older_at_once() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let old = loopback.enter(&registry, ANN, 7).await.expect("entered");
        assert_eq!(registry.publish(old.link.id(), &name("a"), tunnel(1)), Ok(true));
        let new = loopback.enter(&registry, ANN, 7).await.expect("entered");
        assert!(old.link.connection().close_reason().is_some());
        assert!(serving(&registry, "a").is_empty());
        assert_eq!(registry.publish(old.link.id(), &name("a"), tunnel(1)), Ok(false));
        assert!(!new.link.is_suspect());
    }

    #[tokio::test]
    async fn another_instance_is_probed_and_trusted_again_when_it_answers() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let mut old = loopback.enter(&registry, ANN, 7).await.expect("entered");
        let new = loopback.enter(&registry, ANN, 8).await.expect("entered");
        old.asked.try_recv().expect("a probe was asked for");
        assert!(old.link.is_suspect() && !new.link.is_suspect());
        assert!(old.link.connection().close_reason().is_none());
        old.link.trust();
        assert!(!old.link.is_suspect());
    }

    #[tokio::test]
    async fn one_identity_has_so_many_links_and_others_still_have_room() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        for instance in 0..LINKS_PER_CLIENT as u64 {
            loopback.enter(&registry, ANN, instance).await.expect("entered");
        }
        assert_eq!(loopback.enter(&registry, ANN, 99).await.expect_err("refused"), Full);
        loopback.enter(&registry, ANN, 0).await.expect("a replacement needs no room");
        loopback.enter(&registry, BOB, 0).await.expect("entered");
    }

    #[tokio::test]
    async fn a_client_that_connects_anew_has_not_earned_what_it_asked() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let mut waits = Vec::new();
        for instance in 0..3 {
            let link = loopback.enter(&registry, ANN, instance).await.expect("entered").link;
            waits.push(link.spend(3_000));
            registry.leave(link.id());
        }
        assert!(waits[0].is_zero() && waits[1] < waits[2] && !waits[2].is_zero(), "{waits:?}");
        let other = loopback.enter(&registry, BOB, 0).await.expect("entered").link;
        assert!(other.spend(3_000).is_zero(), "others do not pay");
        registry.leave(other.id());
        let idle = loopback.enter(&registry, ClientId([3; 32]), 0).await.expect("entered").link;
        registry.leave(idle.id());
        assert_eq!(registry.lock().debtors.len(), 2, "who asked nothing is forgotten");
    }

    #[tokio::test]
    async fn a_link_that_leaves_takes_only_its_own_tunnels_along() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let one = loopback.enter(&registry, ANN, 1).await.expect("entered").link;
        let two = loopback.enter(&registry, ANN, 2).await.expect("entered").link;
        for link in [&one, &two] {
            assert_eq!(registry.publish(link.id(), &name("shared"), tunnel(link.id().0 + 1)), Ok(true));
        }
        assert_eq!(registry.publish(one.id(), &name("alone"), tunnel(1)), Ok(true));
        // The newer link made the older one suspect.
        one.trust();
        assert_eq!(serving(&registry, "shared"), [one.id(), two.id()]);
        registry.leave(one.id());
        assert_eq!(serving(&registry, "shared"), [two.id()]);
        assert!(serving(&registry, "alone").is_empty());
        registry.withdraw(&name("shared"));
        assert!(serving(&registry, "shared").is_empty());
        assert_eq!(registry.lock().links.len(), 1);
    }

    #[tokio::test]
    async fn visitors_take_turns_over_trusted_links_and_suspect_ones_are_last() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let mut links = Vec::new();
        for instance in 0..4 {
            let Entered { link, .. } = loopback.enter(&registry, ANN, instance).await.expect("entered");
            assert_eq!(registry.publish(link.id(), &name("a"), tunnel(1)), Ok(true));
            links.push(link);
        }
        let [one, two, three, four] = [0, 1, 2, 3].map(|index: usize| links[index].id());
        links[1..].iter().for_each(|link| link.trust());
        let ids = |links: &[Arc<Link>]| links.iter().map(|link| link.id()).collect::<Vec<_>>();
        let orders: Vec<_> =
            (0..3).map(|_| registry.serving(&name("a")).map(|serving| ids(&serving.trusted))).collect();
        assert_eq!(orders, [[two, three, four], [three, four, two], [four, two, three]].map(|ids| Some(ids.to_vec())));
        links[3].doubt();
        assert_eq!(registry.serving(&name("a")).map(|serving| ids(&serving.suspect)), Some(vec![four, one]));
    }

    #[tokio::test]
    async fn what_is_served_in_another_way_is_noted() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let one = loopback.enter(&registry, ANN, 1).await.expect("entered").link;
        let two = loopback.enter(&registry, ANN, 2).await.expect("entered").link;
        let noted = || registry.changes().take().now_or_never().map_or(0, |names| names.len());
        assert_eq!(registry.publish(one.id(), &name("a"), tunnel(1)), Ok(true));
        assert_eq!(noted(), 1);
        assert_eq!(registry.publish(two.id(), &name("a"), tunnel(1)), Ok(true));
        assert_eq!(noted(), 0, "the same again");
        registry.leave(one.id());
        assert_eq!(noted(), 0, "it is served as before");
        assert_eq!(registry.publish(two.id(), &name("a"), tunnel(2)), Ok(true));
        assert_eq!(noted(), 1);
        registry.leave(two.id());
        assert_eq!(noted(), 1);
    }

    #[tokio::test]
    async fn publishing_again_changes_the_tunnel_and_the_bound_holds() {
        let (registry, mut loopback) = (Registry::default(), Loopback::new());
        let link = loopback.enter(&registry, ANN, 1).await.expect("entered").link;
        for index in 0..TUNNELS_PER_LINK {
            assert_eq!(registry.publish(link.id(), &name(&format!("t{index}")), tunnel(1)), Ok(true));
        }
        assert_eq!(registry.publish(link.id(), &name("one-more"), tunnel(1)), Err(Full));
        assert_eq!(registry.publish(link.id(), &name("t0"), tunnel(9)), Ok(true));
        assert_eq!(registry.tunnel(&name("t0")).expect("served"), tunnel(9));
        registry.unpublish(link.id(), &name("t1"));
        assert_eq!(registry.publish(link.id(), &name("one-more"), tunnel(1)), Ok(true));
    }
}
