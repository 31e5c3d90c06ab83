//! Tells other nodes which hostnames the links of this node serve: one task keeps this node's child of `/route/<hostname>`
//! as it should be, for every name that is noted as changed, and goes through all of them now and then.

use super::{
    key::{self, Route},
    table::ROUTES,
};
use crate::{
    link::registry::Registry,
    node::{self, Handle},
    shutdown::Shutdown,
    transport::relay::Relays,
};
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use specter_wire::name::Hostname;
use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

/// Names that are worked on at a time.
const AT_ONCE: usize = 64;

/// Names that wait. Further ones are found on the next round.
const WAITING: usize = 65_536;

/// A link that went away may be replaced in a moment, most often by one of the same client: other nodes are told that a
/// name is gone after this time. Who asks meanwhile is told at once that there is no link.
const LINGER: Duration = Duration::from_secs(1);

/// A client waits at most this long for its names to be known to other nodes.
const ANNOUNCE: Duration = Duration::from_secs(2);

/// How often it is seen whether another node serves a name.
const ANOTHER: Duration = Duration::from_millis(50);

/// One call to the store, one that is of little use later, and the longest and shortest wait until one is tried again.
const PATIENCE: Duration = Duration::from_secs(3);
const HINT: Duration = Duration::from_millis(300);
const RETRY_SHORTEST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// All names are looked at this often, and each no sooner than this after the one before it: a node with many needs longer.
const ROUND: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(5);

/// Routes of a node that is out of reach for so long are removed; when it is back, it adds them again.
const UNREACHABLE: Duration = Duration::from_secs(300);

/// Keeps the store's routes to this node as they should be. Clones share one.
#[derive(Clone)]
pub(super) struct Announcer(Arc<Inner>);

struct Inner {
    store: Handle,
    registry: Arc<Registry>,
    relays: Arc<Relays>,
    /// This node, as others dial it.
    node: SocketAddr,
    state: Mutex<State>,
    /// A name was told or withdrawn.
    settled: Notify,
}

#[derive(Default)]
struct State {
    /// What the store has of this node, as far as known.
    told: HashMap<Hostname, Vec<u8>>,
    /// Who waits until a name is told.
    waiting: HashMap<Hostname, Vec<oneshot::Sender<()>>>,
    /// The node goes away: it serves nothing in the eyes of others.
    leaving: bool,
}

impl Announcer {
    pub(super) fn start(
        store: &Handle,
        registry: Arc<Registry>,
        relays: Arc<Relays>,
        node: SocketAddr,
        shutdown: &Shutdown,
    ) -> Self {
        let inner = Inner {
            store: store.within(PATIENCE),
            registry,
            relays,
            node,
            state: Mutex::default(),
            settled: Notify::new(),
        };
        let announcer = Self(Arc::new(inner));
        for task in [Task::Changes, Task::Rounds] {
            let (inner, stopping) = (announcer.0.clone(), shutdown.clone());
            shutdown.spawn(async move {
                tokio::select! {
                    () = stopping.stopping() => {}
                    () = inner.run(task) => {}
                }
            });
        }
        announcer
    }

    /// Waits until other nodes can know that this one serves `hostnames`, but not for long.
    pub(super) async fn announce(&self, hostnames: Vec<Hostname>) {
        let told: Vec<oneshot::Receiver<()>> =
            hostnames.iter().filter_map(|hostname| self.0.wait_for(hostname)).collect();
        let all = async {
            for told in told {
                // An error means that nobody will say so: the node stops.
                let _ = told.await;
            }
        };
        if timeout(ANNOUNCE, all).await.is_err() {
            tracing::warn!("the store does not take routes now: visitors reach some tunnels by this node only");
        }
    }

