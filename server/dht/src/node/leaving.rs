//! How a node goes: when no slot counts on it any more, and those that keep its slots know so.
//!
//! A slot whose members were changed needs the old ones until the new ones know that the change is chosen. So a node that
//! leaves tells them until a majority of them has said that it knows; whoever went before that could be missed for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Node;
use crate::kv::{self, Config};
use crate::{Event, Instant, NodeId, Output, Part, SlotId, Version};

/// How far a node is with its leave.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) begun: bool,
    over: bool,
    tell_at: Instant,
    /// Who knows that a slot goes on without this node, and of which configuration.
    told: BTreeMap<SlotId, (Version, BTreeSet<NodeId>)>,
    /// Of another node that goes: whom to tell, and of which configuration, once it is on the disk. One a slot; another
    /// asks again.
    owed: BTreeMap<SlotId, (NodeId, Version)>,
}

/// How long a node that goes waits for more slots that go on without it before it tells of them together.
const CROWD: Duration = Duration::from_millis(20);

impl Leaving {
    pub(super) const fn new() -> Self {
        Self { begun: false, over: false, tell_at: Instant::FAR, told: BTreeMap::new(), owed: BTreeMap::new() }
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.tell_at
    }

    fn is_told(&self, slot: SlotId, config: &Config) -> bool {
        let known = self.told.get(&slot).filter(|(version, _)| *version == config.version);
        let members = config.nodes();
        known.is_some_and(|(_, told)| told.intersection(&members).count() * 2 > members.len())
    }
}

impl Node {
    pub(super) fn leave(&mut self, now: Instant) {
        if self.leaving.begun {
            return;
        }
        self.leaving.begun = true;
        self.leaving.tell_at = now;
        self.ring.leave(now);
        self.place_now(now);
    }

    /// Tells the members of slots that go on without this node.
    pub(super) fn leave_due(&mut self, now: Instant) {
        if now < self.leaving.tell_at {
            return;
        }
        self.leaving.tell_at = now + self.settings.attempt;
        let untold: Vec<(SlotId, Config)> = self.slots_handed_over().collect();
        let Some(terms) = self.terms else { return };
        for (slot, config) in untold {
            // Those that should keep it know better when its members have changed again and again.
            let owners = self.ring.owners(terms.point_of(slot), self.settings.ring.successors);
            // The first may be this node itself, or others that go too.
            let staying = owners.into_iter().flatten().filter(|peer| peer.id != self.me && !peer.leaving);
            let owners = staying.take(usize::from(terms.replicas)).map(|peer| peer.id);
            let mut hearers: BTreeSet<NodeId> = config.nodes().into_iter().chain(owners).collect();
            hearers.remove(&self.me);
            for node in hearers {
                self.post(now, node, Part::Handed { slot, config: config.clone() });
            }
        }
    }

    /// The slots that this node kept and that have other members now, who may not know yet.
    fn slots_handed_over(&self) -> impl Iterator<Item = (SlotId, Config)> {
        let slots = self.slots.iter().map(|(id, slot)| (*id, slot.state()));
        let gone = slots.filter(|(_, state)| state.chosen && !state.config.audience().contains(&self.me));
        let untold =
            gone.filter(|(id, state)| !state.config.old.is_empty() && !self.leaving.is_told(*id, &state.config));
        untold.map(|(id, state)| (id, state.config.clone()))
    }

    /// A node that goes says that a slot goes on without it. It is told once this node has that on its disk.
    pub(super) fn handed(&mut self, now: Instant, from: NodeId, slot: SlotId, config: Config) {
        let version = config.version;
        self.slot_input(now, slot, kv::Input::Message { from, message: kv::Message::Learn { config } });
        let state = self.slot(now, slot).state();
        let (known, config) = (state.chosen, state.config.clone());
        if !known || config.version < version {
            return;
        }
        if self.unsynced.iter().any(|(_, unsynced, _)| *unsynced == slot) {
            self.leaving.owed.insert(slot, (from, version));
            return;
        }
        if config.version > version {
            self.post_slot(now, from, slot, kv::Message::Learn { config });
        }
        self.post(now, from, Part::Understood { slot, version });
    }

    /// What a slot has appended is on the disk: who waits for that is told.
    pub(super) fn pay(&mut self, now: Instant, slot: SlotId) {
        if self.unsynced.iter().any(|(_, unsynced, _)| *unsynced == slot) {
            return;
        }
        let Some((to, version)) = self.leaving.owed.remove(&slot) else { return };
        let state = self.slot(now, slot).state();
        if state.chosen && state.config.version >= version {
            self.post(now, to, Part::Understood { slot, version });
        }
    }

    /// Whether a slot counts on this node, which goes.
    pub(super) fn holds_up(&self, slot: SlotId) -> bool {
        let counts = |slot: &kv::Slot| slot.state().config.audience().contains(&self.me) || !slot.state().chosen;
        self.leaving.begun && self.slots.get(&slot).is_some_and(counts)
    }

    /// A slot goes on without this node: its members are told before long.
    pub(super) fn handed_over(&mut self, now: Instant) {
        if !self.leaving.over {
            self.leaving.tell_at = self.leaving.tell_at.min(now + CROWD);
        }
    }

    /// A member of a slot knows that it goes on without this node.
    pub(super) fn understood(&mut self, from: NodeId, slot: SlotId, version: Version) {
        let current = self.slots.get(&slot).map(|slot| slot.state().config.version);
        if !self.leaving.begun || current != Some(version) {
            return;
        }
        let known = self.leaving.told.entry(slot).or_default();
        if known.0 != version {
            *known = (version, BTreeSet::new());
        }
        if known.1.len() < kv::limits::MEMBERS_MAX {
            known.1.insert(from);
        }
    }

    /// Whether the node has asked to go and no slot needs it any more.
    pub(super) fn check_left(&mut self) {
        if !self.leaving.begun || self.leaving.over {
            return;
        }
        let states = self.slots.values().map(kv::Slot::state);
        let mut needing = states.filter(|state| state.config.audience().contains(&self.me));
        // The last node takes its slots along: nobody is there to keep them. But as long as a slot has other members, one
        // that sees nobody is cut off from them.
        let last = self.ring.neighbours().next().is_none();
        // A change that it undoes by itself may not be undone yet.
        let alone = |state: &kv::Durable| state.chosen && state.config.audience().len() == 1;
        let free = if last { needing.all(alone) } else { needing.next().is_none() };
        if free && self.slots_handed_over().next().is_none() {
            self.leaving.over = true;
            self.leaving.tell_at = Instant::FAR;
            self.outputs.push_back(Output::Event(Event::Left));
        }
    }
}
