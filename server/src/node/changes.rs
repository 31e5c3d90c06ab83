//! What the node's records changed since the last snapshot.

use std::collections::{BTreeMap, BTreeSet};

use specter_dht::{
    NodeId, Peer, Record, SlotId, State, Terms, Version,
    kv::{Durable, Entry, Key},
};

use super::rows::RowChange;

/// What a snapshot has to take up, by name; the values are those of the moment in which it is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    slots: BTreeMap<SlotId, BTreeSet<Key>>,
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

    fn append(&mut self, other: Self) {
        let Self { slots, peers, terms } = other;
        for (slot, keys) in slots {
            self.slots.entry(slot).or_default().extend(keys);
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
                let keys = self.changes.slots.entry(*slot).or_default();
                match entry {
                    Entry::Accept { key, .. } | Entry::Purge { key, .. } | Entry::Lost { key, .. } => {
                        keys.insert(key.clone());
                    }
                    Entry::Promise(_) | Entry::Config { .. } => {}
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

    /// Takes the present values of all that changed, as the first step of a snapshot that may still fail.
    pub(super) fn gather<'a>(
        &mut self,
        terms: Option<Terms>,
        durable: impl Fn(SlotId) -> Option<&'a Durable>,
    ) -> Gathered {
        let changes = std::mem::take(&mut self.changes);
        let mut gathered = Gathered { rows: Vec::new(), tenures: BTreeMap::new(), changes };
        let Gathered { rows, tenures, changes } = &mut gathered;
        rows.extend(terms.filter(|_| changes.terms).map(RowChange::Terms));
        for node in &changes.peers {
            rows.push(self.book.get(node).cloned().map_or(RowChange::Forget(*node), RowChange::Remember));
        }
        for (slot, keys) in &changes.slots {
            let Some(durable) = durable(*slot) else { continue };
            tenures.insert(*slot, durable.tenure);
            let register = |(key, (version, register)): (&Key, &(_, _))| {
                RowChange::Register(*slot, key.clone(), *version, std::sync::Arc::clone(register))
            };
            if self.tenures.get(slot).copied().flatten() == durable.tenure {
                rows.extend(keys.iter().map(|key| match durable.registers.get_key_value(key) {
                    Some(held) => register(held),
                    None => RowChange::Remove(*slot, key.clone()),
                }));
            } else {
                rows.push(RowChange::Drop(*slot));
                rows.extend(durable.registers.iter().map(register));
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
        self.changes.append(changes);
    }
}

/// What is on its way to the snapshot.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) rows: Vec<RowChange>,
    pub(super) tenures: BTreeMap<SlotId, Option<Version>>,
    pub(super) changes: Changes,
}
