//! Lookups: step by step towards the target, each machine named by one before it, with the next best to fall back on.

use std::collections::BTreeMap;

use super::seat::Finger;
use super::{HOPS_LEAST, Hop, Message, Output, Ring};
use crate::{Instant, NodeId, Peer, Point};

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The caller wants to know.
    Asked(u64),
    /// A finger of this seat is to be refreshed.
    Finger(usize, u8),
    /// Who stands around this seat in the ring of another machine: the way two rings become one.
    Around(usize),
    /// The list that this seat joins with.
    Entry(usize),
}

/// One search on its way.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) purpose: Purpose,
    target: Point,
    until: Instant,
    /// Machines not asked yet, by how far they are before the target; the nearest last.
    frontier: Vec<(u64, Peer)>,
    /// Machines behind the target: they know who is before them, when those before the target do not answer.
    beyond: Vec<Peer>,
    /// Machines asked, in that order.
    tried: Vec<NodeId>,
    /// When the machine asked last has taken too long.
    hop_until: Instant,
    hops: u64,
}

/// All searches on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Searches {
    open: BTreeMap<u64, Search>,
    /// How many steps the searches that were asked for took, and the most that one took.
    steps: (u64, u64),
}

/// The most machines that one search asks, and the base of the numbers of its steps.
const TRIES_MAX: usize = 64;

/// The most machines a search keeps in mind.
const FRONTIER_MAX: usize = 16;

/// How many machines stand by when a finger is asked whether it still is the right one.
const FALLBACKS: usize = 2;

/// The most searches of the ring itself, on top of those of its callers.
const OWN_MAX: usize = 32;

impl Searches {
    pub(super) fn deadline(&self) -> Instant {
        self.open.values().map(|search| search.hop_until).min().unwrap_or(Instant::FAR)
    }

    pub(super) fn is_open(&self, is_meant: impl Fn(Purpose) -> bool) -> bool {
        self.open.values().any(|search| is_meant(search.purpose))
    }

    pub(super) fn count(&self, is_meant: impl Fn(&Purpose) -> bool) -> usize {
        self.open.values().filter(|search| is_meant(&search.purpose)).count()
    }

    pub(super) fn cancel(&mut self, is_meant: impl Fn(Purpose) -> bool) {
        self.open.retain(|_, search| !is_meant(search.purpose));
    }
}

impl Ring {
    /// Looks for the first distinct machines clockwise from the target. It ends in exactly one [`Output::Found`], which is
    /// there at once when this node knows them by itself.
    pub fn lookup(&mut self, now: Instant, token: u64, target: Point, until: Instant) {
        if let Some(machines) = self.found_here(target) {
            self.outputs.push_back(Output::Found { token, machines: Some(machines) });
        } else if self.searches.open.len() >= self.settings.lookups.saturating_add(OWN_MAX) {
            self.outputs.push_back(Output::Found { token, machines: None });
        } else {
            self.search(now, Purpose::Asked(token), target, until, Vec::new());
        }
    }

    /// The answer to a lookup that needs nobody else: this node sees enough machines from the target on, or there is nobody
    /// nearer to ask.
    fn found_here(&self, target: Point) -> Option<Vec<Peer>> {
        let bound = self.settings.successors;
        self.covering(target, (bound / 2).max(1), bound).or_else(|| match self.hop_to(target) {
            Hop::Found(machines) => Some(machines),
            Hop::Nearer { .. } | Hop::Outside => None,
        })
    }

    /// How many steps all lookups of this node's caller took that were answered, and the most that one of them took.
    pub const fn steps(&self) -> (u64, u64) {
        self.searches.steps
    }

    /// Begins a search. Besides those given, it begins with whom this node knows.
    pub(super) fn search(&mut self, now: Instant, purpose: Purpose, target: Point, until: Instant, first: Vec<Peer>) {
        let late = Self::ago(now, self.settings.hop);
        let is_hinted = matches!(purpose, Purpose::Finger(..)) && !first.is_empty();
        let others = match (first.is_empty(), is_hinted) {
            (true, _) => usize::MAX,
            (false, true) => FALLBACKS,
            (false, false) => 0,
        };
        let mut search = Search::new(purpose, target, until, now);
        for peer in first {
            // A finger is asked first although it stands behind the target: it knows who comes before itself.
            let distance = if is_hinted { 0 } else { peer.last_from(target) };
            search.add(distance, peer);
        }
        if others > 0 {
            for peer in self.nearer(target, Some(late)).into_iter().take(others) {
                search.add(peer.last_from(target).max(1), peer);
            }
        }
        let id = self.number();
        self.searches.open.insert(id, search);
        self.advance(now, id, false);
    }