    /// Waits until each hostname that is served here is served by another node, too, that can be reached from here.
    pub(super) async fn served_elsewhere(&self) {
        let waits = self.0.registry.hostnames().into_iter().map(|hostname| self.0.wait_for_another(hostname));
        stream::iter(waits).buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// Removes all routes to this node, for at most `patience`.
    pub(super) async fn withdraw(&self, patience: Duration) {
        let names: Vec<Hostname> = {
            let mut state = self.0.lock();
            state.leaving = true;
            state.told.keys().cloned().collect()
        };
        names.iter().for_each(|hostname| self.0.registry.changes().note(hostname));
        let gone = async {
            loop {
                let settled = self.0.settled.notified();
                if self.0.lock().told.is_empty() {
                    return;
                }
                settled.await;
            }
        };
        if timeout(patience, gone).await.is_err() {
            tracing::warn!("some routes to this node are left; other nodes will find that it is gone");
        }
    }
}

/// What the two tasks do.
#[derive(Clone, Copy)]
enum Task {
    Changes,
    Rounds,
}

/// A name that waits for its turn, or is worked on.
struct Job {
    due: Option<Instant>,
    failures: u32,
    /// It changed while it was worked on.
    again: bool,
}

impl Inner {
    async fn run(self: Arc<Self>, task: Task) {
        match task {
            Task::Changes => self.follow_changes().await,
            Task::Rounds => self.go_round().await,
        }
    }

    async fn follow_changes(self: Arc<Self>) {
        let mut jobs: HashMap<Hostname, Job> = HashMap::new();
        let mut turns: BTreeSet<(Instant, Hostname)> = BTreeSet::new();
        let mut working: FuturesUnordered<BoxFuture<'static, (Hostname, Result<(), node::Error>)>> =
            FuturesUnordered::new();
        loop {
            let next = turns.first().map(|(due, _)| *due).filter(|_| working.len() < AT_ONCE);
            tokio::select! {
                names = self.registry.changes().take() => for hostname in names {
                    let due = self.due(&hostname);
                    let is_full = jobs.len() >= WAITING;
                    let job = match jobs.entry(hostname.clone()) {
                        Entry::Vacant(_) if is_full => continue,
                        Entry::Vacant(vacant) => vacant.insert(Job { due: Some(due), failures: 0, again: false }),
                        Entry::Occupied(job) => job.into_mut(),
                    };
                    match &mut job.due {
                        // Never later than it was: visitors who are led astray note a name again and again.
                        Some(waits) => {
                            turns.remove(&(*waits, hostname.clone()));
                            *waits = due.min(*waits);
                            turns.insert((*waits, hostname));
                        }
                        None => job.again = true,
                    }
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let Some((_, hostname)) = turns.pop_first() else { continue };
                    if let Some(job) = jobs.get_mut(&hostname) {
                        job.due = None;
                    }
                    let inner = self.clone();
                    working.push(Box::pin(async move {
                        let outcome = inner.settle(&hostname).await;
                        (hostname, outcome)
                    }));
                }
                Some((hostname, outcome)) = working.next() => {
                    let Some(job) = jobs.get_mut(&hostname) else { continue };
                    let due = match outcome {
                        Ok(()) if !job.again => {
                            jobs.remove(&hostname);
                            continue;
                        }
                        Ok(()) => self.due(&hostname),
                        Err(error) => {
                            tracing::debug!(%error, %hostname, "a route could not be told");
                            let wait = RETRY_SHORTEST * (1 << job.failures.min(8));
                            job.failures += 1;
                            Instant::now() + wait.min(RETRY_LONGEST)
                        }
                    };
                    (job.due, job.again) = (Some(due), false);
                    turns.insert((due, hostname));
                }
            }
        }
    }

    /// When a name is to be looked at that has just changed.
    fn due(&self, hostname: &Hostname) -> Instant {
        let now = Instant::now();
        if self.wanted(hostname).is_some() || self.lock().leaving { now } else { now + LINGER }
    }

    /// What the store should have of this node.
    fn wanted(&self, hostname: &Hostname) -> Option<Vec<u8>> {
        if self.lock().leaving {
            return None;
        }
        let tunnel = self.registry.tunnel(hostname)?;
        Some(Route { node: self.node, tunnel }.to_bytes())
    }

    /// A name of which something is to be told; none if it is told already.
    fn wait_for(&self, hostname: &Hostname) -> Option<oneshot::Receiver<()>> {
        let wanted = self.wanted(hostname)?;
        let mut state = self.lock();
        if state.told.get(hostname) == Some(&wanted) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        let waiting = state.waiting.entry(hostname.clone()).or_default();
        // Those who gave up leave no trace, so each link's task is here once at most.
        waiting.retain(|tell| !tell.is_closed());
        waiting.push(tell);
        drop(state);
        self.registry.changes().note(hostname);
        Some(told)
    }

