//! What a node can tell people of its slots: a picture for looking at, on which nothing rests.

use std::collections::BTreeSet;

use super::Node;
use crate::kv::Slot;
use crate::{Instant, NodeId, SlotId};

/// A slot that a node keeps, or leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Which.
    pub slot: SlotId,
    /// Its members, as this node knows them.
    pub members: BTreeSet<NodeId>,
    /// Who leads it, as far as this node has heard lately.
    pub leader: Option<NodeId>,
    /// Whether its members are being changed.
    pub is_changing: bool,
    /// Whether fewer living machines keep it than should, counting those that live as far as this node knows.
    pub is_short: bool,
    /// Whether it stands still because too few of its members live ([`Node::stranded`]).
    pub is_stranded: bool,
}

impl Node {
    /// The slots that this node keeps or leads, in order.
    pub fn pictures(&self, now: Instant) -> Vec<Picture> {
        let mut living: BTreeSet<NodeId> = self.ring.living(now).map(|peer| peer.id).collect();
        if !self.leaving.begun {
            living.insert(self.me);
        }
        let stranded: BTreeSet<SlotId> = self.stranded(now).into_iter().collect();
        let wanted = self.terms.map_or(1, |terms| usize::from(terms.replicas)).min(living.len());
        let kept = self.slots.iter().filter(|(_, slot)| slot.is_member() || slot.leads().is_some());
        let picture = |(id, slot): (&SlotId, &Slot)| {
            let config = &slot.state().config;
            let members = config.nodes();
            Picture {
                slot: *id,
                leader: self.leader_of(slot, now),
                is_changing: !config.is_stable() || slot.is_changing(),
                is_stranded: stranded.contains(id),
                is_short: members.intersection(&living).count() < wanted,
                members,
            }
        };
        kept.map(picture).collect()
    }

    fn leader_of(&self, slot: &Slot, now: Instant) -> Option<NodeId> {
        if slot.leads().is_some() {
            return Some(self.me);
        }
        let heard = slot.acceptor.leader.filter(|(_, heard)| now.since(*heard) < self.settings.slot.step_down);
        heard.map(|(leader, _)| leader).filter(|leader| *leader != self.me)
    }
}
