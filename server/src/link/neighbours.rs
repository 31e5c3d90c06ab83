//! Which other nodes a client is told of, and when.

use crate::node::Neighbours;
use specter_wire::{id::ClientId, limits::NEIGHBOURS, link::Neighbour};
use std::{
    cmp::Reverse,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// A client is told at most so often: nodes that come and go together are told together.
const PAUSE: Duration = Duration::from_secs(1);

/// What one client is told: at once which nodes there are, and again when that changes.
#[derive(Debug)]
pub(super) struct Teller {
    client: ClientId,
    known: Neighbours,
    /// A hash of what the client was told last.
    told: u64,
    /// When it is to be told again, and when it was told last.
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Teller {
    /// The client is to be told at once, unless there is no other node.
    pub(super) fn new(client: ClientId, known: Neighbours) -> Self {
        Self { client, known, told: hash(&[]), at: Some(Instant::now()), last: None }
    }

    /// What is to be told next, once it is time for it.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&mut self) -> heapless::Vec<Neighbour, NEIGHBOURS> {
        loop {
            match self.at {
                Some(at) => sleep_until(at).await,
                None => match self.known.changed().await {
                    Ok(()) => {
                        let now = Instant::now();
                        self.at = Some(self.last.map_or(now, |last| now.max(last + PAUSE)));
                        continue;
                    }
                    // The node ends, and nothing changes any more.
                    Err(_) => std::future::pending().await,
                },
            }
            self.at = None;
            let chosen = choose(self.client, &self.known.borrow_and_update());
            let hash = hash(&chosen);
            if hash != self.told {
                self.told = hash;
                self.last = Some(Instant::now());
                return chosen;
            }
        }
    }
}

/// Different nodes for each client where there are more than a client is told of, and mostly the same as before when some
/// come or go: those whose names, hashed together with the client's, are the largest. In the order of their names.
fn choose(client: ClientId, known: &[Neighbour]) -> heapless::Vec<Neighbour, NEIGHBOURS> {
    let weight = |neighbour: &Neighbour| {
        let mut hasher = DefaultHasher::new();
        (client, neighbour.node).hash(&mut hasher);
        hasher.finish()
    };
    let mut known = known.to_vec();
    known.sort_by_cached_key(|neighbour| Reverse(weight(neighbour)));
    known.truncate(NEIGHBOURS);
    known.sort_unstable_by_key(|neighbour| neighbour.node);
    known.into_iter().collect()
}

fn hash(told: &[Neighbour]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for Neighbour { node, address } in told {
        (node, SocketAddr::from(*address)).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use specter_wire::id::NodeId;
    use std::{collections::BTreeSet, sync::Arc};
    use tokio::{sync::watch, time::timeout};

    const ANN: ClientId = ClientId([1; 32]);

    fn nodes(count: u8) -> Vec<Neighbour> {
        let neighbour = |number| Neighbour {
            node: NodeId([number; 16]),
            address: SocketAddr::from(([127, 0, 0, 1], 8000 + u16::from(number))).into(),
        };
        (0..count).map(neighbour).collect()
    }

    #[test]
    fn a_client_is_told_of_a_choice_of_its_own_that_hardly_changes() {
        assert_eq!(choose(ANN, &nodes(16))[..], nodes(16)[..]);
        let names = |client, count| choose(client, &nodes(count)).iter().map(|told| told.node).collect::<BTreeSet<_>>();
        let first = names(ANN, 99);
        assert_eq!(first.len(), NEIGHBOURS);
        assert!(names(ANN, 100).difference(&first).count() <= 1);
        let told: BTreeSet<_> = (0..200).flat_map(|client| names(ClientId([client; 32]), 100)).collect();
        assert_eq!(told.len(), 100, "every node is told to somebody");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_told_together_and_only_when_they_differ() {
        let (change, known) = watch::channel::<Arc<[Neighbour]>>(nodes(1).into());
        let mut teller = Teller::new(ANN, known);
        let began = Instant::now();
        assert_eq!(teller.next().await.len(), 1);
        assert_eq!(Instant::now(), began);
        for count in [2, 3, 4] {
            change.send_replace(nodes(count).into());
        }
        assert_eq!(teller.next().await.len(), 4);
        assert_eq!(Instant::now(), began + PAUSE);
        change.send_replace(nodes(5).into());
        change.send_replace(nodes(4).into());
        timeout(PAUSE * 9, teller.next()).await.expect_err("nothing changed");
        change.send_replace(nodes(0).into());
        assert!(teller.next().await.is_empty());
        drop(change);
        timeout(PAUSE * 9, teller.next()).await.expect_err("nothing changes any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_a_node_alone_is_told_nothing() {
        let (_change, known) = watch::channel::<Arc<[Neighbour]>>(Arc::default());
        timeout(PAUSE, Teller::new(ANN, known).next()).await.expect_err("there is nobody to name");
    }
}
