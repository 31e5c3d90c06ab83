//! How a member that starts again finds out soon whether somebody leads.
//!
//! A candidate who is not needed unseats the leader, since it promises itself more than that one has. So who starts asks
//! the others first: a leader that is asked shows itself, and a majority that answers without one wants one. When all
//! start at once, they do not wait as long as a member does that has just heard a leader.

use std::collections::BTreeSet;

use crate::kv::slot::Role;
use crate::kv::{Message, Slot};
use crate::{Ballot, Instant, NodeId};

/// What a member has heard since it started.
#[derive(Clone, Debug)]
pub(crate) struct Returning {
    /// Who has answered.
    answered: BTreeSet<NodeId>,
    /// The highest ballot that any of them has promised: whose it is led last, or tried to.
    highest: Ballot,
    /// When it goes on as a member that has missed its leader.
    until: Instant,
}

/// A question goes again so many times in a heartbeat: those who start at the same time do not all hear the first.
const ASKS: u32 = 5;

impl Slot {
    /// The member has just started: it asks at once.
    pub(crate) fn return_to_others(&mut self, now: Instant) {
        self.postpone_election(now);
        if self.acceptor.is_alone() {
            self.election_at = now;
        } else if self.acceptor.is_member() {
            let highest = self.acceptor.durable.promise;
            let answered = BTreeSet::from([self.me]);
            self.returning = Some(Returning { answered, highest, until: self.election_at });
            self.election_at = now;
        }
    }

    /// It is time for an election, or to ask again whether one is needed.
    pub(crate) fn miss_leader(&mut self, now: Instant) {
        match self.returning.as_ref().map(|returning| returning.until).filter(|until| now < *until) {
            Some(until) => {
                let others = self.acceptor.durable.config.nodes().into_iter().filter(|node| *node != self.me);
                let ballot = Ballot { counter: 0, node: self.me };
                for node in others {
                    self.outbox.send(node, Message::Confirm { ballot, round: 0 });
                }
                self.election_at = until.min(now + self.settings.heartbeat / ASKS);
            }
            None => self.campaign(now, None),
        }
    }

    /// A member has answered what this one asks when it starts.
    pub(crate) fn answered(&mut self, now: Instant, from: NodeId, promised: Ballot) {
        let (config, rules) = (&self.acceptor.durable.config, self.rules);
        let Some(returning) = self.returning.as_mut().filter(|_| config.contains(from)) else { return };
        returning.answered.insert(from);
        returning.highest = returning.highest.max(promised);
        if !config.chosen_by(&returning.answered, rules) {
            return;
        }
        let Some(Returning { highest, until, .. }) = self.returning.take() else { return };
        if highest.node == self.me {
            // Nobody has led since it did.
            self.campaign(now, None);
        } else {
            // Whoever led last shows itself, or comes first.
            let heartbeat = self.settings.heartbeat;
            self.election_at = until.min(now + self.random.span(heartbeat, heartbeat * 2));
        }
    }

    /// Somebody asks as if nobody led: a member that has started again, or has not heard of the leader for long.
    pub(crate) fn show_leader(&mut self, from: NodeId, ballot: Ballot) {
        let Role::Leader(leader) = &self.role else { return };
        if ballot < leader.ballot && leader.config.contains(from) {
            leader.show(&mut self.outbox, from);
        }
    }
}
