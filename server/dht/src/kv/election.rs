//! How a member comes to lead (rules L1 and L2, and the part of R4 that a candidate may do).

use std::collections::{BTreeMap, BTreeSet};

use crate::kv::leader::Leader;
use crate::kv::slot::Role;
use crate::kv::{Config, Message, Report, Rule, Slot};
use crate::{Ballot, Instant, NodeId};

/// A member that asks for the right to lead.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) ballot: Ballot,
    pub(crate) deadline: Instant,
    pub(crate) asked: BTreeSet<NodeId>,
    pub(crate) reports: BTreeMap<NodeId, Report>,
}

impl Candidate {
    /// The newest configuration anybody has told of; of two copies the one that is known to be chosen.
    fn config(&self) -> Option<&Config> {
        let newest = self.reports.values().max_by_key(|report| (report.config.version, report.chosen))?;
        Some(&newest.config)
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        self.reports.keys().copied().collect()
    }
}

impl Slot {
    /// L1: asks itself first, and the others only once its own promise is on its disk: a ballot that is forgotten in a
    /// crash must not be used twice.
    pub(crate) fn campaign(&mut self, now: Instant) {
        let counter = self.counter_seen.max(self.acceptor.durable.promise.counter) + 1;
        let ballot = Ballot { counter, node: self.me };
        self.counter_seen = counter;
        self.postpone_election(now);
        let (deadline, asked) = (self.election_at, BTreeSet::from([self.me]));
        self.role = Role::Candidate(Candidate { ballot, deadline, asked, reports: BTreeMap::new() });
        self.outbox.send(self.me, Message::Prepare { ballot });
        if !self.rules.keeps(Rule::OwnBallotFirst) {
            self.ask(&self.acceptor.durable.config.audience(), ballot);
        }
    }

    fn ask(&mut self, nodes: &BTreeSet<NodeId>, ballot: Ballot) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        for node in nodes {
            if candidate.asked.insert(*node) {
                self.outbox.send(*node, Message::Prepare { ballot });
            }
        }
    }

    /// A member promised.
    pub(crate) fn promised(&mut self, now: Instant, from: NodeId, ballot: Ballot, report: Report) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        // Who was not asked would only take memory.
        if candidate.ballot != ballot || !candidate.asked.contains(&from) {
            return;
        }
        candidate.reports.insert(from, report);
        let Some(mut config) = candidate.config().cloned() else { return };
        if !self.rules.keeps(Rule::HandOver) {
            config.leaving = None;
        }
        let voters = candidate.voters();
        if !config.contains(self.me) {
            return self.give_up(now);
        }
        if config.chosen_by(&voters, self.rules) {
            self.lead(now, config);
        } else if self.may_abort(now, &config, &voters) {
            self.lead(now, Config { old: config.old, ..Config::default() });
        } else {
            self.ask(&config.audience(), ballot);
        }
    }

    /// R4: a joint configuration whose new side has been out of reach for long may be undone by a majority of the old
    /// one. Had it been completed, that majority would know.
    fn may_abort(&self, now: Instant, config: &Config, voters: &BTreeSet<NodeId>) -> bool {
        let overdue = self.blocked_since.is_some_and(|since| now.since(since) >= self.settings.abort_after);
        let old = config.old.iter().any(|member| member.node == self.me);
        overdue && !config.is_stable() && old && config.old_majority(voters, self.rules)
    }

    fn lead(&mut self, now: Instant, config: Config) {
        let Role::Candidate(candidate) = std::mem::replace(&mut self.role, Role::Follower) else { return };
        self.failures = 0;
        self.blocked_since = None;
        let leader = Leader::recover(now, candidate.ballot, config, candidate.reports, self.rules);
        self.role = Role::Leader(Box::new(leader));
        self.lead_on(now, Leader::open);
    }

    /// The candidacy ran out of time.
    pub(crate) fn campaign_failed(&mut self, now: Instant) {
        if let Role::Candidate(candidate) = &self.role
            && let Some(config) = candidate.config()
            && !config.is_stable()
            && config.old_majority(&candidate.voters(), self.rules)
        {
            self.blocked_since.get_or_insert(now);
        }
        self.give_up(now);
    }

    pub(crate) fn give_up(&mut self, now: Instant) {
        self.role = Role::Follower;
        self.failures += 1;
        self.postpone_election(now);
    }
}
