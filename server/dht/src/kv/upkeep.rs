//! What a leader does at every heartbeat: asks, sends again, rewrites, lets leases end, purges (rules G1 and G2).

use std::collections::BTreeSet;

use crate::kv::leader::{Context, Held, Leader, Task};
use crate::kv::{Key, Message, Rule};
use crate::{Instant, NodeId};

impl Leader {
    pub(crate) fn upkeep(&mut self, context: &mut Context<'_>, wanted: Option<&(Vec<NodeId>, Instant)>) {
        self.heartbeat_at = context.now + context.settings.heartbeat;
        if context.now.since(self.contact_at) >= context.settings.step_down {
            self.over = true;
            return;
        }
        self.ask_round(context);
        self.send_again(context);
        self.reconsider(context, wanted);
        if self.is_open() && self.drain.is_none() {
            self.end_leases(context);
            self.refresh_stale(context);
            self.purge(context);
        }
    }

    /// G1: what is on its way goes again to whoever has not answered, and some of what is settled to whoever lacks it.
    fn send_again(&self, context: &mut Context<'_>) {
        self.propose_again(context);
        let members = self.config.nodes();
        let mut left = context.settings.transfer_window;
        for (key, held) in &self.keys {
            let Some(flight) = &held.flight else {
                // What is not fresh is written anew before long; a new member would refuse it as it is.
                if held.version.is_some() && self.is_fresh(key) {
                    for node in members.difference(&held.holders).filter(|node| self.reads.is_near(**node)).take(left) {
                        left -= 1;
                        self.send_accept(context, key, *node);
                    }
                }
                continue;
            };
            for node in members.difference(&flight.acks) {
                self.send_accept(context, key, *node);
            }
        }
    }

    fn end_leases(&mut self, context: &Context<'_>) {
        let over: Vec<(Key, u64)> = self
            .keys
            .iter()
            .filter(|(_, held)| held.queue.is_empty() && held.lease_until.is_some_and(|until| until <= context.now))
            .filter_map(|(key, held)| held.register.lease().map(|lease| (key.clone(), lease.token)))
            .collect();
        for (key, token) in over {
            self.enqueue(context.now, key, Task::Expire { token });
        }
    }

    /// Whether the settled value of a key was written by this leader in this configuration.
    pub(crate) fn is_fresh(&self, key: &Key) -> bool {
        self.keys.get(key).is_some_and(|held| {
            let in_time = self.config.is_stable() || held.version.is_some_and(|version| version > self.config.version);
            held.confirmed && in_time
        })
    }

    /// Writes some keys again that are not fresh: values of earlier leaders, and in a joint configuration everything.
    pub(crate) fn refresh_stale(&mut self, context: &Context<'_>) {
        let free = context.settings.transfer_window.saturating_sub(self.flying.len());
        let stale = self.keys.iter().filter(|(_, held)| held.flight.is_none() && held.queue.is_empty());
        let stale: Vec<Key> = stale
            .filter(|(key, held)| held.version.is_some() && !self.is_fresh(key))
            .map(|(key, _)| key.clone())
            .take(free)
            .collect();
        for key in stale {
            self.enqueue(context.now, key, Task::Refresh);
        }
    }

    /// G2. A member's mark covers the whole slot, so a purge waits until every key is held by every member: one that
    /// lacks another key would otherwise refuse it for ever.
    fn purge(&mut self, context: &mut Context<'_>) {
        let members = self.config.nodes();
        let strict = context.rules.keeps(Rule::PurgeAtAll);
        let everywhere = |held: &Held| held.confirmed && held.flight.is_none() && held.holders.is_superset(&members);
        if !self.config.is_stable() || (strict && !self.keys.values().all(everywhere)) {
            return;
        }
        let quorum = |holders: &BTreeSet<NodeId>| self.config.quorum(holders, context.rules);
        let due = |held: &Held| {
            let settled = held.confirmed && held.flight.is_none() && held.queue.is_empty() && quorum(&held.holders);
            settled && held.register.is_tombstone() && context.now.since(held.touched) >= context.settings.purge_after
        };
        let due: Vec<Key> = self.keys.iter().filter(|(_, held)| due(held)).map(|(key, _)| key.clone()).collect();
        for key in due {
            let Some(version) = self.keys.remove(&key).and_then(|held| held.version) else { continue };
            for node in &members {
                let (ballot, key) = (self.ballot, key.clone());
                context.outbox.send(*node, Message::Purge { ballot, key, version });
            }
        }
    }
}
