//! How the members of a slot change (rules R1 to R5), and how a leader has a configuration accepted (rule L3).

use std::collections::BTreeSet;

use crate::kv::leader::{Context, Leader};
use crate::kv::{Config, Member, Message, Rule};
use crate::{Instant, NodeId, Version};

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
}

impl Leader {
    /// L3: nothing is done before the configuration itself was accepted from this leader.
    pub(crate) fn open(&mut self, context: &mut Context<'_>) {
        self.heartbeat_at = context.now + context.settings.heartbeat;
        self.reconfigure_after = context.now + context.settings.hold_off;
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
        proposal.accepted.insert(from);
        let chosen = |proposal: &mut Proposal| proposal.config.chosen_by(&proposal.accepted, context.rules);
        let Some(Proposal { mut config, .. }) = self.proposal.take_if(chosen) else { return };
        let audience: BTreeSet<NodeId> = config.audience().union(&self.config.audience()).copied().collect();
        config.leaving = None;
        self.config = config;
        self.contact_at = context.now;
        self.joint_at = context.now;
        self.over = !self.config.contains(context.me);
        for node in audience {
            context.outbox.send(node, Message::Learn { config: self.config.clone() });
        }
        for key in self.flying.clone() {
            self.settle(context, &key);
        }
    }

    /// Goes on with whatever waited for something else to end.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) {
        if self.over || self.proposal.is_some() {
            return;
        }
        if self.flying.is_empty()
            && let Some(drain) = self.drain.take()
        {
            match drain {
                Drain::Enlarge(nodes) => self.enlarge(context, &nodes),
                Drain::Reduce => self.reduce(context),
            }
            return;
        }
        if self.drain.is_none() && !self.config.is_stable() {
            let transferred = self.keys.iter().all(|(key, held)| held.version.is_none() || self.is_fresh(key));
            if transferred || !context.rules.keeps(Rule::Transfer) {
                self.drain = Some(Drain::Reduce);
                return self.advance(context);
            }
            self.refresh_stale(context);
        }
        self.start_waiting(context);
    }

    /// Whether the node's answers count; a stranger's would only take memory.
    pub(crate) fn hears(&self, node: NodeId) -> bool {
        let proposed = self.proposal.as_ref().map(|proposal| &proposal.config);
        [Some(&self.config), proposed].into_iter().flatten().any(|config| config.audience().contains(&node))
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

    /// At every heartbeat: begins a change that is due, undoes one that cannot go on (R4).
    pub(crate) fn reconsider(&mut self, context: &mut Context<'_>, wanted: Option<&(Vec<NodeId>, Instant)>) {
        let joint = self.proposal.as_ref().map_or(&self.config, |proposal| &proposal.config);
        if !joint.is_stable() {
            let overdue = context.now.since(self.joint_at) >= context.settings.abort_after;
            if overdue && joint.old.iter().any(|member| member.node == context.me) {
                self.drain = None;
                self.reconfigure_after = context.now + context.settings.hold_off;
                let old = joint.old.clone();
                self.propose(context, Config { old, ..Config::default() });
            }
            return;
        }
        let Some((nodes, since)) = wanted else { return };
        let differs = self.config.nodes() != nodes.iter().copied().collect();
        let due = context.now.since(*since) >= context.settings.hold_off && context.now >= self.reconfigure_after;
        if self.is_open() && self.drain.is_none() && differs && due && !nodes.is_empty() {
            self.drain = Some(Drain::Enlarge(nodes.clone()));
        }
    }
}
