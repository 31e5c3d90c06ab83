//! Who should keep the slots that this node leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Node;
use super::asking::TOKENS_OF_REQUESTS;
use super::packing::ADDRESS;
use crate::kv::{self, Slot};
use crate::{Ballot, Instant, NodeId, Part, Peer, SlotId};

/// When to look at the placement of slots again.
#[derive(Debug)]
pub(super) struct Placing {
    sweep_at: Instant,
    search_after: Instant,
    /// Slots that should have other members, and when that may begin.
    waiting: BTreeMap<SlotId, Change>,
    /// Slots that were allowed to change and are not done, and about how many bytes of each are on their way at a time.
    changing: BTreeMap<SlotId, usize>,
    /// When to see whether one that waits may begin.
    permit_at: Instant,
}

/// A change of members that waits.
#[derive(Debug)]
struct Change {
    wanted: Vec<NodeId>,
    due: Instant,
    /// How many of the present members live and stay: where there are fewest, it is begun first.
    staying: usize,
}

impl Placing {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            sweep_at: now,
            search_after: now,
            waiting: BTreeMap::new(),
            changing: BTreeMap::new(),
            permit_at: Instant::FAR,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.sweep_at.min(self.permit_at)
    }

    /// Whether an address may be looked for now: one at a time.
    pub(super) fn begin_search(&mut self, now: Instant, pause: Duration) -> bool {
        let begins = now >= self.search_after;
        if begins {
            self.search_after = now + pause;
        }
        begins
    }
}

/// The wait between a change of the neighbourhood and the look at the slots: changes come in crowds.
const CROWD: Duration = Duration::from_millis(200);

impl Node {
    pub(super) fn place_soon(&mut self, now: Instant) {
        self.placing.sweep_at = self.placing.sweep_at.min(now + CROWD);
    }

    pub(super) fn place_now(&mut self, now: Instant) {
        self.placing.sweep_at = now;
        self.place_due(now);
    }

    pub(super) fn place_due(&mut self, now: Instant) {
        if now < self.placing.sweep_at {
            return;
        }
        let span = self.settings.placement;
        self.placing.sweep_at = now + self.random.span(span / 2, span);
        let Some(terms) = self.terms else { return };
        let asks = |slot: &Slot| slot.leads().is_some() || slot.is_adrift(now);
        let asking: Vec<SlotId> = self.slots.iter().filter(|(_, slot)| asks(slot)).map(|(id, _)| *id).collect();
        for slot in asking {
            let (target, count) = (terms.point_of(slot), self.settings.ring.successors);
            if let Some(machines) = self.ring.owners(target, count) {
                self.place(now, slot, &machines);
            } else {
                let token = TOKENS_OF_REQUESTS + u64::from(slot.0);
                self.ring.lookup(now, token, target, now + self.settings.ring.silence);
            }
        }
    }

    /// The ring has answered a lookup.
    pub(super) fn found(&mut self, now: Instant, token: u64, machines: Option<Vec<Peer>>) {
        if token == ADDRESS {
            for peer in machines.into_iter().flatten().filter(|peer| peer.id != self.me) {
                self.ring.acquaint(now, peer);
            }
        } else if let Some(slot) = token.checked_sub(TOKENS_OF_REQUESTS) {
            let slot = SlotId(u16::try_from(slot).unwrap_or(u16::MAX));
            if let (true, Some(machines)) = (self.slots.contains_key(&slot), machines) {
                self.place(now, slot, &machines);
            }
        } else {
            self.found_slot(now, token, machines);
        }
    }

    /// Asks those that should keep a slot whether it has gone on without this node, when they are others: the members that
    /// this node knows may all be gone. The question is a leader's of long ago, which is refused with what is known.
    fn ask_about(&mut self, now: Instant, slot: SlotId, wanted: &[NodeId]) {
        let adrift = self.slots.get(&slot).is_some_and(|slot| slot.is_adrift(now));
        if !adrift || wanted.contains(&self.me) {
            return;
        }
        for node in wanted {
            let ballot = Ballot { counter: 0, node: self.me };
            let message = kv::Message::Confirm { ballot, round: 0 };
            self.post_slot(now, *node, slot, message);
        }
    }

