//! Nodes that go away: connections by way of them that nobody uses are closed, so that they do not wait for those to end.

use crate::{gateway::Gateway, node::Neighbours};
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// For how long, and how often: connections that were in use come back one by one.
const SPAN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// Sees off whoever is no longer among the neighbours, as long as the store lives.
pub(super) async fn see_off(gateway: Arc<Gateway>, mut neighbours: Neighbours) {
    let mut known = BTreeSet::new();
    let mut gone: HashMap<SocketAddr, Instant> = HashMap::new();
    loop {
        tokio::select! {
            changed = neighbours.changed() => if changed.is_err() { return },
            () = sleep(PAUSE), if !gone.is_empty() => {}
        }
        let present: BTreeSet<SocketAddr> =
            neighbours.borrow_and_update().iter().map(|neighbour| neighbour.address.into()).collect();
        gone.extend(known.difference(&present).map(|address| (*address, Instant::now())));
        gone.retain(|address, since| !present.contains(address) && since.elapsed() < SPAN);
        known = present;
        if !gone.is_empty() {
            gateway.close_unused(|address| gone.contains_key(&address));
        }
    }
}