    /// Asks the next best machine, or ends the search.
    fn advance(&mut self, now: Instant, id: u64, has_failed: bool) {
        let limit = self.hops_limit();
        let Some(search) = self.searches.open.get_mut(&id) else { return };
        let may_go_on = now < search.until && search.hops < limit && search.tried.len() < TRIES_MAX;
        let next = if may_go_on { search.next(self.me.id, has_failed) } else { None };
        let Some(peer) = next else { return self.begin_again(now, id) };
        let number = id.saturating_mul(TRIES_MAX as u64).saturating_add(search.tried.len() as u64);
        search.tried.push(peer.id);
        search.hop_until = (now + self.settings.hop).min(search.until);
        let message = Message::Step { from: self.me.clone(), number, target: search.target };
        self.send(&peer, message);
    }

    /// Nobody is left to be asked. While there is time, what was asked for is looked for once more a little later: the dead
    /// that stand in the way are found out meanwhile.
    fn begin_again(&mut self, now: Instant, id: u64) {
        let Some(search) = self.searches.open.get(&id) else { return };
        let at = now + self.settings.hop;
        let is_asked = matches!(search.purpose, Purpose::Asked(_));
        let found = if is_asked { self.found_here(search.target) } else { None };
        if found.is_some() || !is_asked || at >= search.until {
            return self.finish(now, id, found);
        }
        let Some(search) = self.searches.open.remove(&id) else { return };
        let Search { purpose, target, until, .. } = search;
        let mut again = Search::new(purpose, target, until, at);
        for peer in self.nearer(target, Some(Self::ago(now, self.settings.hop))) {
            again.add(peer.last_from(target), peer);
        }
        let id = self.number();
        self.searches.open.insert(id, again);
    }

    /// More than any search needs in a ring as large as this one seems to be.
    fn hops_limit(&self) -> u64 {
        let count = self.seats.iter().map(super::seat::Seat::density).max().unwrap_or(0);
        if count < 1000 { HOPS_LEAST } else { u64::from(u64::BITS - count.leading_zeros()) + 6 }
    }

    /// A machine has answered a step.
    pub(super) fn stepped(&mut self, now: Instant, from: Peer, number: u64, hop: Hop) {
        let (id, step) = (number / TRIES_MAX as u64, usize::try_from(number % TRIES_MAX as u64).unwrap_or(TRIES_MAX));
        let Some(search) = self.searches.open.get(&id) else { return };
        if search.tried.get(step) != Some(&from.id) {
            return;
        }
        let is_last = step + 1 == search.tried.len();
        if self.machines.get(from.id).is_some() && !self.hear(now, &from) {
            return;
        }
        match hop {
            Hop::Found(machines) => {
                let machines = self.sensible_found(machines);
                if let Some(search) = self.searches.open.get_mut(&id) {
                    search.hops += 1;
                }
                if !machines.is_empty() {
                    if let Some(purpose) = self.searches.open.get(&id).map(|search| search.purpose) {
                        self.answered_by(now, &from, purpose);
                    }
                    return self.finish(now, id, Some(machines));
                }
            }
            Hop::Nearer { before, beyond } => {
                let (before, mut beyond) = (self.sensible(before), self.sensible(beyond));
                beyond.truncate(FRONTIER_MAX);
                let Some(search) = self.searches.open.get_mut(&id) else { return };
                if is_last {
                    search.hops += 1;
                }
                if !beyond.is_empty() {
                    search.beyond = beyond;
                }
                for peer in before {
                    let distance = peer.last_from(search.target);
                    search.add(distance, peer);
                }
            }
            Hop::Outside => {}
        }
        if is_last {
            self.advance(now, id, false);
        }
    }

    /// The machines of an answer that there can be, each once; this one may be among them.
    fn sensible_found(&self, machines: Vec<Peer>) -> Vec<Peer> {
        let mut found: Vec<Peer> = Vec::with_capacity(machines.len().min(self.settings.successors));
        for peer in machines {
            if found.len() >= self.settings.successors {
                break;
            }
            if peer.is_sound() && !found.iter().any(|other| other.id == peer.id) {
                // What another one holds of this machine may be out of date.
                found.push(if peer.id == self.me.id && self.is_member() { self.me.clone() } else { peer });
            }
        }
        found
    }