    /// Tells a slot which machines should keep it: the first that are not about to go.
    fn place(&mut self, now: Instant, id: SlotId, machines: &[Peer]) {
        let Some(terms) = self.terms else { return };
        let goes = |peer: &Peer| peer.leaving || (peer.id == self.me && self.leaving.begun);
        let staying = machines.iter().filter(|peer| !goes(peer));
        let wanted: Vec<NodeId> = staying.take(usize::from(terms.replicas)).map(|peer| peer.id).collect();
        let Some(config) = self.slots.get(&id).and_then(|slot| slot.leads()).cloned() else {
            return self.ask_about(now, id, &wanted);
        };
        if wanted.is_empty() {
            return;
        }
        let present = config.nodes();
        let staying = machines.iter().filter(|peer| present.contains(&peer.id) && !goes(peer)).count();
        let hold_off = self.hold_off(id, &present, &wanted, machines);
        for node in wanted.iter().filter(|node| !present.contains(node)).copied() {
            let (version, members) = (config.version, present.iter().copied().collect());
            self.post(now, node, Part::Pointer { slot: id, version, members });
        }
        if present == wanted.iter().copied().collect() {
            self.placing.waiting.remove(&id);
        } else {
            let due = now + hold_off;
            let same = self.placing.waiting.get(&id).filter(|change| change.wanted == wanted);
            let due = same.map_or(due, |change| change.due.min(due));
            self.placing.waiting.insert(id, Change { wanted: wanted.clone(), due, staying });
            self.placing.permit_at = self.placing.permit_at.min(due);
        }
        self.slot_input(now, id, kv::Input::Wanted { nodes: wanted, hold_off });
    }

    /// Lets slots change their members, not too many at a time and not too many bytes, so that the others go on undisturbed
    /// (rule R5); those first that lack most.
    pub(super) fn permit_due(&mut self, now: Instant) {
        let slots = &self.slots;
        let before = self.placing.changing.len();
        self.placing.changing.retain(|id, _| slots.get(id).is_some_and(Slot::is_changing));
        if now < self.placing.permit_at && self.placing.changing.len() == before {
            return;
        }
        self.placing.permit_at = Instant::FAR;
        let leads = |id: &SlotId| slots.get(id).is_some_and(|slot| slot.leads().is_some() || slot.is_changing());
        self.placing.waiting.retain(|id, _| leads(id));
        let due = self.placing.waiting.iter().filter(|(_, change)| change.due <= now);
        let mut due: Vec<(usize, Instant, SlotId)> =
            due.map(|(id, change)| (change.staying, change.due, *id)).collect();
        due.sort_unstable();
        for (_, _, id) in due {
            if !self.has_room_for(id) {
                // The next end of a change comes back here.
                return;
            }
            self.slot_input(now, id, kv::Input::Permit { may_change: true });
            self.slot_input(now, id, kv::Input::Permit { may_change: false });
            if self.slots.get(&id).is_some_and(Slot::is_changing) {
                self.placing.changing.insert(id, self.weight(id));
                self.placing.waiting.remove(&id);
            } else if let Some(change) = self.placing.waiting.get_mut(&id) {
                // It has reasons of its own to wait.
                change.due = now + self.settings.slot.heartbeat;
            }
        }
        let next = self.placing.waiting.values().map(|change| change.due).min();
        self.placing.permit_at = next.unwrap_or(Instant::FAR);
    }

    /// Whether a slot may begin to change beside those that do.
    fn has_room_for(&self, id: SlotId) -> bool {
        let changing = &self.placing.changing;
        let bytes = changing.values().sum::<usize>() + self.weight(id);
        changing.is_empty() || (changing.len() < self.settings.changing && bytes <= self.settings.changing_bytes)
    }

    /// About how many bytes of a slot are on their way at a time when it changes.
    fn weight(&self, id: SlotId) -> usize {
        self.bytes_of(id).min(self.settings.slot.transfer_bytes)
    }

    fn bytes_of(&self, id: SlotId) -> usize {
        self.slots.get(&id).map_or(0, Slot::bytes)
    }

    /// For how long the ring must have wanted other members: not at all when all that are to go want to go, long when one
    /// of them is silent and may only restart, a moment when the change costs little.
    fn hold_off(&self, id: SlotId, present: &BTreeSet<NodeId>, wanted: &[NodeId], machines: &[Peer]) -> Duration {
        let own_leave = |node: NodeId| node == self.me && self.leaving.begun;
        let goes = |node: NodeId| own_leave(node) || self.ring.contact(node).is_some_and(|peer| peer.leaving);
        let lives = |node: NodeId| node == self.me || machines.iter().any(|peer| peer.id == node);
        let gone: Vec<NodeId> = present.iter().copied().filter(|node| !wanted.contains(node)).collect();
        if !gone.is_empty() && gone.iter().all(|node| goes(*node)) {
            Duration::ZERO
        } else if gone.iter().any(|node| !lives(*node) && !goes(*node)) {
            self.settings.crash_hold_off
        } else if gone.is_empty() || self.bytes_of(id) <= self.settings.light_bytes {
            self.settings.light_hold_off
        } else {
            self.settings.join_hold_off
        }
    }
}
