//! The members of the configuration in force, numbered, so that a set of them is one word.

use crate::kv::config::majority;
use crate::kv::{Config, Rule, Rules};
use crate::{NodeId, Version};

/// Some members of a [`Roster`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Nodes(u32);

impl Nodes {
    pub(crate) const fn insert(&mut self, seat: u32) {
        self.0 |= 1 << seat;
    }

    pub(crate) const fn remove(&mut self, seat: u32) {
        self.0 &= !(1 << seat);
    }

    pub(crate) const fn contains(self, seat: u32) -> bool {
        self.0 & (1 << seat) != 0
    }

    pub(crate) const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The places of those that are in it.
    pub(crate) fn seats(self) -> impl Iterator<Item = u32> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let seat = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (seat < u32::BITS).then_some(seat)
        })
    }
}

/// The members of a configuration, each with a place.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Roster {
    nodes: Vec<NodeId>,
    old: Nodes,
    new: Option<Nodes>,
    /// Of a joint configuration its version: what was written before it counts as old.
    pub(crate) joint_since: Option<Version>,
}

impl Roster {
    pub(crate) fn new(config: &Config) -> Self {
        let nodes: Vec<NodeId> = config.nodes().into_iter().collect();
        let mut roster = Self { nodes, old: Nodes::default(), new: None, joint_since: None };
        roster.old = roster.subset(config.old.iter().map(|member| member.node));
        roster.new = config.new.as_ref().map(|new| roster.subset(new.iter().map(|member| member.node)));
        roster.joint_since = config.new.is_some().then_some(config.version);
        roster
    }

    /// Every member, in order of their places.
    pub(crate) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// The place of a member; none for who is not one.
    pub(crate) fn seat(&self, node: NodeId) -> Option<u32> {
        let index = self.nodes.iter().position(|member| *member == node)?;
        u32::try_from(index).ok()
    }

    pub(crate) fn node(&self, seat: u32) -> Option<NodeId> {
        self.nodes.get(usize::try_from(seat).ok()?).copied()
    }

    /// Those of the nodes that are members.
    pub(crate) fn subset(&self, nodes: impl IntoIterator<Item = NodeId>) -> Nodes {
        let mut some = Nodes::default();
        nodes.into_iter().filter_map(|node| self.seat(node)).for_each(|seat| some.insert(seat));
        some
    }

    pub(crate) fn all(&self) -> Nodes {
        Nodes(self.old.0 | self.new.map_or(0, |new| new.0))
    }

    /// The same members in another roster, as far as they are in it.
    pub(crate) fn moved(&self, nodes: Nodes, to: &Self) -> Nodes {
        to.subset(nodes.seats().filter_map(|seat| self.node(seat)))
    }

    /// Whether these members can act for the slot: a majority, and of both sides when there are two.
    pub(crate) fn quorum(&self, nodes: Nodes, rules: Rules) -> bool {
        match self.new {
            None => part(self.old, nodes, rules),
            Some(new) if !rules.keeps(Rule::BothSides) => part(new, nodes, rules),
            Some(new) => part(self.old, nodes, rules) && part(new, nodes, rules),
        }
    }

    /// Whether these members are a majority of the old side.
    pub(crate) fn old_majority(&self, nodes: Nodes, rules: Rules) -> bool {
        part(self.old, nodes, rules)
    }
}

fn part(side: Nodes, nodes: Nodes, rules: Rules) -> bool {
    majority((side.0 & nodes.0).count_ones(), side.0.count_ones(), rules)
}
