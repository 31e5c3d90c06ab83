//! A leader: what it knows, and its end (rule L6).

use std::collections::{BTreeMap, BTreeSet};

use crate::kv::audit::Audits;
use crate::kv::keys::{Held, Keys};
use crate::kv::outbox::Outbox;
use crate::kv::reading::Reads;
use crate::kv::reconfigure::{Drain, Proposal};
use crate::kv::roster::{Nodes, Roster};
use crate::kv::transfer::Transfer;
use crate::kv::writing::{Task, Work};
use crate::kv::{Answer, Config, Key, Output, Refusal, Request, RequestId, Rules, Settings};
use crate::{Ballot, Instant, NodeId, Version};

/// What a leader needs of its node for one input.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) me: NodeId,
    pub(crate) rules: Rules,
    pub(crate) settings: &'a Settings,
    pub(crate) outbox: &'a mut Outbox,
}

impl Context<'_> {
    pub(crate) fn reply(&mut self, id: RequestId, reply: Result<Answer, Refusal>, rests_on: Option<Version>) {
        self.outbox.push(Output::Reply { id, reply, rests_on });
    }
}

/// A node that leads the slot.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leader {
    pub(crate) ballot: Ballot,
    pub(crate) seq: u64,
    /// The configuration in force.
    pub(crate) config: Config,
    /// Its members.
    pub(crate) roster: Roster,
    /// A configuration that is not chosen yet; nothing is begun while there is one.
    pub(crate) proposal: Option<Proposal>,
    pub(crate) drain: Option<Drain>,
    /// What is settled.
    pub(crate) keys: Keys,
    /// The keys that something is being done to.
    pub(crate) work: BTreeMap<Key, Work>,
    /// The place of every write on its way.
    pub(crate) flights: BTreeSet<u64>,
    /// Keys with something to begin that could not be begun at once.
    pub(crate) ready: BTreeSet<Key>,
    pub(crate) queued: usize,
    /// How many of the writes on their way some client waits for.
    pub(crate) serving: usize,
    pub(crate) reads: Reads,
    pub(crate) audits: Audits,
    pub(crate) heartbeat_at: Instant,
    /// When a quorum last confirmed; in a joint configuration its old side is enough.
    pub(crate) contact_at: Instant,
    /// When both sides of a joint configuration last confirmed.
    pub(crate) joint_at: Instant,
    /// Not before this are the members changed.
    pub(crate) reconfigure_after: Instant,
    pub(crate) transfer: Transfer,
    /// The members whose disks have no room.
    pub(crate) full: Nodes,
    /// Whether it has been asked to let another member lead.
    pub(crate) goes: bool,
    /// Whom it has asked to lead instead.
    pub(crate) successor: Option<NodeId>,
    /// Set when it must step down.
    pub(crate) over: bool,
}

impl Leader {
    /// A leader of what was recovered.
    pub(crate) fn new(
        now: Instant,
        ballot: Ballot,
        seq: u64,
        config: Config,
        roster: Roster,
        table: BTreeMap<Key, Held>,
    ) -> Self {
        Self {
            ballot,
            seq,
            keys: Keys::new(&roster, table),
            config,
            roster,
            proposal: None,
            drain: None,
            work: BTreeMap::new(),
            flights: BTreeSet::new(),
            ready: BTreeSet::new(),
            queued: 0,
            serving: 0,
            reads: Reads::default(),
            audits: Audits::default(),
            heartbeat_at: now,
            contact_at: now,
            joint_at: now,
            reconfigure_after: now,
            transfer: Transfer::default(),
            full: Nodes::default(),
            goes: false,
            successor: None,
            over: false,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.proposal.is_none()
    }

    /// Whether something may be begun.
    pub(crate) const fn may_begin(&self) -> bool {
        self.proposal.is_none() && self.drain.is_none()
    }

    pub(crate) const fn next_version(&mut self) -> Version {
        self.seq += 1;
        Version { ballot: self.ballot, seq: self.seq }
    }

    pub(crate) fn request(&mut self, context: &mut Context<'_>, id: RequestId, request: Request) {
        if self.queued + self.serving + self.reads.len() >= context.settings.queue {
            return context.reply(id, Err(Refusal::Busy), None);
        }
        let Request { key, op, operation } = request;
        let confirmed = |key| self.keys.get(key).is_none_or(|held| held.confirmed);
        // A read need not wait for a write on its way: whoever sent that has no answer yet.
        if operation.is_read() && self.is_open() && confirmed(&key) {
            return self.read(context, id, key, operation);
        }
        self.submit(context, key, Task::Request { id, op, operation });
    }

    /// Whether a node has a say in what this leader does.
    pub(crate) fn counts_on(&self, node: NodeId) -> bool {
        let proposed = self.proposal.as_ref().is_some_and(|proposal| proposal.config.audience().contains(&node));
        proposed || self.roster.seat(node).is_some()
    }

    /// Whether a quorum has room for writes.
    pub(crate) fn is_writable(&self, rules: Rules) -> bool {
        self.full.is_empty() || self.roster.quorum(self.roster.all().without(self.full), rules)
    }

    /// A member took nothing in for want of room.
    pub(crate) fn refused_for_room(&mut self, context: &mut Context<'_>, from: NodeId) {
        let sent = |seat| !self.flights.is_empty() || self.transfer.waits_for(seat);
        if self.proposal.is_some() || self.roster.seat(from).is_some_and(sent) {
            self.note_room(context, from, true);
        }
    }

    /// A member tells whether its disk has no room.
    pub(crate) fn note_room(&mut self, context: &mut Context<'_>, from: NodeId, full: bool) {
        let Some(seat) = self.roster.seat(from).filter(|seat| self.full.contains(*seat) != full) else { return };
        if full {
            self.full.insert(seat);
        } else {
            self.full.remove(seat);
        }
        if !self.is_writable(context.rules) {
            self.answer_writers(context);
        }
    }

    /// The configuration in force is another one from now on.
    pub(crate) fn adopt(&mut self, config: Config) {
        let roster = Roster::new(&config);
        self.keys.move_to(&self.roster, &roster);
        for flight in self.work.values_mut().filter_map(|work| work.flight.as_mut()) {
            flight.acks = self.roster.moved(flight.acks, &roster);
        }
        self.transfer.start_over(Version { ballot: self.ballot, seq: self.seq });
        self.audits.start_over();
        self.full = self.roster.moved(self.full, &roster);
        (self.config, self.roster) = (config, roster);
    }

    /// L6: what was begun may or may not come to pass; what was not, does not.
    pub(crate) fn close(self, outbox: &mut Outbox) {
        let members: Vec<NodeId> = self.roster.nodes().to_vec();
        let not_begun = match self.successor {
            Some(successor) => Refusal::Redirect { leader: Some(successor), members, version: self.config.version },
            None => Refusal::Unavailable,
        };
        let mut refuse = |id, refusal| outbox.push(Output::Reply { id, reply: Err(refusal), rests_on: None });
        for work in self.work.into_values() {
            if let Some(waiter) = work.flight.and_then(|flight| flight.waiter) {
                let (id, refusal) = waiter.fate_unknown();
                refuse(id, refusal);
            }
            for task in work.queue {
                if let Task::Request { id, .. } = task {
                    refuse(id, not_begun.clone());
                }
            }
        }
        for id in self.reads.into_ids() {
            refuse(id, not_begun.clone());
        }
    }
}
