//! Which nodes have a link for a hostname: a bounded cache over the store.
//!
//! Visitors choose the names, so the cache has a bound, one look-up serves all who wait for the same name, and "there is
//! no such name" is remembered as well as "there is".
//!
//! What is read is what any one replica has: it is to be had without a majority, and a route is checked by using it. An
//! old answer that has routes is used while a newer one is fetched, so that no visitor waits for the store when a name is
//! in use. An answer without routes could be a replica's that lags behind, so it is asked of the majority as often as two
//! budgets allow: one for names that somebody owns, one for those that visitors invent.

use super::{
    budget::Budget,
    key::{self, Route},
};
use crate::{
    node::{self, Handle},
    shutdown::Shutdown,
};
use quick_cache::sync::Cache;
use specter_wire::name::Hostname;
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Names remembered. Each takes about 500 bytes.
pub(super) const NAMES: usize = 8_192;

/// Nodes that are listed for one name.
pub(super) const ROUTES: usize = 16;

/// How long an answer with routes is taken for the truth.
const FRESH: Duration = Duration::from_secs(5);

/// How long it is used while a newer one is fetched.
const USABLE: Duration = Duration::from_secs(300);

/// How long an answer without routes is taken for the truth, if somebody owns the name and if nobody does.
const FRESH_WITHOUT_ROUTE: Duration = Duration::from_millis(300);
const FRESH_UNKNOWN: Duration = Duration::from_millis(1_500);

/// How soon after an answer it is asked again for a visitor who found no way with it.
const AGAIN: Duration = Duration::from_millis(200);

/// How long a node is asked behind all others that said it has no link.
const MISSED: Duration = Duration::from_secs(2);

/// A visitor does not wait longer for the store.
const PATIENCE: Duration = Duration::from_secs(3);

/// Nor, when any replica has answered already, for a majority.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);

/// Names that are looked up at a time, and beside them those that are known already: names that visitors invent must not
/// keep what is in use from being fetched anew, however slow the store is.
const LOOK_UPS: usize = 256;
const REFRESHES: usize = 64;

/// Questions to the majority about names that somebody owns, at once and in each second, and about names that nobody does.
const OWNED: (u32, u32) = (200, 100);
const INVENTED: (u32, u32) = (50, 20);

/// The cache. Clones share it.
#[derive(Clone)]
pub(super) struct Table(Arc<Inner>);

struct Inner {
    store: Handle,
    /// This one.
    node: SocketAddr,
    known: Cache<Hostname, Arc<Known>>,
    look_ups: Semaphore,
    refreshes: Semaphore,
    owned: Mutex<Budget>,
    invented: Mutex<Budget>,
    started: Instant,
    shutdown: Shutdown,
}

/// What is known of a hostname.
#[derive(Debug)]
pub(super) struct Known {
    /// Whether anybody owns it.
    pub(super) is_registered: bool,
    /// Other nodes that have a link for it, at most [`ROUTES`].
    pub(super) routes: Vec<Route>,
    /// This node is listed, too.
    pub(super) is_ours: bool,
    learned: Instant,
    /// Nodes that said since that they have no link.
    missed: Mutex<Vec<(SocketAddr, Instant)>>,
    is_refreshed: AtomicBool,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("names", &self.names()).finish_non_exhaustive()
    }
}

impl Known {
    /// Whether a node said a moment ago that it has no link.
    pub(super) fn is_missed(&self, node: SocketAddr) -> bool {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.iter().any(|(known, at)| *known == node && at.elapsed() < MISSED)
    }

    fn is_fresh(&self) -> bool {
        let span = match (self.is_registered, self.routes.is_empty()) {
            (_, false) => FRESH,
            (true, true) => FRESH_WITHOUT_ROUTE,
            (false, true) => FRESH_UNKNOWN,
        };
        self.learned.elapsed() < span
    }

    fn is_usable(&self) -> bool {
        !self.routes.is_empty() && self.learned.elapsed() < USABLE
    }
}

impl Table {
    pub(super) fn new(store: &Handle, node: SocketAddr, shutdown: Shutdown) -> Self {
        let budget = |(most, per_second)| Mutex::new(Budget::new(most, per_second));
        Self(Arc::new(Inner {
            store: store.within(PATIENCE),
            node,
            known: Cache::new(NAMES),
            look_ups: Semaphore::new(LOOK_UPS),
            refreshes: Semaphore::new(REFRESHES),
            owned: budget(OWNED),
            invented: budget(INVENTED),
            started: Instant::now(),
            shutdown,
        }))
    }

    /// Names remembered now.
    pub(super) fn names(&self) -> usize {
        self.0.known.len()
    }

    /// What is known of `hostname`.
    pub(super) async fn look_up(&self, hostname: &Hostname) -> Result<Arc<Known>, node::Error> {
        if let Some(known) = self.0.known.get(hostname) {
            if known.is_fresh() {
                return Ok(known);
            }
            if known.is_usable() {
                self.refresh(hostname, &known);
                return Ok(known);
            }
            self.0.known.remove(hostname);
        }
        // Those who wait for somebody else's look-up wait no longer than for their own, and if it fails, not in a row.
        match timeout(PATIENCE, self.0.known.get_or_insert_async(hostname, self.0.load(hostname, None))).await {
            Ok(answer) => answer,
            Err(_) => Err(node::Error::Unavailable),
        }
    }

