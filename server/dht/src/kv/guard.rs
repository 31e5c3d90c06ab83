//! Which messages are listened to at all: who may speak for whom, and what can be true.

use crate::kv::limits::{BACKLOG_MAX, COUNTER_JUMP_MAX, KEYS_MAX, is_key, is_sound};
use crate::kv::{Config, Message, Slot};
use crate::{Ballot, NodeId, Version};

impl Message {
    /// Whether it answers another one, so that taking it in adds nothing to the log of this member.
    pub(crate) const fn is_answer(&self) -> bool {
        match self {
            Self::Promise { .. }
            | Self::Held { .. }
            | Self::Nack { .. }
            | Self::Accepted { .. }
            | Self::Behind { .. }
            | Self::Full { .. }
            | Self::ConfigAccepted { .. }
            | Self::Listed { .. }
            | Self::Confirmed { .. } => true,
            Self::Prepare { .. }
            | Self::Fetch { .. }
            | Self::List { .. }
            | Self::Accept { .. }
            | Self::AcceptConfig { .. }
            | Self::Confirm { .. }
            | Self::Purge { .. }
            | Self::Succeed { .. }
            | Self::Learn { .. } => false,
        }
    }
}

impl Slot {
    /// Whether a message keeps to the limits, and comes from whom it speaks for: who leads or wants to names itself in
    /// the ballot, and who answers repeats the ballot of this node.
    pub(crate) fn is_sound(&self, from: NodeId, message: &Message) -> bool {
        let highest = self.acceptor.durable.promise.counter.saturating_add(COUNTER_JUMP_MAX);
        let near = |ballot: Ballot| ballot.counter <= highest;
        let leads = |ballot: Ballot| ballot.node == from && near(ballot);
        let answers = |ballot: Ballot| ballot.node == self.me;
        let known = |config: &Config| config.is_none() || (config.is_sound() && near(config.version.ballot));
        let value = |version: Version, ballot: Ballot| is_sound(version) && version.ballot <= ballot;
        match message {
            Message::Prepare { ballot, .. } | Message::Confirm { ballot, .. } | Message::Succeed { ballot } => {
                leads(*ballot)
            }
            Message::Fetch { ballot, after } | Message::List { ballot, after } => {
                leads(*ballot) && after.as_ref().is_none_or(is_key)
            }
            Message::Accept { ballot, key, version, register, config } => {
                leads(*ballot) && is_key(key) && value(*version, *ballot) && value(*config, *ballot) && register.fits()
            }
            Message::AcceptConfig { ballot, config } => {
                leads(*ballot) && config.is_sound() && config.version.ballot <= *ballot
            }
            Message::Purge { ballot, key, version } => leads(*ballot) && is_key(key) && value(*version, *ballot),
            Message::Learn { config } => config.is_sound() && near(config.version.ballot),
            Message::Promise { ballot, report } => {
                let places = is_sound(report.mark) && report.seq <= crate::kv::limits::SEQ_MAX;
                answers(*ballot) && known(&report.config) && places && report.digest.keys <= KEYS_MAX
            }
            Message::Held { ballot, after, registers, .. } => {
                let fits = registers
                    .iter()
                    .all(|(key, version, register)| is_key(key) && value(*version, *ballot) && register.fits());
                let size: usize = registers.iter().map(|(key, _, register)| key.len() + register.size()).sum();
                answers(*ballot) && after.as_ref().is_none_or(is_key) && fits && size <= BACKLOG_MAX
            }
            Message::Listed { ballot, after, versions, .. } => {
                let fits = versions.iter().all(|(key, version)| is_key(key) && value(*version, *ballot));
                answers(*ballot) && after.as_ref().is_none_or(is_key) && fits && versions.len() as u64 <= KEYS_MAX
            }
            Message::Nack { ballot, promised, config, .. } => answers(*ballot) && near(*promised) && known(config),
            Message::Accepted { ballot, .. }
            | Message::Behind { ballot, .. }
            | Message::Full { ballot }
            | Message::ConfigAccepted { ballot, .. }
            | Message::Confirmed { ballot, .. } => answers(*ballot),
        }
    }
}
