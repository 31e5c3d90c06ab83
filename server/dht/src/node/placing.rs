//! Who should keep the slots that this node leads, and how it leaves them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Node;
use super::asking::TOKENS_OF_REQUESTS;
use super::packing::ADDRESS;
use crate::kv;
use crate::{Event, Instant, NodeId, Output, Part, Peer, SlotId};

/// When to look at the placement of slots again.
#[derive(Debug)]
pub(super) struct Placing {
    sweep_at: Instant,
    /// Since when the node wants to go.
    leaving: bool,
    left: bool,
    search_after: Instant,
}

impl Placing {
    pub(super) const fn new(now: Instant) -> Self {
        Self { sweep_at: now, leaving: false, left: false, search_after: now }
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.sweep_at
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

    pub(super) fn place_due(&mut self, now: Instant) {
        if now < self.placing.sweep_at {
            return;
        }
        let span = self.settings.placement;
        self.placing.sweep_at = now + self.random.span(span / 2, span);
        let Some(terms) = self.terms else { return };
        let led: Vec<SlotId> =
            self.slots.iter().filter(|(_, slot)| slot.leads().is_some()).map(|(id, _)| *id).collect();
        for slot in led {
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
                self.ring.introduce(now, peer);
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

    /// Tells a slot which machines should keep it: the first that are not about to go.
    fn place(&mut self, now: Instant, id: SlotId, machines: &[Peer]) {
        let Some(terms) = self.terms else { return };
        let goes = |peer: &Peer| peer.leaving || (peer.id == self.me && self.placing.leaving);
        let staying = machines.iter().filter(|peer| !goes(peer));
        let wanted: Vec<NodeId> = staying.take(usize::from(terms.replicas)).map(|peer| peer.id).collect();
        let Some(config) = self.slots.get(&id).and_then(|slot| slot.leads()).cloned() else { return };
        if wanted.is_empty() {
            return;
        }
        let present = config.nodes();
        let hold_off = self.hold_off(&present, &wanted, machines);
        for node in wanted.iter().filter(|node| !present.contains(node)).copied() {
            let (version, members) = (config.version, present.iter().copied().collect());
            self.post(now, node, Part::Pointer { slot: id, version, members });
        }
        let may_change = self.changing() < self.settings.changing;
        self.slot_input(now, id, kv::Input::Wanted { nodes: wanted, hold_off, may_change });
    }

    fn changing(&self) -> usize {
        self.slots.values().filter(|slot| slot.is_changing()).count()
    }

    /// For how long the ring must have wanted other members: not at all when all that are to go want to go, long when one
    /// of them is silent and may only restart.
    fn hold_off(&self, present: &BTreeSet<NodeId>, wanted: &[NodeId], machines: &[Peer]) -> Duration {
        let own_leave = |node: NodeId| node == self.me && self.placing.leaving;
        let goes = |node: NodeId| own_leave(node) || self.ring.contact(node).is_some_and(|peer| peer.leaving);
        let lives = |node: NodeId| node == self.me || machines.iter().any(|peer| peer.id == node);
        let mut gone = present.iter().copied().filter(|node| !wanted.contains(node)).peekable();
        if gone.peek().is_some() && gone.clone().all(goes) {
            Duration::ZERO
        } else if gone.any(|node| !lives(node) && !goes(node)) {
            self.settings.crash_hold_off
        } else {
            self.settings.join_hold_off
        }
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.placing.leaving = true;
        self.placing.sweep_at = now;
        self.ring.leave(now);
        self.place_due(now);
    }

    /// Whether the node has asked to go and no slot needs it any more.
    pub(super) fn check_left(&mut self) {
        if !self.placing.leaving || self.placing.left {
            return;
        }
        let needed = self.slots.values().any(|slot| slot.state().config.contains(self.me));
        let alone = self.ring.neighbours().next().is_none();
        if !needed || alone {
            self.placing.left = true;
            self.outputs.push_back(Output::Event(Event::Left));
        }
    }
}
