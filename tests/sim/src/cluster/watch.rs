//! What must hold of every slot and of every node at every moment.

use std::collections::{BTreeMap, BTreeSet};

use specter_dht::kv::{Config, Durable, Entry, Key, Rules};
use specter_dht::{Node, NodeId, Record, SlotId, State, Version};

use super::machine::{Duty, Machine, Name};
use crate::invariant::Invariants;
use crate::{Outcome, Violation};

/// The most things a node may want done because of one input.
const OUTPUTS_MAX: usize = 50_000;

/// Every so many fsyncs of a machine, everything its node believes to have is compared with its log.
const COMPARED_EVERY: u64 = 64;

/// What was seen of all slots so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    slots: BTreeMap<SlotId, Invariants>,
    /// What disks held that were lost.
    graves: BTreeMap<NodeId, State>,
    /// Every value that was ever to be written.
    written: BTreeSet<(Key, Vec<u8>)>,
    /// What was last known for sure, once nobody writes any more.
    pub(crate) last_read: BTreeMap<Key, Option<Vec<u8>>>,
    pub(crate) most_outputs: usize,
}

impl Watch {
    /// A node writes to its log.
    pub(crate) fn appended(
        &mut self,
        machine: &Machine,
        position: u64,
        record: &Record,
        outcome: &mut Outcome,
    ) -> Result<(), Violation> {
        if position != machine.disk.position() + 1 {
            let text = format!("{} appends as {position} after {}", machine.name, machine.disk.position());
            return Err(Violation::Log(text));
        }
        match record {
            Record::Cluster { terms, founder: true } => {
                let founding = Config::founding([machine.id]);
                for slot in (0..terms.slots()).map(SlotId) {
                    let known = self.slots.entry(slot).or_insert_with(|| Invariants::founded(founding.clone()));
                    if known.chosen().values().next() != Some(&founding) {
                        return Err(Violation::TwoValues(format!("{} founds {slot:?} a second time", machine.name)));
                    }
                }
                Ok(())
            }
            Record::Slot { slot, entry } => {
                match entry {
                    Entry::Promise(ballot) if ballot.node == machine.id => outcome.count("candidacies"),
                    Entry::Lost { .. } => outcome.count("values lost"),
                    Entry::Purge { .. } => outcome.count("purges"),
                    Entry::Config { config, chosen: true } if config.is_stable() => outcome.count("members learnt"),
                    Entry::Promise(_) | Entry::Accept { .. } | Entry::Config { .. } => {}
                }
                let empty = Durable::new(machine.id, Rules::default());
                let image = machine.image.slots.get(slot).unwrap_or(&empty);
                self.slots.entry(*slot).or_default().appended(machine.id, image, entry)
            }
            Record::Cluster { founder: false, .. } | Record::Remember(_) | Record::Forget(_) => Ok(()),
        }
    }

    /// Records are on a machine's disk: who is out keeps nothing, and what the node believes to have is what its log says.
    pub(crate) fn synced(machine: &Machine, records: &[Record]) -> Result<(), Violation> {
        let slot = |record: &Record| if let Record::Slot { slot, .. } = record { Some(*slot) } else { None };
        let touched: BTreeSet<SlotId> = records.iter().filter_map(slot).collect();
        for slot in &touched {
            if let Some(image) = machine.image.slots.get(slot) {
                Invariants::synced(machine.id, image)?;
            }
        }
        let compares = machine.disk.position().is_multiple_of(COMPARED_EVERY);
        if compares && machine.disk.is_clean() { same_as_log(machine) } else { Ok(()) }
    }

    /// A node has started: it is what its log says.
    pub(crate) fn started(machine: &Machine) -> Result<(), Violation> {
        let Some(node) = &machine.node else { return Ok(()) };
        for (slot, image) in &machine.image.slots {
            if let Some(part) = node.slots().get(slot) {
                Invariants::started(machine.id, part.state(), image)?;
            }
        }
        same_as_log(machine)
    }

    /// A node has wants because of one input: neither they nor what it keeps may grow without a bound.
    pub(crate) fn bounded(&mut self, name: Name, node: &Node, outputs: usize) -> Result<(), Violation> {
        self.most_outputs = self.most_outputs.max(outputs);
        let slots = node.slots().len();
        let most = node.terms().map_or(0, |terms| usize::from(terms.slots()));
        if outputs > OUTPUTS_MAX || slots > most {
            let text = format!("{name} wants {outputs} things done at once and keeps {slots} slots of {most}");
            return Err(Violation::Unbounded(text));
        }
        Ok(())
    }

    /// A user of a node has its answer: what it rests on is on the disks of a quorum.
    pub(crate) fn answered(
        &self,
        machines: &BTreeMap<Name, Machine>,
        names: &BTreeMap<NodeId, Name>,
        slot: SlotId,
        key: &Key,
        version: Version,
    ) -> Result<(), Violation> {
        let Some(seen) = self.slots.get(&slot) else { return Ok(()) };
        let Some(config) = seen.chosen().values().next_back() else { return Ok(()) };
        let image = |node: NodeId| {
            let machine = names.get(&node).and_then(|name| machines.get(name)).filter(|machine| machine.id == node);
            let state = machine.map(|machine| &machine.image).or_else(|| self.graves.get(&node))?;
            state.slots.get(&slot)
        };
        seen.answered(image, config, key, version)
    }