    /// What is known of `hostname` when what was known led nowhere.
    pub(super) async fn look_again(&self, hostname: &Hostname) -> Result<Arc<Known>, node::Error> {
        if let Some(known) = self.0.known.get(hostname)
            && known.learned.elapsed() >= AGAIN
        {
            self.0.known.remove(hostname);
        }
        self.look_up(hostname).await
    }

    /// A node said that it has no link for `hostname`.
    pub(super) fn miss(&self, hostname: &Hostname, node: SocketAddr) {
        let Some(known) = self.0.known.get(hostname) else { return };
        {
            let mut missed = known.missed.lock().unwrap_or_else(PoisonError::into_inner);
            missed.retain(|(other, at)| *other != node && at.elapsed() < MISSED);
            if missed.len() < ROUTES {
                missed.push((node, Instant::now()));
            }
        }
        self.refresh(hostname, &known);
    }

    /// Fetches a newer answer while this one is used.
    fn refresh(&self, hostname: &Hostname, known: &Arc<Known>) {
        if known.is_refreshed.swap(true, Ordering::Relaxed) {
            return;
        }
        let (inner, hostname, known) = (self.0.clone(), hostname.clone(), known.clone());
        self.0.shutdown.spawn(async move {
            match timeout(PATIENCE, inner.load(&hostname, Some(&known))).await {
                Ok(Ok(newer)) => inner.known.insert(hostname, newer),
                // The next visitor's turn.
                Ok(Err(_)) | Err(_) => known.is_refreshed.store(false, Ordering::Relaxed),
            }
        });
    }
}

impl Inner {
    /// Reads what the store has. What nodes said of an `older` answer still holds.
    async fn load(&self, hostname: &Hostname, older: Option<&Known>) -> Result<Arc<Known>, node::Error> {
        let places = if older.is_some() { &self.refreshes } else { &self.look_ups };
        let Ok(_place) = places.acquire().await else { return Err(node::Error::Unavailable) };
        let (mut routes, mut is_ours) = self.parsed(self.store.hint_list(&key::routes_of(hostname)).await?);
        let mut is_registered = true;
        if routes.is_empty() {
            is_registered = self.store.hint_get(&key::hostname(hostname)).await?.is_some();
            let budget = if is_registered { &self.owned } else { &self.invented };
            if budget.lock().unwrap_or_else(PoisonError::into_inner).take(self.started.elapsed()) {
                let surely = self.store.within(CONFIRM_PATIENCE);
                // Without a majority, what one replica has must do.
                if !is_registered && let Ok(owner) = surely.get(&key::hostname(hostname)).await {
                    is_registered = owner.is_some();
                }
                if is_registered && let Ok(children) = surely.set_list(&key::routes_of(hostname)).await {
                    (routes, is_ours) = self.parsed(children);
                }
            }
        }
        let missed = older.map(|older| older.missed.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Ok(Arc::new(Known {
            is_registered,
            routes,
            is_ours,
            learned: Instant::now(),
            missed: Mutex::new(missed.unwrap_or_default()),
            is_refreshed: AtomicBool::new(false),
        }))
    }

    /// The routes to other nodes among some children, one a node, no more than [`ROUTES`]; and whether one is to this node.
    fn parsed(&self, children: Vec<Vec<u8>>) -> (Vec<Route>, bool) {
        let mut routes: Vec<Route> = Vec::new();
        let mut is_ours = false;
        for route in children.iter().filter_map(|child| Route::from_bytes(child)) {
            if route.node == self.node {
                is_ours = true;
            } else if routes.len() < ROUTES && routes.iter().all(|known| known.node != route.node) {
                routes.push(route);
            }
        }
        (routes, is_ours)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{Clock, MANY, Stage, address, name, route},
        *,
    };
    use tokio::time::advance;

    #[tokio::test]
    async fn however_many_names_are_invented_one_in_use_is_fetched_anew() {
        let stage = Stage::new();
        let table = Table::new(&stage.store, address(9), stage.tasks.clone());
        let used = name("used");
        stage.register(&used).await;
        stage.add(&used, 1).await;
        assert_eq!(table.look_up(&used).await.expect("looked up").routes, [route(1)]);
        stage.add(&used, 2).await;
        let clock = Clock::stop();
        // As if so many invented names waited for the store.
        let taken = table.0.look_ups.acquire_many(LOOK_UPS as u32).await.expect("open");
        advance(FRESH).await;
        let is_fetched = || async { table.look_up(&used).await.expect("looked up").routes.len() == 2 };
        assert!(clock.soon(MANY, is_fetched).await, "the newer answer");
        drop(clock);
        drop(taken);
        stage.end().await;
    }
}
