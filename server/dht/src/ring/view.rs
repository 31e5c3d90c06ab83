//! What a node knows by itself of who stands where.

use super::machines::Machine;
use super::message::hash_of;
use super::seat::Seat;
use super::{Hop, Message, Output, Place, Ring};
use crate::{Instant, NodeId, Peer, Point};

/// What one virtual node holds for true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it stands.
    pub point: Point,
    /// The distinct other machines that come next, in order.
    pub successors: Vec<Peer>,
    /// The virtual node before it, which may be one of this machine.
    pub predecessor: Option<Place>,
}

/// The most machines that an answer names as nearer.
const NEARER_MAX: usize = 8;

/// The most machines behind the target that an answer names.
const BEYOND_MAX: usize = 2;

impl Ring {
    /// The first so many distinct machines clockwise from the target, this one among them; fewer when there are not more.
    /// Nothing when this node cannot know them all by itself.
    pub fn owners(&self, target: Point, count: usize) -> Option<Vec<Peer>> {
        self.covering(target, count, count)
    }

    /// As [`Self::owners`], with at least and at most so many machines.
    pub(crate) fn covering(&self, target: Point, least: usize, most: usize) -> Option<Vec<Peer>> {
        if !self.is_member() {
            return None;
        }
        if let Some(seat) = self.knowing_everyone() {
            return Some(self.machines_from(seat, target, true, most));
        }
        for (index, seat) in self.seats.iter().enumerate() {
            let distance = seat.point.distance_to(target);
            let is_ahead = distance != 0 && distance <= seat.horizon();
            if is_ahead || self.owns(index, target) {
                let found = self.machines_from(index, target, false, most);
                if found.len() >= least {
                    return Some(found);
                }
            }
        }
        None
    }

    /// Where a machine is reached, and what it last told of itself.
    pub fn contact(&self, node: NodeId) -> Option<&Peer> {
        if node == self.me.id { Some(&self.me) } else { self.machines.peer(node) }
    }

    /// Whether a machine is known that answered when it was last asked, if it was, and is not about to go.
    pub(crate) fn is_trusted(&self, node: NodeId) -> bool {
        self.machines.get(node).is_some_and(Machine::is_trusted)
    }

    /// The machines of all lists and the predecessors, each once.
    pub fn neighbours(&self) -> impl Iterator<Item = &Peer> {
        let lists = self.seats.iter().flat_map(|seat| seat.list().iter().map(|next| next.id));
        let before = self.seats.iter().filter_map(|seat| seat.before.map(|before| before.id));
        let all: std::collections::BTreeSet<NodeId> = lists.chain(before).collect();
        all.into_iter().filter_map(|id| self.machines.peer(id))
    }

    /// The other members that this node believes alive, those of its lists and those that spoke lately: not those that did
    /// not answer when they were last asked, nor those about to go.
    pub fn living(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        let since = self.a_round_ago(now);
        self.machines.all().filter_map(move |machine| {
            let is_listed = || self.seats.iter().any(|seat| seat.holds(machine.peer.id));
            let is_living = machine.is_fresh(since) || (machine.is_trusted() && is_listed());
            is_living.then_some(&machine.peer)
        })
    }

    /// All other machines of the peer book, in the order of their names.
    pub fn known(&self) -> impl Iterator<Item = &Peer> {
        self.machines.book().map(|machine| &machine.peer)
    }

    /// What each virtual node holds for true.
    pub fn views(&self) -> Vec<View> {
        let view = |seat: usize| View {
            point: self.seats[seat].point,
            successors: self.peers_of(seat),
            predecessor: self.predecessor(seat),
        };
        (0..self.seats.len()).map(view).collect()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.seats.iter().all(|seat| seat.list().is_empty())
    }

    /// A seat whose list goes all the way round, so that nobody can be unknown: it is shorter than it may be, and who comes
    /// before is in it.
    fn knowing_everyone(&self) -> Option<usize> {
        if self.is_alone() {
            return Some(0);
        }
        let wraps = |seat: &Seat| seat.before.is_some_and(|before| seat.holds(before.id));
        self.seats.iter().position(|seat| seat.list().len() < self.settings.successors && wraps(seat))
    }

    /// How far the virtual node before the one at `point` is, if that is known.
    fn behind(&self, point: Point) -> Option<u64> {
        let seat = self.seats.iter().find(|seat| seat.point == point)?;
        if let Some(before) = seat.before {
            return Some(before.distance);
        }
        let own = self.seats.iter().find(|other| other.point.distance_to(point) == seat.gap_before);
        match own {
            Some(own) => (own.next_distance() == own.gap).then_some(own.gap),
            None => self.is_alone().then_some(Point::AROUND),
        }
    }

