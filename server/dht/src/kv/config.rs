//! Who may answer for a slot.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::kv::{Rule, Rules};
use crate::{NodeId, Version};

/// A node that keeps the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// The version of the configuration that admitted it. A node that left and came back has a later one, and what it
    /// kept from before does not count.
    pub since: Version,
}

/// The members of a slot: one set (stable), or an old and a new one that must both agree (joint).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Its place in the order of configurations.
    pub version: Version,
    /// The members; in a joint configuration those that are being replaced.
    pub old: Vec<Member>,
    /// The members to be, in a joint configuration.
    pub new: Option<Vec<Member>>,
    /// On a stable configuration that is not yet known to be chosen: the members it takes over from. A majority of them
    /// must accept it too, or another candidate could undo the joint one behind its back (rule R4).
    pub leaving: Option<Vec<Member>>,
}

impl Config {
    /// The configuration a slot starts with.
    pub fn founding(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let since = Version::default();
        Self { old: nodes.into_iter().map(|node| Member { node, since }).collect(), ..Self::default() }
    }

    /// Whether it has one set of members.
    pub const fn is_stable(&self) -> bool {
        self.new.is_none()
    }

    /// Every node with a vote.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.sides().flatten().map(|member| member.node).collect()
    }

    /// Every node that must hear of it: those with a vote and those that hand over.
    pub fn audience(&self) -> BTreeSet<NodeId> {
        self.sides().chain(self.leaving.as_ref()).flatten().map(|member| member.node).collect()
    }

    /// Whether the node has a vote.
    pub fn contains(&self, node: NodeId) -> bool {
        self.since(node).is_some()
    }

    /// When the node was admitted, if it is a member.
    pub fn since(&self, node: NodeId) -> Option<Version> {
        self.sides().flatten().find(|member| member.node == node).map(|member| member.since)
    }

    /// Whether these nodes can act for the slot: a majority, and of both sides when it is joint.
    pub fn quorum(&self, nodes: &BTreeSet<NodeId>, rules: Rules) -> bool {
        match &self.new {
            None => majority_of(&self.old, nodes, rules),
            Some(new) if !rules.keeps(Rule::BothSides) => majority_of(new, nodes, rules),
            Some(new) => majority_of(&self.old, nodes, rules) && majority_of(new, nodes, rules),
        }
    }

    /// Whether these nodes can choose this configuration: a quorum of it, and of those it takes over from.
    pub fn chosen_by(&self, nodes: &BTreeSet<NodeId>, rules: Rules) -> bool {
        let handed_over = self.leaving.as_ref().is_none_or(|leaving| majority_of(leaving, nodes, rules));
        self.quorum(nodes, rules) && (handed_over || !rules.keeps(Rule::BothSides))
    }

    /// Whether these nodes are a majority of the old side.
    pub fn old_majority(&self, nodes: &BTreeSet<NodeId>, rules: Rules) -> bool {
        majority_of(&self.old, nodes, rules)
    }

    fn sides(&self) -> impl Iterator<Item = &Vec<Member>> {
        std::iter::once(&self.old).chain(self.new.as_ref())
    }
}

fn majority_of(members: &[Member], nodes: &BTreeSet<NodeId>, rules: Rules) -> bool {
    let present = members.iter().filter(|member| nodes.contains(&member.node)).count();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    majority(count(present), count(members.len()), rules)
}

/// Whether so many of all are more than half of them.
pub(crate) fn majority(present: u32, all: u32, rules: Rules) -> bool {
    if !rules.keeps(Rule::MajorityQuorum) {
        return all > 0 && present >= 1 && present + 1 >= all.div_ceil(2);
    }
    present > all / 2
}
