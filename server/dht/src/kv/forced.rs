//! What an operator does about a slot whose majority is gone for good: one member that is left goes on alone.
//!
//! Nothing in the protocol does this by itself, because nobody can tell machines that are gone from machines that are out
//! of reach. What was acknowledged while this member was not among the majority is lost. The others must never come back
//! with the disks that they had: two of them are a majority of the old members and could go on as such.

use crate::kv::{Config, Entry, Member, Slot};
use crate::{Ballot, Instant, Version};

impl Slot {
    /// Whether this node may be told to go on alone: it is a member that has lost nothing, and nobody leads.
    pub fn may_be_forced(&self, now: Instant) -> bool {
        self.is_member() && self.acceptor.is_whole() && self.is_adrift(now)
    }

    /// Makes this node the only member. It keeps what it has, since its membership has no break, and leads at once.
    pub(crate) fn force(&mut self, now: Instant) {
        let durable = self.state();
        let highest = self.counter_seen.max(durable.promise.counter);
        let (Some(counter), Some(since)) = (highest.checked_add(1), durable.tenure) else { return };
        if !self.may_be_forced(now) || durable.config.nodes().len() == 1 {
            return;
        }
        let ballot = Ballot { counter, node: self.me };
        let version = Version { ballot, seq: durable.seq.max(durable.config.version.seq).saturating_add(1) };
        let old = vec![Member { node: self.me, since }];
        self.acceptor.append(Entry::Promise(ballot), &mut self.outbox);
        let config = Config { version, old, ..Config::default() };
        self.acceptor.append(Entry::Config { config, chosen: true }, &mut self.outbox);
        self.campaign(now, None);
    }
}