    /// Makes the store's routes of `hostname` to this node what they should be.
    async fn settle(&self, hostname: &Hostname) -> Result<(), node::Error> {
        let key = key::routes_of(hostname);
        let wanted = self.wanted(hostname);
        let told = self.lock().told.get(hostname).cloned();
        if wanted == told && wanted.is_some() {
            self.tell(hostname, wanted);
            return Ok(());
        }
        let mut stale: Vec<Vec<u8>> = told.into_iter().collect();
        if stale.is_empty() {
            // An earlier life of this node may have left something. Whether this read is up to date matters little: whoever
            // finds such a route and uses it brings us here again.
            let children = self.store.within(HINT).hint_list(&key).await.unwrap_or_default();
            if wanted.is_some() && children.len() >= ROUTES && !self.make_room(hostname, &children).await {
                tracing::warn!(%hostname, "as many nodes as are listed serve a hostname already; this one is not told of");
                self.tell(hostname, None);
                return Ok(());
            }
            stale = children.into_iter().filter(|child| self.is_ours(child)).collect();
        }
        if let Some(wanted) = &wanted {
            self.store.set_append(&key, wanted.clone()).await?;
            stale.retain(|child| child != wanted);
        }
        for child in stale {
            self.store.set_remove(&key, child).await?;
        }
        self.tell(hostname, wanted);
        Ok(())
    }

    async fn wait_for_another(&self, hostname: Hostname) {
        let key = key::routes_of(&hostname);
        // Until its client has gone, too.
        while self.registry.tunnel(&hostname).is_some() {
            let children = self.store.within(HINT).hint_list(&key).await.unwrap_or_default();
            let nodes = children.iter().filter_map(|child| Route::from_bytes(child)).map(|route| route.node);
            // Asking for a node has it dialed, and measured when it answers.
            let answers = |node: SocketAddr| {
                let sight = self.relays.node(node).map(|_| self.relays.sight(node));
                sight.is_some_and(|sight| sight.rtt.is_some() && !sight.is_suspect)
            };
            if nodes.filter(|node| *node != self.node).any(answers) {
                return;
            }
            sleep(ANOTHER).await;
        }
    }

    fn tell(&self, hostname: &Hostname, child: Option<Vec<u8>>) {
        let waiting = {
            let mut state = self.lock();
            match child {
                Some(child) => state.told.insert(hostname.clone(), child),
                None => state.told.remove(hostname),
            };
            state.waiting.remove(hostname)
        };
        for told in waiting.into_iter().flatten() {
            // Whoever is gone need not know.
            let _ = told.send(());
        }
        self.settled.notify_waiters();
    }

    fn is_ours(&self, child: &[u8]) -> bool {
        Route::from_bytes(child).is_some_and(|route| route.node == self.node)
    }

    /// Looks at all names now and then: a route of ours may have been lost, and routes of nodes that are gone for long
    /// are in the way.
    async fn go_round(self: Arc<Self>) {
        loop {
            // Nodes that were started together must not ask together.
            sleep(ROUND.mul_f64(0.75 + 0.5 * chance())).await;
            for hostname in self.registry.hostnames() {
                sleep(PACE).await;
                let Ok(children) = self.store.hint_list(&key::routes_of(&hostname)).await else { continue };
                let missing = self.wanted(&hostname).is_some_and(|wanted| !children.contains(&wanted));
                if missing {
                    self.lock().told.remove(&hostname);
                    self.registry.changes().note(&hostname);
                }
                self.make_room(&hostname, &children).await;
            }
        }
    }

    /// Removes routes of nodes that have been out of reach for long; whether it found some.
    async fn make_room(&self, hostname: &Hostname, children: &[Vec<u8>]) -> bool {
        let mut found = false;
        for child in children {
            let Some(route) = Route::from_bytes(child).filter(|route| route.node != self.node) else { continue };
            // Asking for a node keeps it being dialed.
            let unreachable = self.relays.node(route.node).and_then(|_| self.relays.sight(route.node).unreachable);
            if unreachable.is_some_and(|span| span >= UNREACHABLE) {
                let removed = self.store.set_remove(&key::routes_of(hostname), child.clone()).await;
                found |= removed.is_ok();
            }
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    use ring::rand::{SecureRandom as _, SystemRandom};
    let mut byte = [0];
    // Without chance, nodes may ask together.
    let _ = SystemRandom::new().fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
