//! What the node's records changed since the last snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use specter_dht::{
    NodeId, Peer, Record, SlotId, State, Terms, Version,
    kv::{Durable, Entry, Key, Register},
};

use super::rows::RowChange;

/// What the records since the last snapshot made of each key that they name; nothing if it is gone. Registers are shared with
/// the state, so this costs little more than the keys.
type Keys = BTreeMap<Key, Option<(Version, Arc<Register>)>>;

/// What changed of a slot.
#[derive(Debug, Default)]
struct SlotChanges {
    keys: Keys,
    /// The node may have become a member or none, which no record says, and then what it held before is gone.
    has_config: bool,
}

/// What a snapshot has to take up. What is not a key's is taken by name; its value is that of the moment in which it is made.
#[derive(Debug, Default)]
pub(super) struct Changes {
    slots: BTreeMap<SlotId, SlotChanges>,
    peers: BTreeSet<NodeId>,
    terms: bool,
}

/// What the node holds, and how it differs from the snapshot.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    changes: Changes,
    /// The peer book, as the records tell it.
    book: BTreeMap<NodeId, Peer>,
    /// Under which membership the snapshot's rows of a slot were kept: a member that goes or comes anew drops all of them,
    /// and no membership comes back.
    tenures: BTreeMap<SlotId, Option<Version>>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        let Self { slots, peers, terms } = self;
        slots.is_empty() && peers.is_empty() && !terms
    }

    /// Adds what changed before these.
    fn prepend(&mut self, before: Self) {
        let Self { slots, peers, terms } = before;
        for (slot, mut before) in slots {
            let later = self.slots.entry(slot).or_default();
            before.keys.append(&mut later.keys);
            before.has_config |= later.has_config;
            *later = before;
        }
        self.peers.extend(peers);
        self.terms |= terms;
    }
}

impl Tracker {
    /// Nothing has changed since a snapshot of which this is the state.
    pub(super) fn of(state: &State) -> Self {
        let tenures = state.slots.iter().map(|(slot, durable)| (*slot, durable.tenure)).collect();
        Self { changes: Changes::default(), book: state.peers.clone(), tenures }
    }

    /// Notes what a record changes.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Cluster { terms, founder } => {
                self.changes.terms = true;
                if *founder {
                    for slot in 0..terms.slots() {
                        self.changes.slots.entry(SlotId(slot)).or_default();
                    }
                }
            }
            Record::Slot { slot, entry } => {
                let changes = self.changes.slots.entry(*slot).or_default();
                match entry {
                    Entry::Accept { key, version, register } => {
                        changes.keys.insert(key.clone(), Some((*version, Arc::clone(register))));
                    }
                    Entry::Purge { key, .. } | Entry::Lost { key, .. } => {
                        changes.keys.insert(key.clone(), None);
                    }
                    Entry::Config { .. } => changes.has_config = true,
                    Entry::Promise(_) => {}
                }
            }
            Record::Remember(peer) => {
                self.book.insert(peer.id, peer.clone());
                self.changes.peers.insert(peer.id);
            }
            Record::Forget(node) => {
                self.book.remove(node);
                self.changes.peers.insert(*node);
            }
        }
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Takes all that changed, as the first step of a snapshot that may still fail. However many keys changed, it takes as
    /// long, except those of slots whose members changed, too.
    pub(super) fn gather<'a>(
        &mut self,
        terms: Option<Terms>,
        durable: impl Fn(SlotId) -> Option<&'a Durable>,
    ) -> Gathered {
        let mut gathered = Gathered { changes: std::mem::take(&mut self.changes), ..Gathered::default() };
        let Gathered { rows, tenures, done, changes } = &mut gathered;
        rows.extend(terms.filter(|_| changes.terms).map(RowChange::Terms));
        for node in &changes.peers {
            rows.push(self.book.get(node).cloned().map_or(RowChange::Forget(*node), RowChange::Remember));
        }
        for (slot, SlotChanges { keys, has_config }) in &changes.slots {
            let Some(durable) = durable(*slot) else {
                done.insert(*slot);
                continue;
            };
            tenures.insert(*slot, durable.tenure);
            let is_renewed = self.tenures.get(slot).copied().flatten() != durable.tenure;
            if is_renewed {
                rows.push(RowChange::Drop(*slot));
                rows.extend(durable.registers.iter().map(|(key, held)| row(*slot, key, Some(held))));
            } else if *has_config {
                rows.extend(keys.keys().map(|key| row(*slot, key, durable.registers.get(key))));
            }
            if is_renewed || *has_config {
                done.insert(*slot);
            }
            rows.push(RowChange::Slot(*slot, Box::new(durable.meta())));
        }
        gathered
    }

    /// The snapshot has what was gathered.
    pub(super) fn saved(&mut self, tenures: BTreeMap<SlotId, Option<Version>>) {
        self.tenures.extend(tenures);
    }

    /// The snapshot may lack what was gathered: it is taken up again with what comes.
    pub(super) fn failed(&mut self, changes: Changes) {
        self.changes.prepend(changes);
    }
}

/// What is on its way to the snapshot.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    rows: Vec<RowChange>,
    /// The membership that the snapshot has each slot's rows of from then on.
    pub(super) tenures: BTreeMap<SlotId, Option<Version>>,
    /// Slots of which `rows` has every register that there is to write.
    done: BTreeSet<SlotId>,
    /// What all this is the new state of.
    pub(super) changes: Changes,
}

impl Gathered {
    /// Every row.
    pub(super) fn rows(&self) -> impl Iterator<Item = RowChange> {
        let slots = self.changes.slots.iter().filter(|(slot, _)| !self.done.contains(slot));
        let registers =
            slots.flat_map(|(slot, changes)| changes.keys.iter().map(|(key, held)| row(*slot, key, held.as_ref())));
        self.rows.iter().cloned().chain(registers)
    }
}

fn row(slot: SlotId, key: &Key, held: Option<&(Version, Arc<Register>)>) -> RowChange {
    match held {
        Some((version, register)) => RowChange::Register(slot, key.clone(), *version, Arc::clone(register)),
        None => RowChange::Remove(slot, key.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use specter_dht::kv::{Config, Operation, Rules};

    #[test]
    fn what_a_node_kept_only_between_two_snapshots_is_in_neither() {
        const SLOT: SlotId = SlotId(3);
        let (me, other) = (NodeId(1), NodeId(2));
        let mut register = Register::EMPTY;
        register.apply(&Operation::Put { value: vec![1], fence: None }, 1);
        let accept = |key: &[u8]| Entry::Accept {
            key: key.to_vec(),
            version: Version { seq: 1, ..Version::default() },
            register: Arc::new(register.clone()),
        };
        let member = |node| Entry::Config { config: Config::founding([node]), chosen: true };
        let mut durable = Durable::new(me, Rules::default());
        let mut tracker = Tracker::default();
        let mut written = |entries: &[Entry]| {
            for entry in entries {
                durable.apply(entry);
                tracker.note(&Record::Slot { slot: SLOT, entry: entry.clone() });
            }
            let gathered = tracker.gather(None, |_| Some(&durable));
            let held = |row: &RowChange| matches!(row, RowChange::Register(..));
            let rows = gathered.rows().filter(held).count();
            tracker.saved(gathered.tenures);
            rows
        };
        assert_eq!(written(&[member(me), accept(b"a"), member(other)]), 0);
        assert_eq!(written(&[member(me), accept(b"a")]), 1);
        assert_eq!(written(&[accept(b"b"), accept(b"b")]), 1, "what is there already is not written again");
    }
}
