//! How a leader reads: it asks a quorum whether it still leads, for many reads at once (rule L5).

use std::collections::BTreeMap;

use crate::kv::leader::{Context, Leader};
use crate::kv::outbox::Outbox;
use crate::kv::register::Operation;
use crate::kv::roster::{Nodes, Roster};
use crate::kv::{Key, Message, Register, RequestId, Rule};
use crate::{NodeId, Version};

/// Reads that wait, and who confirmed up to which round.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Reads {
    waiting: Vec<Read>,
    /// The newest question asked.
    round: u64,
    /// The newest question that a quorum has answered.
    settled: u64,
    confirmed: BTreeMap<NodeId, u64>,
}

#[derive(Clone, Debug, Hash)]
struct Read {
    id: RequestId,
    key: Key,
    operation: Operation,
    /// The first round that was asked after the read arrived.
    round: u64,
}

impl Reads {
    pub(crate) const fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn into_ids(self) -> impl Iterator<Item = RequestId> {
        self.waiting.into_iter().map(|read| read.id)
    }

    /// Whether a member has answered one of the last few questions, so that it is worth sending things to.
    pub(crate) fn is_near(&self, node: NodeId) -> bool {
        self.confirmed.get(&node).is_some_and(|round| round + 3 > self.round)
    }

    fn up_to(&self, round: u64, roster: &Roster) -> Nodes {
        roster.subset(self.confirmed.iter().filter(|(_, confirmed)| **confirmed >= round).map(|(node, _)| *node))
    }
}

impl Leader {
    pub(crate) fn read(&mut self, context: &mut Context<'_>, id: RequestId, key: Key, operation: Operation) {
        if !context.rules.keeps(Rule::ConfirmReads) {
            return self.answer(context, &Read { id, key, operation, round: 0 });
        }
        // Reads that arrive while a question is open share the next one.
        let idle = self.reads.settled == self.reads.round;
        self.reads.waiting.push(Read { id, key, operation, round: self.reads.round + 1 });
        if idle {
            self.ask_round(context);
        }
    }

    /// Asks all members whether this node still leads.
    pub(crate) fn ask_round(&mut self, context: &mut Context<'_>) {
        self.reads.round += 1;
        self.audits.asked(self.reads.round);
        for node in self.config.nodes() {
            context.outbox.send(node, Message::Confirm { ballot: self.ballot, round: self.reads.round });
        }
    }

    /// Tells a member who leads.
    pub(crate) fn show(&self, outbox: &mut Outbox, to: NodeId) {
        outbox.send(to, Message::Confirm { ballot: self.ballot, round: self.reads.round });
    }

    pub(crate) fn confirmed(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        round: u64,
        known: Option<Version>,
        full: bool,
    ) {
        if round > self.reads.round || self.roster.seat(from).is_none() {
            return;
        }
        self.note_room(context, from, full);
        if !self.reads.is_near(from) {
            self.audits.doubt(from, context.now + context.settings.heartbeat * 10);
        }
        let confirmed = self.reads.confirmed.entry(from).or_default();
        *confirmed = round.max(*confirmed);
        if self.proposal.is_none() && known != Some(self.config.version) {
            context.outbox.send(from, Message::Learn { config: self.config.clone() });
        }
        let confirmed = self.reads.up_to(round, &self.roster);
        if !self.config.is_stable() && self.roster.old_majority(confirmed, context.rules) {
            self.contact_at = context.now;
        }
        if round <= self.reads.settled || !self.roster.quorum(confirmed, context.rules) {
            return;
        }
        self.reads.settled = round;
        self.contact_at = context.now;
        if !self.config.is_stable() && self.is_writable(context.rules) {
            self.joint_at = context.now;
        }
        let (ready, waiting) =
            std::mem::take(&mut self.reads.waiting).into_iter().partition(|read| read.round <= round);
        self.reads.waiting = waiting;
        let ready: Vec<Read> = ready;
        for read in &ready {
            self.answer(context, read);
        }
        if self.reads.waiting.iter().any(|read| read.round > self.reads.round) {
            self.ask_round(context);
        }
    }

    fn answer(&self, context: &mut Context<'_>, read: &Read) {
        let held = self.keys.get(&read.key);
        let register = held.map_or(const { &Register::EMPTY }, |held| &held.register);
        if let Some(answer) = register.read(&read.operation) {
            context.reply(read.id, Ok(answer), held.map(|held| held.version));
        }
    }
}
