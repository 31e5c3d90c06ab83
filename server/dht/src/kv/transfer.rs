//! How values get to members that lack them: as many bytes at a time as a window has room for, and on as answers come.
//! Clients never wait for it: what they ask is begun at once.

use std::collections::BTreeMap;

use crate::Version;
use crate::kv::Key;
use crate::kv::leader::{Context, Leader};
use crate::kv::writing::Task;

/// What is on its way for no client's sake.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Transfer {
    /// The key that was last written again for being stale: the next one comes after it. None: from the first.
    refreshed: Option<Key>,
    /// The bytes of such writes on their way.
    pub(crate) refreshing: usize,
    /// The settled values that were sent again and are not answered, by member, and how large they are.
    sent: BTreeMap<(u32, Version), usize>,
    sent_bytes: usize,
    /// Of each member, up to which version it was sent again what it lacks.
    sent_up_to: BTreeMap<u32, Version>,
    /// What is newer than this is not sent again yet: the first answer may still come.
    until: Version,
}

impl Transfer {
    fn has_room(&self, size: usize, window: usize) -> bool {
        let busy = self.refreshing + self.sent_bytes;
        busy == 0 || busy + size <= window
    }

    /// From here on everything up to `until` is sent again that is not answered.
    pub(crate) fn start_over(&mut self, until: Version) {
        let refreshing = self.refreshing;
        *self = Self { refreshing, until, ..Self::default() };
    }

    /// Whether a member was sent something again that it has not answered.
    pub(crate) fn waits_for(&self, seat: u32) -> bool {
        self.sent.keys().any(|(to, _)| *to == seat)
    }

    /// A member has answered.
    pub(crate) fn answered(&mut self, seat: u32, version: Version) {
        if let Some(size) = self.sent.remove(&(seat, version)) {
            self.sent_bytes -= size;
        }
    }
}

impl Leader {
    /// Writes keys again that are not fresh: values of earlier leaders, and in a joint configuration everything.
    pub(crate) fn refresh_stale(&mut self, context: &mut Context<'_>) {
        if !self.is_writable(context.rules) {
            return;
        }
        while let Some(key) = self.keys.stale_after(self.transfer.refreshed.as_ref()) {
            let size = self.keys.get(key).map_or(0, |held| held.size(key));
            if !self.transfer.has_room(size, context.settings.transfer_bytes) {
                return;
            }
            let key = key.clone();
            self.transfer.refreshed = Some(key.clone());
            if !self.work.contains_key(&key) {
                self.submit(context, key, Task::Refresh { size });
            }
        }
    }

    /// G1: sends settled values to members that lack them. What is not fresh is written anew before long; a new member
    /// would refuse it as it is.
    pub(crate) fn send_lacking(&mut self, context: &mut Context<'_>) {
        let window = context.settings.transfer_bytes;
        for (seat, node) in (0..).zip(self.roster.nodes()) {
            if !self.reads.is_near(*node) || self.full.contains(seat) {
                continue;
            }
            let until = self.transfer.until;
            let from = |transfer: &Transfer| transfer.sent_up_to.get(&seat).copied();
            while let Some((version, key)) = self.keys.lacked_by(seat, from(&self.transfer), until) {
                let idle = !self.work.contains_key(key);
                if let Some(held) = self.keys.get(key).filter(|_| idle) {
                    let size = held.size(key);
                    if !self.transfer.has_room(size, window) {
                        return;
                    }
                    self.transfer.sent.insert((seat, version), size);
                    self.transfer.sent_bytes += size;
                    self.send_accept(context, *node, key, version, &held.register);
                }
                self.transfer.sent_up_to.insert(seat, version);
            }
        }
    }
}
