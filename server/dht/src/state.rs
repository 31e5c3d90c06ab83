//! What a node must find again after a crash: a fold over the records of its log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kv::{Config, Durable, Entry, Rules};
use crate::{NodeId, Peer, SlotId, Terms};

/// One record of a node's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// The node belongs to a cluster.
    Cluster {
        /// What the cluster agreed on.
        terms: Terms,
        /// Whether this node made it: then it keeps every slot, at first alone.
        founder: bool,
    },
    /// Something happened to a slot.
    Slot {
        /// Which.
        slot: SlotId,
        /// What.
        entry: Entry,
    },
    /// A row of the peer book, in place of an earlier one of the same machine.
    Remember(Peer),
    /// A row of the peer book is gone.
    Forget(NodeId),
}

/// The state of a node, as its log tells it.
#[derive(Clone, Debug)]
pub struct State {
    node: NodeId,
    rules: Rules,
    /// What the cluster agreed on, once the node knows.
    pub terms: Option<Terms>,
    /// What the node keeps of each slot.
    pub slots: BTreeMap<SlotId, Durable>,
    /// The machines it knows.
    pub peers: BTreeMap<NodeId, Peer>,
}

impl State {
    /// The state of a node that has just been made.
    pub const fn new(node: NodeId, rules: Rules) -> Self {
        Self { node, rules, terms: None, slots: BTreeMap::new(), peers: BTreeMap::new() }
    }

    /// Takes one record in.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Cluster { terms, founder } => {
                self.terms = Some(*terms);
                if *founder {
                    let config = Config::founding([self.node]);
                    let entry = Entry::Config { config, chosen: true };
                    for slot in 0..terms.slots() {
                        self.slot(SlotId(slot)).apply(&entry);
                    }
                }
            }
            Record::Slot { slot, entry } => self.slot(*slot).apply(entry),
            Record::Remember(peer) => {
                self.peers.insert(peer.id, peer.clone());
            }
            Record::Forget(node) => {
                self.peers.remove(node);
            }
        }
    }

    fn slot(&mut self, slot: SlotId) -> &mut Durable {
        let (node, rules) = (self.node, self.rules);
        self.slots.entry(slot).or_insert_with(|| Durable::new(node, rules))
    }
}
