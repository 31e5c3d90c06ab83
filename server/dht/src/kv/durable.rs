//! What a member must find again after a crash: a fold over the entries of its log.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kv::{Config, Digest, Key, Register, Rule, Rules};
use crate::{Ballot, NodeId, Version};

/// One record of a member's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Entry {
    /// No lower ballot will be listened to.
    Promise(Ballot),
    /// A value was accepted.
    Accept {
        /// Of which key.
        key: Key,
        /// Which value of the key.
        version: Version,
        /// The value.
        register: Arc<Register>,
    },
    /// A configuration was accepted.
    Config {
        /// The configuration.
        config: Config,
        /// Whether a quorum is known to have accepted it.
        chosen: bool,
    },
    /// A value that had been accepted can no longer be read from the disk.
    Lost {
        /// Of which key.
        key: Key,
        /// Which value of the key.
        version: Version,
    },
    /// A tombstone was dropped.
    Purge {
        /// Of which key.
        key: Key,
        /// Which value of the key.
        version: Version,
    },
}

/// Values of keys.
pub type Registers = BTreeMap<Key, (Version, Arc<Register>)>;

/// The state of a member, as its log tells it.
#[derive(Clone, Debug)]
pub struct Durable {
    node: NodeId,
    rules: Rules,
    /// No lower ballot is listened to.
    pub promise: Ballot,
    /// The newest configuration accepted.
    pub config: Config,
    /// Whether that configuration is known to be chosen.
    pub chosen: bool,
    /// Since when the node has been a member without a break, or none.
    pub tenure: Option<Version>,
    /// What is held of each key.
    pub registers: Registers,
    /// The same in a few bytes.
    pub digest: Digest,
    /// What was accepted and is lost, until it or something newer is accepted again.
    pub lost: BTreeMap<Key, Version>,
    /// The highest place of any value ever held.
    pub seq: u64,
    /// Of keys that are not held, nothing up to this version is accepted: it was wiped or purged.
    pub mark: Version,
}

/// What a member has beside its registers: each is as in [`Durable`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Meta {
    /// No lower ballot is listened to.
    pub promise: Ballot,
    /// The newest configuration accepted.
    pub config: Config,
    /// Whether that configuration is known to be chosen.
    pub chosen: bool,
    /// Since when the node has been a member without a break, or none.
    pub tenure: Option<Version>,
    /// What was accepted and is lost, until it or something newer is accepted again.
    pub lost: BTreeMap<Key, Version>,
    /// The highest place of any value ever held.
    pub seq: u64,
    /// Of keys that are not held, nothing up to this version is accepted.
    pub mark: Version,
}

impl Durable {
    /// The state of a node that has never heard of the slot.
    pub fn new(node: NodeId, rules: Rules) -> Self {
        Self {
            node,
            rules,
            promise: Ballot::default(),
            config: Config::default(),
            chosen: true,
            tenure: None,
            registers: BTreeMap::new(),
            digest: Digest::default(),
            lost: BTreeMap::new(),
            seq: 0,
            mark: Version::default(),
        }
    }

    /// The state of a member, as a snapshot tells it; its registers come by [`Durable::hold`].
    pub fn restore(node: NodeId, rules: Rules, meta: Meta) -> Self {
        let Meta { promise, config, chosen, tenure, lost, seq, mark } = meta;
        Self { promise, config, chosen, tenure, lost, seq, mark, ..Self::new(node, rules) }
    }

    /// Takes in a register of a snapshot.
    pub fn hold(&mut self, key: Key, version: Version, register: Arc<Register>) {
        self.apply(&Entry::Accept { key, version, register });
    }

    /// What there is beside the registers.
    pub fn meta(&self) -> Meta {
        Meta {
            promise: self.promise,
            config: self.config.clone(),
            chosen: self.chosen,
            tenure: self.tenure,
            lost: self.lost.clone(),
            seq: self.seq,
            mark: self.mark,
        }
    }

    /// Takes one entry in.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Promise(ballot) => self.promise = self.promise.max(*ballot),
            Entry::Accept { key, version, register } => {
                if let Some((known, _)) = self.registers.insert(key.clone(), (*version, Arc::clone(register))) {
                    self.digest.remove(key, known);
                }
                self.digest.add(key, *version);
                self.lost.remove(key);
                self.seq = self.seq.max(version.seq);
            }
            Entry::Config { config, chosen } => {
                self.config = config.clone();
                self.chosen = *chosen;
                self.settle_tenure();
            }
            Entry::Lost { key, version } => {
                if let Some((known, _)) = self.registers.remove(key) {
                    self.digest.remove(key, known);
                }
                self.lost.insert(key.clone(), *version);
            }
            Entry::Purge { key, version } => {
                self.lost.remove(key);
                if let Some((known, _)) = self.registers.remove(key) {
                    self.digest.remove(key, known);
                }
                if self.rules.keeps(Rule::PurgeMark) {
                    self.mark = self.mark.max(*version);
                }
            }
        }
    }

    /// A3: takes a value in as [`Self::apply`] does, but only a newer one than is held or was. Says how it stands to that.
    pub(crate) fn accept(&mut self, key: &Key, version: Version, register: &Arc<Register>) -> Ordering {
        match self.registers.get_mut(key) {
            Some(held) if held.0 < version => {
                self.digest.replace(key, held.0, version);
                *held = (version, Arc::clone(register));
                self.seq = self.seq.max(version.seq);
                Ordering::Greater
            }
            Some((held, _)) => version.cmp(held),
            None if version <= self.mark => Ordering::Less,
            None if self.lost.get(key).is_some_and(|lost| version < *lost) => Ordering::Less,
            None => {
                self.apply(&Entry::Accept { key: key.clone(), version, register: Arc::clone(register) });
                Ordering::Greater
            }
        }
    }

    /// A6: what was kept from another tenure goes. Who is out wipes its keys only when it knows so, because a
    /// configuration that was merely accepted may be undone, and then its keys are needed.
    fn settle_tenure(&mut self) {
        let since = self.config.since(self.node);
        if since == self.tenure {
            return;
        }
        let known_out = self.config.is_stable() && (self.chosen || !self.rules.keeps(Rule::WipeWhenChosen));
        if since.is_some() || known_out {
            if self.rules.keeps(Rule::Tenure) {
                self.registers.clear();
                self.lost.clear();
                self.digest = Digest::default();
                // Whatever was written since it was admitted is for it, however late it hears of that.
                self.mark = self.mark.max(since.unwrap_or(self.config.version));
            }
            self.tenure = since;
        }
    }
}
