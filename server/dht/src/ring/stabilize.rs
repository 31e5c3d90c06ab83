//! Keeps successor lists and predecessors true: each virtual node talks to its successor every period.

use super::asks::Question;
use super::machines::{Claim, Standing};
use super::message::hash_of;
use super::seat::Next;
use super::{LISTED_MAX, Message, Place, Ring};
use crate::{Instant, NodeId, Peer, Point};

/// The most machines that a successor is told of at a time because its list lacks them.
const INTRODUCED_MAX: usize = 4;

impl Ring {
    /// One period of one virtual node: asks the successor, checks one more of the list and one finger.
    pub(super) fn stabilize(&mut self, now: Instant, seat: usize) {
        let period = self.about(self.settings.stabilize);
        self.seats[seat].stabilize_at = now + period;
        self.check_predecessor(now, seat);
        if self.seats[seat].list().is_empty() {
            return;
        }
        match self.seats[seat].first() {
            Some(first) => {
                self.ask(now, seat, first.id);
                self.check_in_turn(now, seat);
            }
            None => self.copy_own_next(seat),
        }
        self.refresh_finger(now, seat);
    }

    fn check_predecessor(&mut self, now: Instant, seat: usize) {
        let Some(before) = self.seats[seat].before else { return };
        let is_alive =
            |span| self.machines.get(before.id).is_some_and(|machine| machine.is_alive(Self::ago(now, span)));
        if !is_alive(self.settings.silence) {
            self.seats[seat].before = None;
            self.has_changed = true;
        } else if !is_alive(self.settings.silence / 2) {
            self.ask(now, seat, before.id);
        }
    }

    /// Asks the next machine of the list in turn, so that each is checked once in a while.
    fn check_in_turn(&mut self, now: Instant, seat: usize) {
        let others = self.seats[seat].list().len() - 1;
        if others == 0 {
            return;
        }
        let turn = self.seats[seat].turn % others;
        self.seats[seat].turn = turn + 1;
        let id = self.seats[seat].list()[turn + 1].id;
        let since = Self::ago(now, self.settings.stabilize / 2);
        if self.machines.get(id).is_none_or(|machine| machine.is_doubted() || !machine.is_alive(since)) {
            self.ask(now, seat, id);
        }
    }

    /// The next virtual node is one of this machine: nobody stands between, so what comes after that one comes after this
    /// one too.
    fn copy_own_next(&mut self, seat: usize) {
        let point = self.seats[seat].point;
        let own = point.plus(self.seats[seat].gap);
        let Some(next) = self.seats.iter().find(|other| other.point == own) else { return };
        let peers = next.list().iter().filter_map(|next| self.machines.peer(next.id));
        let list = peers.map(|peer| Next { distance: peer.first_after(point).0, id: peer.id }).collect();
        self.has_changed |= self.seats[seat].replace(list, self.settings.successors);
    }

    /// Asks a machine about its neighbours, unless a question to it is open.
    pub(super) fn ask(&mut self, now: Instant, seat: usize, id: NodeId) {
        if self.asks.is_open(id) || self.machines.get(id).is_none() {
            return;
        }
        let again = now + self.about(self.settings.stabilize);
        let is_candidate = !self.seats.iter().any(|seat| seat.holds(id));
        let number = self.number();
        self.asks.open(id, Question { number, seat, since: now, again, is_candidate });
        self.send_question(seat, id, number);
    }

    fn send_question(&mut self, seat: usize, id: NodeId, number: u64) {
        let Some(machine) = self.machines.get(id) else { return };
        let here = &self.seats[seat];
        let is_first = here.list().first().is_some_and(|first| first.id == id);
        let known = if is_first { here.known } else { machine.told };
        let (_, to) = machine.peer.first_after(here.point);
        let peer = machine.peer.clone();
        let message = Message::Ask { from: self.place(seat), to, number, known };
        self.send(&peer, message);
    }

    /// Asks again what was not answered, and gives up on those that are silent for too long.
    pub(super) fn ask_again(&mut self, now: Instant) {
        for id in self.asks.due(now) {
            let again = now + self.about(self.settings.stabilize);
            let silence = self.settings.silence;
            let Some(question) = self.asks.get_mut(id) else { continue };
            if now.since(question.since) >= silence {
                self.silent(now, id);
            } else {
                question.again = again.min(question.since + silence);
                let (seat, number) = (question.seat, question.number);
                self.send_question(seat, id, number);
            }
        }
    }

    /// Answers a question, and takes in who asked.
    pub(super) fn asked(&mut self, now: Instant, from: Place, to: Point, number: u64, known: u64) {
        let Some(seat) = self.seats.iter().position(|seat| seat.point == to) else {
            self.refused += 1;
            return;
        };
        if !self.is_member() || !self.hear(now, &from.peer) {
            return;
        }
        self.machines.lives(now, from.peer.id);
        if self.machines.get(from.peer.id).is_some_and(|machine| machine.is_doubted()) {
            // It reaches this node, but may not be reached itself.
            self.ask(now, seat, from.peer.id);
        } else {
            self.adopt(now, from.peer.id, None);
        }
        let successors = (self.hash_of_list(seat) != known).then(|| self.peers_of(seat));
        let predecessor = self.predecessor(seat);
        let message = Message::Tell { from: self.place(seat), number, predecessor, successors };
        // To where it speaks from now: the row may say otherwise when it leaves.
        self.send(&from.peer, message);
    }

