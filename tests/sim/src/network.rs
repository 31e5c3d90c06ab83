//! What becomes of a message.

use std::collections::BTreeSet;

use specter_dht::{NodeId, Random};

use crate::Swarm;

/// Which links fail, and how slow the rest are.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Links that carry nothing, from a node to another.
    blocked: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    pub(crate) fn block(&mut self, from: NodeId, to: NodeId) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(crate) fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// The delays after which copies of a message between nodes arrive: none when it is lost, more than one when it is
    /// duplicated. Nothing keeps the order. The odd copy is very old.
    pub(crate) fn copies(&self, swarm: &Swarm, random: &mut Random, calm: bool) -> Vec<u64> {
        let (low, high) = swarm.delay_micros;
        let mut delays = Vec::new();
        if calm {
            return vec![random.between(low, high)];
        }
        if !random.chance(swarm.loss) {
            let slow = if random.chance(10) { 10 } else { 1 };
            delays.push(random.between(low, high) * slow);
        }
        if random.chance(swarm.duplicate) {
            delays.push(if random.chance(200) {
                random.between(high, 8_000_000)
            } else {
                random.between(low, high * 4)
            });
        }
        delays
    }

    /// The same for what passes between a client and a node, where copies never are very old: a client sends an
    /// operation again for so long only as nodes remember it.
    pub(crate) fn client_copies(swarm: &Swarm, random: &mut Random, calm: bool) -> Vec<u64> {
        let (low, high) = swarm.delay_micros;
        let mut delays = Vec::new();
        if calm || !random.chance(swarm.loss / 2) {
            delays.push(random.between(low, high));
        }
        if !calm && random.chance(swarm.duplicate) {
            delays.push(random.between(low, 200_000));
        }
        delays
    }
}
