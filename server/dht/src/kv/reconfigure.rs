//! How the members of a slot change (rules R1 to R5), and how a leader has a configuration accepted (rule L3).

use std::collections::BTreeSet;

use crate::kv::leader::{Context, Leader};
use crate::kv::limits::SEQ_MAX;
use crate::kv::slot::Wanted;
use crate::kv::upkeep::next_beat;
use crate::kv::{Config, Member, Message, Rule};
use crate::{NodeId, Version};

/// A configuration on its way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Proposal {
    pub(crate) config: Config,
    accepted: BTreeSet<NodeId>,
}

/// What happens once nothing is on its way any more.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Drain {
    /// R1: the members to be join.
    Enlarge(Vec<NodeId>),
    /// R3: the members that were go.
    Reduce,
    /// Another member is asked to lead.
    HandOver,
}

impl Leader {
    /// L3: nothing is done before the configuration itself was accepted from this leader.
    pub(crate) fn open(&mut self, context: &mut Context<'_>) {
        self.heartbeat_at = next_beat(context.now, context.settings.heartbeat);
        if context.rules.keeps(Rule::ReacceptConfig) {
            self.propose(context, self.config.clone());
        }
    }

    fn propose(&mut self, context: &mut Context<'_>, config: Config) {
        let version = self.next_version();
        self.propose_at(context, config, version);
    }

    fn propose_at(&mut self, context: &mut Context<'_>, mut config: Config, version: Version) {
        config.version = version;
        self.proposal = Some(Proposal { config, accepted: BTreeSet::new() });
        self.propose_again(context);
    }

    /// Sends a configuration on its way to those that have not accepted it.
    pub(crate) fn propose_again(&self, context: &mut Context<'_>) {
        let Some(Proposal { config, accepted }) = &self.proposal else { return };
        for node in config.audience().difference(accepted) {
            let (ballot, config) = (self.ballot, config.clone());
            context.outbox.send(*node, Message::AcceptConfig { ballot, config });
        }
    }

    pub(crate) fn config_accepted(&mut self, context: &mut Context<'_>, from: NodeId, version: Version) {
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.config.version == version) else {
            return;
        };
        if !proposal.config.audience().contains(&from) {
            return;
        }
        proposal.accepted.insert(from);
        let chosen = |proposal: &mut Proposal| proposal.config.chosen_by(&proposal.accepted, context.rules);
        let Some(Proposal { mut config, accepted }) = self.proposal.take_if(chosen) else { return };
        let audience: BTreeSet<NodeId> = config.audience().union(&self.config.audience()).copied().collect();
        config.leaving = None;
        self.adopt(config);
        self.contact_at = context.now;
        self.joint_at = context.now;
        self.over = !self.config.contains(context.me);
        for node in audience {
            context.outbox.send(node, Message::Learn { config: self.config.clone() });
        }
        self.settle_all(context);
        if self.over {
            // Who stays would otherwise miss a leader first.
            self.ask_to_succeed(context, |_, node| accepted.contains(&node));
        }
    }

    /// Goes on with whatever waited for something else to end.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) {
        // Its order of writes is at its end: nobody can write any more, and nobody pretends to.
        self.over |= self.seq >= SEQ_MAX;
        if self.over || self.proposal.is_some() {
            return;
        }
        if self.goes && !matches!(self.drain, Some(Drain::Reduce)) {
            self.drain = Some(Drain::HandOver);
        }
        if self.flights.is_empty()
            && let Some(drain) = self.drain.take()
        {
            match drain {
                Drain::Enlarge(nodes) => self.enlarge(context, &nodes),
                Drain::Reduce => self.reduce(context),
                Drain::HandOver => self.hand_over(context),
            }
            return;
        }
        if self.drain.is_none() {
            let transferred = self.keys.all_fresh() || !context.rules.keeps(Rule::Transfer);
            if !self.config.is_stable() && transferred {
                self.drain = Some(Drain::Reduce);
                return self.advance(context);
            }
            self.start_ready(context);
            self.refresh_stale(context);
        }
        self.send_lacking(context);
    }

    /// Asks another member to lead; goes on itself when there is none.
    fn hand_over(&mut self, context: &mut Context<'_>) {
        self.goes = false;
        self.ask_to_succeed(context, |leader, node| leader.reads.is_near(node));
        if self.successor.is_some() {
            self.over = true;
        } else {
            self.advance(context);
        }
    }

    /// Asks the member that lacks least, of those that are near, to lead.
    fn ask_to_succeed(&mut self, context: &mut Context<'_>, is_near: impl Fn(&Self, NodeId) -> bool) {
        let others = self.roster.nodes().iter().filter(|node| **node != context.me && is_near(self, **node));
        let others = others.filter_map(|node| self.roster.seat(*node).map(|seat| (seat, *node)));
        let others = others.map(|(seat, node)| (self.full.contains(seat), self.keys.lacks(seat), node));
        self.successor = others.min().map(|(_, _, node)| node);
        if let Some(successor) = self.successor {
            context.outbox.send(successor, Message::Succeed { ballot: self.ballot });
        }
    }

    /// R1.
    fn enlarge(&mut self, context: &mut Context<'_>, nodes: &[NodeId]) {
        let version = self.next_version();
        let member = |node: &NodeId| Member { node: *node, since: self.config.since(*node).unwrap_or(version) };
        let new = Some(nodes.iter().map(member).collect());
        let config = Config { new, ..self.config.clone() };
        self.joint_at = context.now;
        self.propose_at(context, config, version);
    }

    /// R3.
    fn reduce(&mut self, context: &mut Context<'_>) {
        let Some(new) = self.config.new.clone() else { return };
        let leaving = Some(self.config.old.clone());
        self.propose(context, Config { old: new, leaving, ..Config::default() });
    }

    pub(crate) fn is_changing(&self) -> bool {
        let proposed = self.proposal.as_ref().is_some_and(|proposal| !proposal.config.is_stable());
        let drains = matches!(self.drain, Some(Drain::Enlarge(_) | Drain::Reduce));
        !self.config.is_stable() || proposed || drains
    }

    /// Begins a change that is due, undoes one that cannot go on (R4).
    pub(crate) fn reconsider(&mut self, context: &mut Context<'_>, wanted: Option<&Wanted>) {
        let joint = self.proposal.as_ref().map_or(&self.config, |proposal| &proposal.config);
        if !joint.is_stable() {
            let overdue = context.now.since(self.joint_at) >= context.settings.abort_after;
            if overdue && joint.old.iter().any(|member| member.node == context.me) {
                self.drain = None;
                self.reconfigure_after = context.now + context.settings.retry_after;
                let old = joint.old.clone();
                self.propose(context, Config { old, ..Config::default() });
            }
            return;
        }
        let Some(Wanted { nodes, due }) = wanted else { return };
        let differs = self.config.nodes() != nodes.iter().copied().collect();
        let due = context.now >= *due && context.now >= self.reconfigure_after;
        if self.is_open() && self.drain.is_none() && differs && due {
            self.drain = Some(Drain::Enlarge(nodes.clone()));
        }
    }
}
