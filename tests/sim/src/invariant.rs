//! What must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use specter_dht::kv::{Answer, Config, Entry, Key, Operation};
use specter_dht::{NodeId, Version};

use crate::Violation;
use crate::machine::Machine;
use crate::tally::Trace;

/// Of a lease's time, the share its holder counts on, in percent: clocks run at most five percent fast or slow.
const HOLD_PERCENT: u64 = 88;

#[derive(Debug)]
struct Grant {
    token: u64,
    owner: u64,
    ttl_micros: u64,
    /// Until when the holder counts on it, in true time.
    until: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    values: BTreeMap<(Key, Version), u64>,
    purged: BTreeMap<Key, Version>,
    /// The newest grants of each lease, and the highest token of all by the time it was answered.
    grants: BTreeMap<Key, Grant>,
    fences: BTreeMap<Key, (u64, u64)>,
    tokens: BTreeMap<Key, (u64, u64)>,
}

impl Invariants {
    /// A node writes to its log: its promise must not fall, and a version names one value.
    pub(crate) fn appended(&mut self, machine: &Machine, entry: &Entry) -> Result<(), Violation> {
        match entry {
            Entry::Promise(ballot) if *ballot < machine.image.promise => {
                let (node, held) = (machine.id, machine.image.promise);
                Err(Violation::PromiseFell(format!("{node} promised {ballot} after {held}")))
            }
            Entry::Promise(_) | Entry::Config { .. } | Entry::Lost { .. } => Ok(()),
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
    pub(crate) fn started(machine: &Machine) -> Result<(), Violation> {
        let Some(slot) = &machine.slot else { return Ok(()) };
        let (promise, image) = (slot.state().promise, machine.image.promise);
        if promise < image {
            return Err(Violation::PromiseFell(format!(
                "{} started with {promise}, its disk says {image}",
                machine.id
            )));
        }
        Ok(())
    }

    /// A leader answers: what its answer rests on must be on the disks of a quorum.
    pub(crate) fn answered(
        &self,
        machines: &BTreeMap<NodeId, Machine>,
        config: &Config,
        key: &Key,
        version: Version,
    ) -> Result<(), Violation> {
        if self.purged.get(key).is_some_and(|purged| *purged >= version) {
            return Ok(());
        }
        // What one disk has lost is within what the slot must bear.
        let lost = |machine: &Machine| machine.image.lost.get(key).copied();
        let held = |machine: &Machine| machine.image.registers.get(key).map(|(held, _)| *held).or(lost(machine));
        let holds = |machine: &&Machine| held(machine).is_some_and(|held| held >= version);
        let holders: BTreeSet<NodeId> = machines.values().filter(holds).map(|machine| machine.id).collect();
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
    pub(crate) fn synced(machine: &Machine) -> Result<(), Violation> {
        let image = &machine.image;
        let out = image.chosen && image.config.is_stable() && !image.config.contains(machine.id);
        if out && !image.registers.is_empty() {
            return Err(Violation::Retired(format!("{} is out and keeps {} keys", machine.id, image.registers.len())));
        }
        Ok(())
    }

    /// A client gives a lease back: from now on it does not count on it.
    pub(crate) fn releasing(&mut self, key: &Key, token: u64, time: u64) {
        if let Some(grant) = self.grants.get_mut(key).filter(|grant| grant.token == token) {
            grant.until = grant.until.min(time);
        }
    }

    /// A client has an answer about a lease, or about a write under one.
    pub(crate) fn lease_answered(
        &mut self,
        owner: u64,
        key: &Key,
        operation: &Operation,
        answer: &Answer,
        (called, time): (u64, u64),
    ) -> Result<(), Violation> {
        if let (Operation::Acquire { ttl, .. }, Answer::Granted(token)) = (operation, answer) {
            // The operation may have been done by its first copy, so its time counts from the first.
            let ttl_micros = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
            let until = called + ttl_micros * HOLD_PERCENT / 100;
            return self.granted(key, Grant { token: *token, owner, ttl_micros, until }, called, time);
        }
        if let (Operation::Renew { token }, Answer::Done) = (operation, answer)
            && let Some(grant) = self.grants.get_mut(key).filter(|grant| grant.token == *token)
        {
            grant.until = grant.until.max(called + grant.ttl_micros * HOLD_PERCENT / 100);
        }
        if let (Operation::Put { fence: Some(fence), .. }, Answer::Done) = (operation, answer) {
            let (highest, at) = self.fences.entry(key.clone()).or_default();
            if *at < called && fence.token < *highest {
                let text = format!("a write under token {} follows one under {highest}", fence.token);
                return Err(Violation::StaleFence(text));
            }
            if fence.token > *highest {
                (*highest, *at) = (fence.token, time);
            }
        }
        Ok(())
    }

    fn granted(&mut self, key: &Key, grant: Grant, called: u64, time: u64) -> Result<(), Violation> {
        let (token, owner, until) = (grant.token, grant.owner, grant.until);
        if let Some((highest, at)) = self.tokens.get(key)
            && *at < called
            && token <= *highest
        {
            return Err(Violation::TokenFell(format!("token {token} of {key:?} follows {highest}")));
        }
        let other = self.grants.get(key).filter(|other| other.owner != owner && other.until > time);
        if let Some(other) = other.filter(|_| until > time) {
            let (first, ends) = (other.owner, other.until);
            let text = format!("client {first} holds {key:?} until {ends}, client {owner} from {time}");
            return Err(Violation::TwoHolders(text));
        }
        if self.tokens.get(key).is_none_or(|(highest, _)| token > *highest) {
            self.tokens.insert(key.clone(), (token, time));
            self.grants.insert(key.clone(), grant);
        }
        Ok(())
    }
}
