//! Who is taken into the lists, and who is dropped from them.

use super::machines::Standing;
use super::seat::{Before, Next};
use super::{Message, Ring};
use crate::{Instant, NodeId, Peer};

/// The most machines outside the lists that are asked at a time.
const CANDIDATES_MAX: usize = 8;

impl Ring {
    /// Takes a machine in that has just proven to be a living member, wherever it belongs. `told` names the seat whose
    /// question it has answered, which need not ask it again.
    pub(super) fn adopt(&mut self, now: Instant, id: NodeId, told: Option<usize>) {
        let Some(peer) = self.machines.peer(id).filter(|peer| !peer.leaving).cloned() else { return };
        for index in 0..self.seats.len() {
            self.adopt_before(index, &peer);
            let seat = &mut self.seats[index];
            if !seat.lacks(&peer, self.settings.successors) {
                continue;
            }
            self.has_changed = true;
            let distance = peer.first_after(seat.point).0;
            if seat.insert(Next { distance, id }, self.settings.successors) == 0 {
                seat.known = 0;
                if told != Some(index) && seat.first().is_some() {
                    self.ask(now, index, id);
                }
            }
        }
    }

    /// Takes the machine as predecessor of this seat if it is nearer than the present one, and tells that one.
    fn adopt_before(&mut self, index: usize, peer: &Peer) {
        let seat = &mut self.seats[index];
        if seat.before.is_some_and(|before| before.id == peer.id) {
            return;
        }
        let distance = peer.last_before(seat.point);
        let nearest = seat.before.map_or(seat.gap_before, |before| before.distance);
        if distance >= nearest {
            return;
        }
        let former = seat.before.replace(Before { distance, id: peer.id });
        self.has_changed = true;
        if let Some(former) =
            former.and_then(|former| self.machines.peer(former.id)).filter(|former| former.id != peer.id)
        {
            let former = former.clone();
            let message = Message::Introduce { from: self.me.clone(), peer: peer.clone() };
            self.send(&former, message);
        }
    }

    /// Others told of a machine: if a list lacks it, it is taken in when it spoke itself lately, and is asked otherwise.
    /// Answers whether there is nothing left to be done.
    pub(super) fn offer(&mut self, now: Instant, peer: &Peer) -> bool {
        if peer.id == self.me.id || peer.leaving || !peer.is_sound() {
            return true;
        }
        let bound = self.settings.successors;
        let is_listed = self.seats.iter().any(|seat| seat.holds(peer.id));
        let Some(seat) = self.seats.iter().position(|seat| seat.lacks(peer, bound)) else {
            if is_listed && self.machines_learn(now, peer) == Standing::Newer {
                self.ask(now, 0, peer.id);
                return false;
            }
            return true;
        };
        match self.machines_learn(now, peer) {
            Standing::Good => {
                let since = Self::ago(now, self.settings.silence);
                if self.machines.get(peer.id).is_some_and(|machine| machine.is_fresh(since)) {
                    self.adopt(now, peer.id, None);
                    return true;
                }
                self.try_candidate(now, seat, peer.id)
            }
            Standing::Doubtful(until) => now >= until && self.try_candidate(now, seat, peer.id),
            Standing::Newer => {
                self.try_candidate(now, seat, peer.id);
                false
            }
            Standing::Refused => true,
        }
    }

    /// Asks a machine that is in no list yet, if not too many are being asked; answers whether it is asked.
    pub(super) fn try_candidate(&mut self, now: Instant, seat: usize, id: NodeId) -> bool {
        if !self.asks.is_open(id) && self.asks.candidates() >= CANDIDATES_MAX {
            return false;
        }
        self.ask(now, seat, id);
        true
    }

    /// A machine does not answer: the ring goes on without it until it does.
    pub(super) fn silent(&mut self, now: Instant, id: NodeId) {
        self.asks.give_up(id);
        self.machines.doubt(id, now + self.settings.quarantine);
        self.drop_from_lists(now, id);
    }

    /// What is known of a machine has changed: it lives again, elsewhere perhaps, or is about to go.
    pub(super) fn renew(&mut self, now: Instant, peer: &Peer) {
        for seat in &mut self.seats {
            seat.hash = 0;
        }
        let is_neighbour =
            self.seats.iter().any(|seat| seat.holds(peer.id) || seat.before.is_some_and(|before| before.id == peer.id));
        if !is_neighbour {
            return;
        }
        self.has_changed = true;
        if peer.leaving {
            self.asks.give_up(peer.id);
            self.drop_from_lists(now, peer.id);
        } else {
            self.measure_again(peer);
        }
    }

    /// A machine in a new life may have another number of virtual nodes.
    fn measure_again(&mut self, peer: &Peer) {
        for seat in &mut self.seats {
            let mut list = seat.list().to_vec();
            let Some(next) = list.iter_mut().find(|next| next.id == peer.id) else { continue };
            next.distance = peer.first_after(seat.point).0;
            seat.known = 0;
            seat.replace(list, self.settings.successors);
        }
        for seat in &mut self.seats {
            if let Some(before) = &mut seat.before
                && before.id == peer.id
            {
                before.distance = peer.last_before(seat.point);
            }
            seat.before = seat.before.filter(|before| before.distance < seat.gap_before);
        }
    }

    /// Drops a machine everywhere. Where it was the successor, everybody else of the list is asked at once: those that died
    /// with it are found together, however many they are.
    fn drop_from_lists(&mut self, now: Instant, id: NodeId) {
        for index in 0..self.seats.len() {
            let (place, is_changed) = self.seats[index].remove(id);
            self.has_changed |= is_changed;
            if place == Some(0) {
                let rest: Vec<NodeId> = self.seats[index].list().iter().map(|next| next.id).collect();
                for id in rest {
                    self.ask(now, index, id);
                }
            }
            if place.is_some() && self.seats[index].list().is_empty() {
                self.refill(now, index);
            }
        }
    }
}
