//! How a member comes to lead (rule L1, and the part of R4 that a candidate may do).

use std::collections::{BTreeMap, BTreeSet};

use crate::kv::limits::ASKED_MAX;
use crate::kv::recovery::Reading;
use crate::kv::slot::Role;
use crate::kv::{Config, Message, Report, Rule, Slot};
use crate::{Ballot, Instant, NodeId};

/// A member that asks for the right to lead.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) ballot: Ballot,
    pub(crate) deadline: Instant,
    /// The deadline is never put off beyond this.
    pub(crate) last_deadline: Instant,
    pub(crate) asked: BTreeSet<NodeId>,
    /// The leader that has asked it to lead.
    instead_of: Option<Ballot>,
    pub(crate) reports: BTreeMap<NodeId, Report>,
    /// What was read of what others hold.
    pub(crate) readings: BTreeMap<NodeId, Reading>,
    /// When a part of that is asked for again.
    pub(crate) ask_again_at: Instant,
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
    pub(crate) fn campaign(&mut self, now: Instant, instead_of: Option<Ballot>) {
        self.returning = None;
        let highest = self.counter_seen.max(self.acceptor.durable.promise.counter);
        let counter = highest.checked_add(1).filter(|_| self.acceptor.is_whole());
        let Some(counter) = counter else { return self.postpone_election(now) };
        let ballot = Ballot { counter, node: self.me };
        self.counter_seen = counter;
        self.postpone_election(now);
        self.role = Role::Candidate(Candidate {
            ballot,
            deadline: self.election_at,
            last_deadline: now + self.settings.candidacy,
            asked: BTreeSet::from([self.me]),
            instead_of,
            reports: BTreeMap::new(),
            readings: BTreeMap::new(),
            ask_again_at: Instant::FAR,
        });
        let config = self.acceptor.durable.config.version;
        self.outbox.send(self.me, Message::Prepare { ballot, config, instead_of });
        if !self.rules.keeps(Rule::OwnBallotFirst) {
            self.ask(&self.acceptor.durable.config.audience(), ballot);
        }
    }

    /// A leader that goes asks this member to lead.
    pub(crate) fn succeed(&mut self, now: Instant, ballot: Ballot) {
        let follows = matches!(self.role, Role::Follower) && self.acceptor.durable.promise == ballot;
        if follows && self.acceptor.is_member() {
            self.campaign(now, Some(ballot));
        }
    }

    fn ask(&mut self, nodes: &BTreeSet<NodeId>, ballot: Ballot) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        let config = candidate.config().map_or(self.acceptor.durable.config.version, |config| config.version);
        for node in nodes {
            if candidate.asked.len() < ASKED_MAX && candidate.asked.insert(*node) {
                let instead_of = candidate.instead_of;
                self.outbox.send(*node, Message::Prepare { ballot, config, instead_of });
            }
        }
    }

    /// A member promised. What it says first counts: it tells of the moment of the promise.
    pub(crate) fn promised(&mut self, now: Instant, from: NodeId, ballot: Ballot, report: Report) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.ballot == ballot && candidate.asked.contains(&from) {
            candidate.reports.entry(from).or_insert(report);
            self.consider(now);
        }
    }

    /// Leads if it may, or else asks for what it needs for that.
    pub(crate) fn consider(&mut self, now: Instant) {
        let Role::Candidate(candidate) = &self.role else { return };
        let Some(mut config) = candidate.config().cloned() else { return };
        if !self.rules.keeps(Rule::HandOver) {
            config.leaving = None;
        }
        let (ballot, voters) = (candidate.ballot, candidate.voters());
        let known = |report: &&Report| report.chosen && report.config.version == config.version;
        let chosen = candidate.reports.values().find(known).map(|report| report.config.clone());
        if !config.contains(self.me) && chosen.is_none() {
            return self.leave_it_to(now, &config);
        }
        // It may have learned of a newer configuration since it was asked itself.
        if !config.contains(self.me) || config.version < self.acceptor.durable.config.version {
            if let Some(chosen) = chosen {
                self.acceptor.learn(chosen, &mut self.outbox);
            }
            return self.give_up(now);
        }
        if config.chosen_by(&voters, self.rules) {
            let complete = self.read_reports(now, &config);
            if config.chosen_by(&complete, self.rules) {
                self.lead(now, config, &complete);
            }
        } else if self.may_abort(now, &config, &voters) {
            let config = Config { old: config.old, ..Config::default() };
            let complete = self.read_reports(now, &config);
            if config.old_majority(&complete, self.rules) {
                self.lead(now, config, &complete);
            }
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

    /// The candidacy ran out of time.
    pub(crate) fn campaign_failed(&mut self, now: Instant) {
        if let Role::Candidate(candidate) = &self.role
            && let Some(config) = candidate.config()
        {
            if !config.contains(self.me) {
                return self.stand_back(now);
            }
            if !config.is_stable() && config.old_majority(&candidate.voters(), self.rules) {
                self.blocked_since.get_or_insert(now);
            }
        }
        self.give_up(now);
    }

    /// This candidate is no member of a configuration that may have been chosen, so it cannot lead: one who is, and has
    /// promised to follow it, leads in its place.
    fn leave_it_to(&mut self, now: Instant, config: &Config) {
        let Role::Candidate(candidate) = &self.role else { return };
        let ballot = candidate.ballot;
        if let Some(node) = candidate.reports.keys().copied().find(|node| config.contains(*node)) {
            self.outbox.send(node, Message::Succeed { ballot });
            return self.stand_back(now);
        }
        self.ask(&config.audience(), ballot);
    }

    /// Lets the members of a newer configuration lead. For longer than they wait between two elections: the higher ballots of
    /// one that cannot lead would keep them from it for ever.
    fn stand_back(&mut self, now: Instant) {
        self.give_up(now);
        self.election_at = now + self.longest_wait() * 4;
    }

    pub(crate) fn give_up(&mut self, now: Instant) {
        self.role = Role::Follower;
        self.failures = self.failures.saturating_add(1);
        self.postpone_election(now);
    }
}