    /// Goes on with the searches whose last step takes too long.
    pub(super) fn search_on(&mut self, now: Instant) {
        let due = self.searches.open.iter().filter(|(_, search)| search.hop_until <= now);
        let due: Vec<u64> = due.map(|(id, _)| *id).collect();
        for id in due {
            let last = self.searches.open.get(&id).and_then(|search| search.tried.last().copied());
            if let Some(last) = last {
                self.is_slow(now, last);
            }
            self.advance(now, id, last.is_some());
        }
    }

    /// A machine did not answer a step in time: it is no finger any more, and a neighbour is asked whether it lives.
    fn is_slow(&mut self, now: Instant, id: NodeId) {
        for seat in &mut self.seats {
            seat.fingers.retain(|finger| finger.peer.id != id);
        }
        if let Some(seat) = self.seats.iter().position(|seat| seat.holds(id)) {
            self.ask(now, seat, id);
        }
    }

    fn finish(&mut self, now: Instant, id: u64, machines: Option<Vec<Peer>>) {
        let Some(search) = self.searches.open.remove(&id) else { return };
        match search.purpose {
            Purpose::Asked(token) => {
                if machines.is_some() {
                    let (all, most) = self.searches.steps;
                    self.searches.steps = (all.saturating_add(search.hops), most.max(search.hops));
                }
                self.outputs.push_back(Output::Found { token, machines });
            }
            Purpose::Finger(seat, reach) => {
                let owner = machines.and_then(|machines| machines.into_iter().next());
                let other = owner.filter(|owner| owner.id != self.me.id && !owner.leaving);
                self.seats[seat].point_finger(reach, other);
            }
            Purpose::Around(_) => {
                for peer in machines.unwrap_or_default() {
                    self.offer(now, &peer);
                }
            }
            Purpose::Entry(seat) => self.entered(now, seat, machines),
        }
    }

    /// Looks whether the next finger in turn still is the right one: it says so itself, in one step, when it is.
    pub(super) fn refresh_finger(&mut self, now: Instant, seat: usize) {
        if self.searches.is_open(|purpose| matches!(purpose, Purpose::Finger(other, _) if other == seat)) {
            return;
        }
        if self.seats[seat].list().len() < self.settings.successors {
            return;
        }
        let Some(reach) = self.seats[seat].next_reach() else { return };
        let target = self.seats[seat].point.plus(1 << reach);
        let is_meant = |finger: &&Finger| finger.reach == reach;
        let present = self.seats[seat].fingers.iter().find(is_meant).map(|finger| finger.peer.clone());
        if let Some(machines) = self.covering(target, 1, 1) {
            let owner = machines.into_iter().next().filter(|owner| owner.id != self.me.id);
            return self.seats[seat].point_finger(reach, owner);
        }
        let until = now + self.settings.hop * 8;
        self.search(now, Purpose::Finger(seat, reach), target, until, present.into_iter().collect());
    }
}

impl Search {
    const fn new(purpose: Purpose, target: Point, until: Instant, hop_until: Instant) -> Self {
        Self { purpose, target, until, frontier: Vec::new(), beyond: Vec::new(), tried: Vec::new(), hop_until, hops: 0 }
    }

    /// The machine to ask next: the nearest before the target, or behind it after one before it has failed.
    fn next(&mut self, me: NodeId, has_failed: bool) -> Option<Peer> {
        let is_new = |peer: &Peer| peer.id != me && !self.tried.contains(&peer.id);
        if has_failed && let Some(place) = self.beyond.iter().position(is_new) {
            return Some(self.beyond.swap_remove(place));
        }
        while let Some((_, peer)) = self.frontier.pop() {
            if peer.id != me && !self.tried.contains(&peer.id) {
                return Some(peer);
            }
        }
        let place = self.beyond.iter().position(|peer| peer.id != me && !self.tried.contains(&peer.id))?;
        Some(self.beyond.swap_remove(place))
    }

    /// Keeps a machine in mind, if it is among the nearest.
    fn add(&mut self, distance: u64, peer: Peer) {
        if self.tried.contains(&peer.id) || self.frontier.iter().any(|(_, other)| other.id == peer.id) {
            return;
        }
        let place = self.frontier.partition_point(|(other, _)| *other > distance);
        self.frontier.insert(place, (distance, peer));
        if self.frontier.len() > FRONTIER_MAX {
            self.frontier.remove(0);
        }
    }
}
