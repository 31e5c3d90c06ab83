//! What must hold of one slot at every moment, whoever its members are.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use specter_dht::kv::{Config, Durable, Entry, Key};
use specter_dht::{NodeId, Version};

use crate::Violation;
use crate::tally::Trace;

/// What was seen of one slot so far.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    values: BTreeMap<(Key, Version), u64>,
    purged: BTreeMap<Key, Version>,
    /// Every configuration that some node knows to be chosen.
    chosen: BTreeMap<Version, Config>,
}

impl Invariants {
    /// Of a slot that begins with this configuration.
    pub(crate) fn founded(config: Config) -> Self {
        Self { chosen: BTreeMap::from([(config.version, config)]), ..Self::default() }
    }

    /// Every configuration that some node knows to be chosen.
    pub(crate) const fn chosen(&self) -> &BTreeMap<Version, Config> {
        &self.chosen
    }

    /// A node writes to its log, whose synced part comes to `image`: its promise must not fall, a version names one value,
    /// and one configuration.
    pub(crate) fn appended(&mut self, node: NodeId, image: &Durable, entry: &Entry) -> Result<(), Violation> {
        match entry {
            Entry::Promise(ballot) if *ballot < image.promise => {
                Err(Violation::PromiseFell(format!("{node} promised {ballot} after {}", image.promise)))
            }
            Entry::Promise(_) | Entry::Config { chosen: false, .. } => Ok(()),
            Entry::Config { config, chosen: true } => {
                let known = self.chosen.entry(config.version).or_insert_with(|| config.clone());
                let text = || format!("two configurations are chosen as {}: {known:?} and {config:?}", config.version);
                if known == config { Ok(()) } else { Err(Violation::TwoValues(text())) }
            }
            Entry::Accept { key, version, register } => {
                let mut hash = Trace::default();
                hash.feed(register);
                let value = hash.finish();
                let known = *self.values.entry((key.clone(), *version)).or_insert(value);
                let same = known == value;
                if same { Ok(()) } else { Err(Violation::TwoValues(format!("two values of {key:?} at {version}"))) }
            }
            Entry::Purge { key, version } => {
                let highest = self.purged.entry(key.clone()).or_default();
                *highest = version.max(highest).to_owned();
                Ok(())
            }
        }
    }

    /// A node has started again: what it knows must not be less than its disk does.
    pub(crate) fn started(node: NodeId, state: &Durable, image: &Durable) -> Result<(), Violation> {
        if state.promise < image.promise {
            let (promise, kept) = (state.promise, image.promise);
            return Err(Violation::PromiseFell(format!("{node} started with {promise}, its disk says {kept}")));
        }
        Ok(())
    }

    /// A leader answers in a configuration: what its answer rests on must be on the disks of a quorum. `image` is what a
    /// node's disk holds, or held when it was lost.
    pub(crate) fn answered<'a>(
        &self,
        image: impl Fn(NodeId) -> Option<&'a Durable>,
        config: &Config,
        key: &Key,
        version: Version,
    ) -> Result<(), Violation> {
        if self.purged.get(key).is_some_and(|purged| *purged >= version) {
            return Ok(());
        }
        // A late answer of a leader that was replaced is a true one: by now others hold what it rests on.
        let newest = self.chosen.values().next_back();
        let config = newest.filter(|newest| newest.version > config.version).unwrap_or(config);
        let holds = |node: &NodeId| {
            let held = image(*node).and_then(|image| image.registers.get(key));
            held.is_some_and(|(held, _)| *held >= version)
        };
        let holders: BTreeSet<NodeId> = config.nodes().into_iter().filter(holds).collect();
        // What was written before a joint configuration reaches its new side with the transfer.
        let new = config.new.as_ref().filter(|_| version > config.version);
        let sides = std::iter::once(&config.old).chain(new);
        for side in sides {
            let have = side.iter().filter(|member| holders.contains(&member.node)).count();
            if have * 2 <= side.len() {
                let text = format!("an answer on {key:?} rests on {version}, which {have} of {} hold", side.len());
                return Err(Violation::NotDurable(text));
            }
        }
        Ok(())
    }

    /// A node's disk says that it is out: it must hold nothing.
    pub(crate) fn synced(node: NodeId, image: &Durable) -> Result<(), Violation> {
        let out = image.chosen && image.config.is_stable() && !image.config.contains(node);
        if out && !image.registers.is_empty() {
            return Err(Violation::Retired(format!("{node} is out and keeps {} keys", image.registers.len())));
        }
        Ok(())
    }
}
