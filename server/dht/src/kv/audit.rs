//! How a leader finds out that a member does not hold what it is thought to hold (rule G1): because a record of its disk
//! went bad, or because it has missed that a key was dropped.
//!
//! Every answer to a heartbeat tells in a few bytes what the member holds. When nothing has moved since the question, that
//! must be what the leader has settled; if it is not, or if the slot never rests for long, the leader has the member list
//! its versions and sends what it lacks. Nothing here is a matter of safety: to think that a member lacks what it holds
//! costs a message, and what a member is thought to hold was on its disk when it said so.

use std::collections::BTreeMap;

use crate::kv::leader::{Context, Leader};
use crate::kv::limits::KEYS_MAX;
use crate::kv::writing::Task;
use crate::kv::{Digest, Key, Message};
use crate::{Instant, NodeId, Version};

/// How many heartbeats a list may take without a step forward.
const PATIENCE: u32 = 5;

/// What is known of what members really hold.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Audits {
    /// Grows with whatever a member should take notice of.
    pub(crate) moves: u64,
    /// The newest question and how much had moved by then.
    asked: (u64, u64),
    /// By when what each member holds must have been found to be right, or it lists all of it.
    due_at: BTreeMap<NodeId, Instant>,
    listing: Option<Listing>,
}

/// A member that is listing what it holds.
#[derive(Clone, Debug, Hash)]
struct Listing {
    node: NodeId,
    after: Option<Key>,
    keys: u64,
    /// Heartbeats since the last part of the list.
    waited: u32,
}

impl Audits {
    /// The members are others from now on.
    pub(crate) fn start_over(&mut self) {
        *self = Self { moves: self.moves + 1, ..Self::default() };
    }

    pub(crate) const fn asked(&mut self, round: u64) {
        self.asked = (round, self.moves);
    }

    /// A member was away: what it holds now is to be looked at soon.
    pub(crate) fn doubt(&mut self, node: NodeId, soon: Instant) {
        self.due_at.entry(node).and_modify(|due| *due = soon.min(*due));
    }
}

impl Leader {
    /// Compares what a member holds with what it should.
    pub(crate) fn compare(&mut self, context: &mut Context<'_>, from: NodeId, round: u64, digest: Option<Digest>) {
        let Some(seat) = self.roster.seat(from) else { return };
        let moved = self.audits.asked != (round, self.audits.moves);
        let settled = self.is_open() && self.config.is_stable() && self.flights.is_empty() && self.keys.all_fresh();
        if moved || !settled || self.keys.lacks(seat) > 0 || self.full.contains(seat) {
            return;
        }
        if digest == Some(self.keys.digest()) {
            self.audits.due_at.insert(from, context.now + context.settings.audit_after);
        } else {
            self.list(context, from);
        }
    }

    fn list(&mut self, context: &mut Context<'_>, node: NodeId) {
        if self.audits.listing.is_none() {
            self.audits.listing = Some(Listing { node, after: None, keys: 0, waited: 0 });
            context.outbox.send(node, Message::List { ballot: self.ballot, after: None });
        }
    }

    /// At every heartbeat: asks again for what was lost, and for a list of whoever was not compared for long.
    pub(crate) fn audit(&mut self, context: &mut Context<'_>) {
        if let Some(listing) = &mut self.audits.listing {
            listing.waited += 1;
            let (node, after) = (listing.node, listing.after.clone());
            if listing.waited > PATIENCE {
                self.audits.listing = None;
            } else {
                context.outbox.send(node, Message::List { ballot: self.ballot, after });
            }
            return;
        }
        if !self.is_open() || !self.config.is_stable() || !self.keys.all_fresh() {
            return;
        }
        let (due_at, later) = (&mut self.audits.due_at, context.now + context.settings.audit_after);
        let overdue = |node: &&NodeId| {
            let due = *due_at.entry(**node).or_insert(later);
            self.reads.is_near(**node) && due <= context.now
        };
        if let Some(node) = self.roster.nodes().iter().find(overdue).copied() {
            self.list(context, node);
        }
    }

    /// A member has listed a part of what it holds.
    pub(crate) fn listed(
        &mut self,
        context: &mut Context<'_>,
        from: NodeId,
        after: Option<&Key>,
        versions: &[(Key, Version)],
        more: bool,
    ) {
        let Some(seat) = self.roster.seat(from) else { return };
        let asked = |listing: &&mut Listing| listing.node == from && listing.after.as_ref() == after;
        let Some(listing) = self.audits.listing.as_mut().filter(asked) else { return };
        listing.keys += versions.len() as u64;
        listing.waited = 0;
        let order = versions.iter().map(|(key, _)| Some(key));
        let in_order = std::iter::once(after).chain(order).is_sorted_by(|one, other| one < other);
        if !in_order || listing.keys > KEYS_MAX || (more && versions.is_empty()) {
            self.audits.listing = None;
            return;
        }
        let last = versions.last().map(|(key, _)| key.clone()).filter(|_| more);
        let unlisted = |key: &Key| versions.binary_search_by(|(listed, _)| listed.cmp(key)).is_err();
        for key in self.keys.between(after, last.as_ref()).filter(|key| unlisted(key)).cloned().collect::<Vec<_>>() {
            self.keys.miss(&key, seat);
        }
        for (key, version) in versions.iter().filter(|(key, _)| !self.work.contains_key(key)).collect::<Vec<_>>() {
            match self.keys.get(key).map(|held| held.version) {
                // It has missed that the key was dropped, or has what nobody else ever had: the key is dropped anew.
                None => self.submit(context, key.clone(), Task::Bury),
                Some(held) if *version < held => self.keys.miss(key, seat),
                Some(held) if *version == held => self.keys.hold(key, held, seat),
                // What an earlier leader did not bring to its end: this leader's value must get above it.
                Some(_) if version.ballot < self.ballot => self.keys.distrust(key),
                Some(_) => {}
            }
        }
        let Some(listing) = &mut self.audits.listing else { return };
        if let Some(last) = last {
            listing.after = Some(last.clone());
            context.outbox.send(from, Message::List { ballot: self.ballot, after: Some(last) });
        } else {
            self.audits.listing = None;
            self.audits.due_at.insert(from, context.now + context.settings.audit_after);
        }
    }
}
