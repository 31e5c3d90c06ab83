//! Which other nodes live, as far as the ring knows: told to those who name them to clients, whenever it changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use specter_dht::ring::Ring;
use specter_wire::{id::NodeId, link::Neighbour};
use tokio::sync::watch;

use super::limits::NEIGHBOURS;

/// How often the ring is looked at, at most: it speaks to others about once a second.
const LOOK: Duration = Duration::from_millis(100);

/// The present neighbours, never this node itself.
pub type Neighbours = watch::Receiver<Arc<[Neighbour]>>;

/// Looks at the ring and tells what changed.
#[derive(Debug)]
pub(super) struct Lookout {
    told: watch::Sender<Arc<[Neighbour]>>,
    next: Instant,
}

impl Lookout {
    pub(super) fn new() -> (Self, Neighbours) {
        let (told, neighbours) = watch::channel(Arc::default());
        (Self { told, next: Instant::now() }, neighbours)
    }

    /// Looks at the ring if that is due.
    pub(super) fn look(&mut self, ring: &Ring, now: specter_dht::Instant) {
        let present = Instant::now();
        if present < self.next {
            return;
        }
        self.next = present + LOOK;
        let neighbours = ring.living(now).take(NEIGHBOURS);
        let neighbours: Vec<_> = neighbours
            .map(|peer| Neighbour { node: NodeId(peer.id.0.to_be_bytes()), address: peer.address.into() })
            .collect();
        self.told.send_if_modified(|told| {
            let changed = **told != *neighbours;
            if changed {
                *told = neighbours.into();
            }
            changed
        });
    }
}