    /// A node says that no slot needs it any more: then no slot may count on it, unless it is the only one that keeps them,
    /// or never knew. Says whether it is the only one.
    pub(crate) fn left(&self, machine: &Machine) -> Result<bool, Violation> {
        let mut last = false;
        for (slot, seen) in &self.slots {
            let Some(config) = seen.chosen().values().next_back() else { continue };
            let members = config.nodes();
            let knows = machine.image.slots.get(slot).is_some_and(|image| image.tenure.is_some());
            if members.contains(&machine.id) && knows {
                last = true;
                if members.len() > 1 {
                    let text = format!("{} says that it has left, but {slot:?} counts on it", machine.name);
                    return Err(Violation::Left(text));
                }
            }
        }
        Ok(last)
    }

    /// The newest configuration of a slot that is known to be chosen.
    pub(crate) fn newest(&self, slot: SlotId) -> Option<&Config> {
        self.slots.get(&slot)?.chosen().values().next_back()
    }

    /// How many configurations were chosen, of all slots.
    pub(crate) fn configurations(&self) -> usize {
        self.slots.values().map(|slot| slot.chosen().len()).sum()
    }

    /// A disk is lost for good.
    pub(crate) fn bury(&mut self, id: NodeId, image: State) {
        self.graves.insert(id, image);
    }

    /// Whether one more disk may be lost without breaking the promise: in every configuration that decides or may come to
    /// decide, of a slot, fewer than a majority of each side may be lost. A lost member stops counting once a
    /// configuration without it is chosen, because by then a majority of the others has everything. Who has left is as
    /// lost as a disk: it may have been admitted without having heard of it, and nobody starts it again.
    pub(crate) fn may_lose(&self, node: NodeId, machines: &BTreeMap<Name, Machine>) -> bool {
        let away = machines.values().filter(|machine| machine.duty == Duty::Away).map(|machine| machine.id);
        let away: BTreeSet<NodeId> = away.collect();
        let gone = |member: NodeId| member == node || away.contains(&member) || self.graves.contains_key(&member);
        let survives = |config: &Config| {
            let sides = std::iter::once(&config.old).chain(&config.new).chain(&config.leaving);
            sides.into_iter().all(|side| side.iter().filter(|member| gone(member.node)).count() * 2 < side.len())
        };
        let is_founded = self.slots.values().all(|seen| !seen.chosen().is_empty());
        is_founded && self.deciding(machines).all(survives)
    }

    /// Whether somebody counts on a node that has left, or may come to, and cannot do without it: whoever looks after the
    /// cluster has to start it again.
    pub(crate) fn is_missed(&self, node: NodeId, machines: &BTreeMap<Name, Machine>) -> bool {
        self.deciding(machines).any(|config| config.audience().contains(&node)) && !self.may_lose(node, machines)
    }

    /// The configurations that decide or may come to decide, of all slots.
    fn deciding<'a>(&'a self, machines: &'a BTreeMap<Name, Machine>) -> impl Iterator<Item = &'a Config> {
        self.slots.iter().flat_map(move |(slot, seen)| {
            let newest = seen.chosen().values().next_back();
            let held = machines.values().flat_map(move |machine| {
                let running = machine.node.as_ref().and_then(|node| node.slots().get(slot)).map(|part| part.state());
                running.into_iter().chain(machine.image.slots.get(slot)).map(|state| &state.config)
            });
            // One that is chosen and not known to be is as good as undecided to those who have it.
            let later = held.filter(move |config| newest.is_none_or(|newest| config.version >= newest.version));
            newest.into_iter().chain(later)
        })
    }

    /// A client is about to write a value.
    pub(crate) fn writes(&mut self, key: &Key, value: &[u8]) {
        self.written.insert((key.clone(), value.to_vec()));
    }

    /// What some replica holds is old perhaps, but somebody wrote it; and it is the newest when nobody writes any more.
    pub(crate) fn hinted(&self, key: &Key, value: Option<&[u8]>) -> Result<(), Violation> {
        let made_up = value.is_some_and(|value| !self.written.contains(&(key.clone(), value.to_vec())));
        let old = self.last_read.get(key).is_some_and(|last| last.as_deref() != value);
        if made_up || old {
            let what = if made_up { "was never written" } else { "is an old one though nobody writes" };
            return Err(Violation::Hint(format!("a hint read of {} found {value:?}, which {what}", readable(key))));
        }
        Ok(())
    }
}

/// What the node believes to have is what a fold over its log comes to.
fn same_as_log(machine: &Machine) -> Result<(), Violation> {
    let Some(node) = &machine.node else { return Ok(()) };
    for (slot, part) in node.slots() {
        let Some(held) = machine.held().slots.get(slot) else { continue };
        if !is_same(part.state(), held) {
            return Err(Violation::Log(format!("{} has other things in {slot:?} than its log says", machine.name)));
        }
    }
    Ok(())
}

fn is_same(one: &Durable, other: &Durable) -> bool {
    one.promise == other.promise
        && (&one.config, one.chosen) == (&other.config, other.chosen)
        && (one.tenure, one.mark) == (other.tenure, other.mark)
        && one.registers == other.registers
}

/// In what two states of a node differ.
pub(crate) fn difference(one: &State, other: &State) -> Option<String> {
    if one.terms != other.terms {
        return Some("terms".to_owned());
    }
    if one.peers != other.peers {
        return Some("peers".to_owned());
    }
    let all: BTreeSet<&SlotId> = one.slots.keys().chain(other.slots.keys()).collect();
    let slot = all.into_iter().find(|slot| {
        let same = |(one, other): (&Durable, &Durable)| {
            is_same(one, other) && (&one.lost, one.seq, one.digest) == (&other.lost, other.seq, other.digest)
        };
        !one.slots.get(slot).zip(other.slots.get(slot)).is_some_and(same)
    });
    slot.map(|slot| format!("things of {slot:?}"))
}

/// A key as a person reads it.
pub(super) fn readable(key: &[u8]) -> String {
    String::from_utf8_lossy(key).escape_debug().to_string()
}