    /// An answer: who told it lives, and what it tells is taken in as far as it is proven.
    pub(super) fn told(
        &mut self,
        now: Instant,
        from: Place,
        number: u64,
        predecessor: Option<Place>,
        successors: Option<Vec<Peer>>,
    ) {
        let id = from.peer.id;
        let Some(question) = self.asks.answer(id, number) else { return };
        if !self.hear(now, &from.peer) {
            return;
        }
        self.machines.lives(now, id);
        self.machines.answered(id);
        self.adopt(now, id, Some(question.seat));
        let seat = question.seat;
        let first = self.seats[seat].list().first().copied().filter(|first| first.id == id);
        let hash = successors.as_ref().map(|list| hash_of(from.point, list));
        let list = successors.map(|list| self.sensible(list));
        match (first, list) {
            (Some(first), Some(list)) if self.seats[seat].point.plus(first.distance) == from.point => {
                let is_settled = self.absorb(now, seat, from.point, &list);
                self.seats[seat].known = if is_settled { hash.unwrap_or(0) } else { 0 };
            }
            (_, Some(list)) => {
                let mut is_settled = true;
                for peer in &list {
                    is_settled &= self.offer(now, peer);
                }
                if let (true, Some(machine)) = (is_settled, self.machines.get_mut(id)) {
                    machine.told = hash.unwrap_or(0);
                }
            }
            (_, None) => {}
        }
        if let Some(predecessor) = predecessor.filter(Place::is_sound) {
            self.offer(now, &predecessor.peer);
        }
    }

    /// The machines of a message that there can be, each once, without this one.
    pub(super) fn sensible(&self, mut list: Vec<Peer>) -> Vec<Peer> {
        list.truncate(LISTED_MAX);
        let mut seen = Vec::with_capacity(list.len());
        list.retain(|peer| {
            let is_new = peer.id != self.me.id && peer.is_sound() && !seen.contains(&peer.id);
            seen.push(peer.id);
            is_new
        });
        list
    }

    /// Takes over the successor's list behind the successor itself. Whoever spoke lately and belongs in between stays;
    /// whoever would come before the successor has to answer first. Answers whether nothing is left to be done.
    fn absorb(&mut self, now: Instant, seat: usize, teller: Point, told: &[Peer]) -> bool {
        let bound = self.settings.successors;
        let point = self.seats[seat].point;
        let Some(first) = self.seats[seat].list().first().copied() else { return false };
        let mut list = vec![first];
        let mut offered = Vec::new();
        let mut is_settled = true;
        for peer in told.iter().filter(|peer| peer.id != first.id) {
            let standing = if peer.leaving { Standing::Refused } else { self.machines_learn(now, peer) };
            let distance = self.machines.peer(peer.id).unwrap_or(peer).first_after(point).0;
            match standing {
                Standing::Good | Standing::Newer if distance > first.distance => {
                    is_settled &= standing == Standing::Good;
                    list.push(Next { distance, id: peer.id });
                    if standing == Standing::Newer {
                        offered.push(peer);
                    }
                }
                Standing::Good | Standing::Newer | Standing::Doubtful(_) => offered.push(peer),
                Standing::Refused => is_settled &= peer.leaving,
            }
        }
        is_settled &= self.keep_known(now, seat, teller, told, &mut list);
        let is_other = self.seats[seat].replace(list, bound);
        self.has_changed |= is_other;
        for peer in offered {
            is_settled &= self.offer(now, peer);
        }
        is_settled
    }

    /// Adds those of the present list that the successor did not tell of: who spoke lately stays, and the successor is told
    /// of it; the others are asked.
    fn keep_known(&mut self, now: Instant, seat: usize, teller: Point, told: &[Peer], list: &mut Vec<Next>) -> bool {
        let bound = self.settings.successors;
        let horizon =
            if told.len() < bound { u64::MAX } else { told.last().map_or(0, |last| last.first_after(teller).0) };
        list.sort_unstable_by_key(|next| next.distance);
        let reach = if list.len() < bound { u64::MAX } else { list[bound - 1].distance };
        let present = self.seats[seat].list().to_vec();
        let since = Self::ago(now, self.settings.silence);
        let mut introduced = Vec::new();
        let mut is_settled = true;
        for next in present.iter().filter(|next| next.distance < reach) {
            if list.iter().any(|other| other.id == next.id) {
                continue;
            }
            let Some(machine) = self.machines.get(next.id) else { continue };
            if machine.is_fresh(since) {
                if machine.peer.first_after(teller).0 < horizon {
                    introduced.push(machine.peer.clone());
                }
                list.push(*next);
            } else if !machine.is_doubted() && !machine.peer.leaving {
                self.ask(now, seat, next.id);
            }
            is_settled = false;
        }
        if let Some(first) = present.first().and_then(|first| self.machines.peer(first.id)).cloned() {
            for peer in introduced.into_iter().take(INTRODUCED_MAX) {
                let message = Message::Introduce { from: self.me.clone(), peer };
                self.send(&first, message);
            }
        }
        is_settled
    }

    /// Notes what others tell of a machine, with room made for it if need be.
    pub(super) fn machines_learn(&mut self, now: Instant, peer: &Peer) -> Standing {
        if self.machines.get(peer.id).is_none() {
            self.make_room(Claim::ToldOf);
        }
        self.machines.learn(now, peer)
    }
}