    fn owns(&self, seat: usize, target: Point) -> bool {
        let seat = &self.seats[seat];
        self.behind(seat.point).is_some_and(|behind| seat.owns(target, behind))
    }

    /// The virtual node before this seat, of whichever machine.
    pub(super) fn predecessor(&self, seat: usize) -> Option<Place> {
        let here = self.seats[seat].point;
        let distance = self.behind(here)?;
        let peer = match self.seats[seat].before {
            Some(before) => self.machines.peer(before.id)?,
            None => &self.me,
        };
        Some(Place { peer: peer.clone(), point: here.plus(Point::AROUND - distance) })
    }

    pub(super) fn peers_of(&self, seat: usize) -> Vec<Peer> {
        self.seats[seat].list().iter().filter_map(|next| self.machines.peer(next.id)).cloned().collect()
    }

    /// The machines from the target on that this seat knows of, itself among them, in order; without `whole` only as far as
    /// its list reaches.
    fn machines_from(&self, seat: usize, target: Point, whole: bool, most: usize) -> Vec<Peer> {
        let seat = &self.seats[seat];
        let horizon = target.distance_to(seat.point.plus(seat.horizon()));
        let listed = seat.list().iter().filter_map(|next| self.machines.peer(next.id));
        let all = listed.chain(std::iter::once(&self.me)).map(|peer| (peer.first_from(target), peer));
        let mut near: Vec<_> = all.filter(|(distance, _)| whole || *distance <= horizon).collect();
        near.sort_unstable_by_key(|(distance, peer)| (*distance, peer.id));
        near.into_iter().take(most).map(|(_, peer)| peer.clone()).collect()
    }

    /// What this node answers to a step of a search.
    pub(super) fn hop_to(&self, target: Point) -> Hop {
        if !self.is_member() {
            return Hop::Outside;
        }
        for (index, seat) in self.seats.iter().enumerate() {
            if seat.precedes(target) || self.owns(index, target) {
                let is_short = seat.list().len() < self.settings.successors;
                return Hop::Found(self.machines_from(index, target, is_short, self.settings.successors));
            }
        }
        let beyond = self.covering(target, 1, BEYOND_MAX).unwrap_or_default();
        Hop::Nearer { before: self.nearer(target, None), beyond }
    }

    /// The machines of lists and fingers that stand nearer before the target than this one, the nearest first. Those that
    /// were asked before the instant `late` and did not answer are left out, if there are others.
    pub(super) fn nearer(&self, target: Point, late: Option<Instant>) -> Vec<Peer> {
        let own = self.seats.iter().map(|seat| seat.point.distance_to(target)).min().unwrap_or(Point::AROUND);
        let mut near: Vec<(u64, NodeId, Option<&Peer>)> = Vec::with_capacity(64);
        for seat in &self.seats {
            let listed = seat.list().iter().map(|next| (seat.point.plus(next.distance), next.id, None));
            let fingers = seat.fingers.iter().map(|finger| (finger.point, finger.peer.id, Some(&finger.peer)));
            let all = listed.chain(fingers).map(|(point, id, peer)| (point.distance_to(target), id, peer));
            near.extend(all.filter(|(distance, ..)| *distance < own));
        }
        near.sort_unstable_by_key(|(distance, id, _)| (*distance, *id));
        near.dedup_by_key(|(_, id, _)| *id);
        if let Some(late) = late
            && near.iter().any(|(_, id, _)| !self.asks.is_open_since(*id, late))
        {
            near.retain(|(_, id, _)| !self.asks.is_open_since(*id, late));
        }
        let peer_of = |id, peer: Option<&Peer>| peer.or_else(|| self.machines.peer(id)).cloned();
        near.into_iter().filter_map(|(_, id, peer)| peer_of(id, peer)).take(NEARER_MAX).collect()
    }

    /// A hash of this seat's list, as those compare it that ask for it.
    pub(super) fn hash_of_list(&mut self, seat: usize) -> u64 {
        if self.seats[seat].hash == 0 {
            let point = self.seats[seat].point;
            let listed = self.seats[seat].list().iter().filter_map(|next| self.machines.peer(next.id));
            self.seats[seat].hash = hash_of(point, listed);
        }
        self.seats[seat].hash
    }

    /// Answers a step of another machine's search.
    pub(super) fn step(&mut self, from: Peer, number: u64, target: Point) {
        let hop = self.hop_to(target);
        let message = Message::Stepped { from: self.me.clone(), number, hop };
        let to = super::Destination::Node(from.id, from.address);
        self.outputs.push_back(Output::Transmit { to, message });
    }
}
