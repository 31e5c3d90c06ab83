//! What is known of hostnames that no link of this node serves.
//!
//! Visitors choose the names, so the cache has a bound, one look-up serves all who wait for the same name, and "there is
//! no such name" is remembered as well as "there is".

use super::key;
use crate::node::{self, Handle};
use quick_cache::sync::Cache;
use specter_wire::name::Hostname;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Names remembered. Each takes about 350 bytes.
const NAMES: usize = 8_192;

/// A name may be registered elsewhere in the meantime: how long an old answer may be given.
const FRESH: Duration = Duration::from_secs(5);

/// A visitor does not wait longer for the store.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Table {
    store: Handle,
    known: Cache<Hostname, (bool, Instant)>,
}

impl Table {
    pub(super) fn new(store: Handle) -> Self {
        Self { store: store.within(PATIENCE), known: Cache::new(NAMES) }
    }

    /// Whether anybody owns `hostname`; an answer may be [`FRESH`] old.
    pub(super) async fn is_registered(&self, hostname: &Hostname) -> Result<bool, node::Error> {
        if let Some((_, learned)) = self.known.get(hostname)
            && learned.elapsed() >= FRESH
        {
            self.known.remove(hostname);
        }
        let look_up = async {
            let registered = self.store.hint_get(&key::hostname(hostname)).await?.is_some();
            Ok((registered, Instant::now()))
        };
        // Those who wait for somebody else's look-up wait no longer than for their own, and if it fails, not in a row.
        match timeout(PATIENCE, self.known.get_or_insert_async(hostname, look_up)).await {
            Ok(answer) => answer.map(|(registered, _)| registered),
            Err(_) => Err(node::Error::Unavailable),
        }
    }
}
