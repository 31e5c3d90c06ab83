//! What a leader does at every heartbeat: asks, sends again, rewrites, lets leases end, purges (rules G1 and G2). It looks
//! only at keys that something is to be done to, so that a slot at rest costs the same however many keys it has.

use std::time::Duration;

use crate::kv::keys::Held;
use crate::kv::leader::{Context, Leader};
use crate::kv::writing::Task;
use crate::kv::{Key, Message, Rule};
use crate::{Instant, Version};

/// The next time at which the hearts of all slots of a node beat: their messages then go together.
pub(crate) fn next_beat(now: Instant, heartbeat: Duration) -> Instant {
    let span = u64::try_from(heartbeat.as_micros()).unwrap_or(u64::MAX).max(1);
    Instant::from_micros((now.as_micros() / span).saturating_add(1).saturating_mul(span))
}

impl Leader {
    pub(crate) fn upkeep(&mut self, context: &mut Context<'_>) {
        self.heartbeat_at = next_beat(context.now, context.settings.heartbeat);
        if context.now.since(self.contact_at) >= context.settings.step_down {
            self.over = true;
            return;
        }
        self.ask_round(context);
        self.send_again(context);
        if self.is_open() && self.drain.is_none() && self.is_writable(context.rules) {
            self.end_leases(context);
            self.purge(context);
            self.audit(context);
        }
    }

    /// G1: what is on its way goes again to whoever has not answered, and what is settled to whoever lacks it.
    fn send_again(&mut self, context: &mut Context<'_>) {
        self.propose_again(context);
        for (key, flight) in self.flying() {
            self.send_flight(context, key, flight);
        }
        self.transfer.start_over(Version { ballot: self.ballot, seq: self.seq });
        self.send_lacking(context);
    }

    fn end_leases(&mut self, context: &mut Context<'_>) {
        let over = self.keys.leases_over(context.now).filter(|key| !self.work.contains_key(*key));
        let lease = |key: &Key| self.keys.get(key).and_then(|held| held.register.lease()).map(|lease| lease.token);
        let over: Vec<(Key, u64)> = over.filter_map(|key| lease(key).map(|token| (key.clone(), token))).collect();
        for (key, token) in over {
            self.submit(context, key, Task::Expire { token });
        }
    }

    /// G2. A tombstone goes when every member has it. Whoever drops it remembers its version, and from then on takes
    /// nothing older in for a key it does not hold: so nothing that is on its way, or that a member lacks, may be older.
    fn purge(&mut self, context: &mut Context<'_>) {
        let strict = context.rules.keeps(Rule::PurgeAtAll);
        if !self.config.is_stable() || (strict && !self.keys.all_fresh()) {
            return;
        }
        let flying = self.flights.first().map(|seq| Version { ballot: self.ballot, seq: *seq });
        let oldest = flying.into_iter().chain(self.keys.oldest_lacked()).min();
        let everywhere = |held: &Held| {
            let members = self.roster.all();
            if strict {
                members.without(held.holders).is_empty()
            } else {
                self.roster.quorum(held.holders, context.rules)
            }
        };
        let old_enough = |touched: &Instant| context.now.since(*touched) >= context.settings.purge_after;
        let due = self.keys.tombstones().take_while(|(touched, _)| old_enough(touched)).map(|(_, key)| key);
        let due = due.filter_map(|key| self.keys.get(key).map(|held| (key, held)));
        let due = due.filter(|(key, held)| everywhere(held) && !self.work.contains_key(*key));
        let due = due.filter(|(_, held)| !strict || oldest.is_none_or(|oldest| held.version < oldest));
        let due: Vec<(Key, Version)> = due.map(|(key, held)| (key.clone(), held.version)).collect();
        for (key, version) in due {
            self.keys.remove(&key);
            self.audits.moves += 1;
            for node in self.roster.nodes() {
                let (ballot, key) = (self.ballot, key.clone());
                context.outbox.send(*node, Message::Purge { ballot, key, version });
            }
        }
    }
}
