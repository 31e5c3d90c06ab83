//! The way into the ring, and back together after a partition.
//!
//! Both are the same: greet a machine that is not a neighbour, and look for one's own point through it. Who is not a member
//! yet takes the answer as its list; who is a member asks the machines of the answer, so that each side takes the other
//! in where it belongs.

use std::net::SocketAddr;
use std::time::Duration;

use super::machines::Machine;
use super::search::Purpose;
use super::seat::Next;
use super::{Destination, Message, Output, Ring, is_held};
use crate::{Instant, NodeId, Peer, Random};

/// How far a node has come that is not a member yet. It becomes one with all its virtual nodes at once, when each has its
/// list: others know where all of them stand as soon as they know the machine.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The list of each seat, as one answer gave it.
    lists: Vec<Option<Vec<Peer>>>,
    /// Who gave the answers: those that stand before the seats, or behind.
    givers: Vec<NodeId>,
    attempt: u32,
    /// When the next attempt begins, or the present one has taken too long.
    again: Instant,
}

/// How long an attempt to join may take.
const ENTRY_SPAN: Duration = Duration::from_secs(5);

/// How long a node waits between two attempts, at first and at most.
const ENTRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The most seeds and the most machines of the book that are greeted in one attempt.
const GREETED_MAX: usize = 4;

/// The most machines that a greeting is answered with.
const NAMED_MAX: usize = 8;

/// The most ways that a search around this node goes at a time.
const AROUND_MAX: usize = 4;

impl Entry {
    pub(super) fn new(now: Instant, seats: usize) -> Self {
        Self { lists: vec![None; seats], givers: Vec::new(), attempt: 0, again: now }
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.again
    }

    /// There is somebody new to ask: the next attempt begins at once.
    pub(super) const fn hurry(&mut self, now: Instant) {
        self.again = now;
    }

    /// How long to wait for the next attempt: longer each time, and not as long as others wait.
    fn pause(&self, random: &mut Random) -> Duration {
        let (least, most) = ENTRY_PAUSE;
        let pause = least.saturating_mul(1 << self.attempt.min(8)).min(most);
        random.span(pause / 2, pause)
    }
}

impl Ring {
    /// Begins an attempt to join, when it is time.
    pub(super) fn try_entry(&mut self, now: Instant) {
        let Some(entry) = &mut self.entry else { return };
        if now < entry.again {
            return;
        }
        let again = now + entry.pause(&mut self.random);
        *entry = Entry { attempt: entry.attempt.saturating_add(1), again, ..Entry::new(now, entry.lists.len()) };
        self.searches.cancel(|purpose| matches!(purpose, Purpose::Entry(_)));
        for _ in 0..GREETED_MAX.min(self.seeds.len()) {
            self.greet_seed();
        }
        for _ in 0..GREETED_MAX {
            self.greet_absent(now);
        }
    }

    /// Greets somebody who is not a neighbour, and a seed: the way to a ring that this node has lost, or never knew of.
    pub(super) fn probe(&mut self, now: Instant) {
        let pause = self.about(self.probe_pause);
        self.probe_at = now + pause;
        self.probe_pause = (self.probe_pause * 2).min(self.settings.probe);
        let (seats, asks) = (&self.seats, &self.asks);
        let since = Self::ago(now, self.settings.memory);
        for id in self.machines.sweep(now, since, |id| is_held(seats, asks, id)) {
            self.outputs.push_back(Output::Forget(id));
        }
        self.greet_absent(now);
        self.greet_seed();
    }

    /// Greets somebody of the book who is in no list: one of whom nothing was heard for long, if there is one.
    fn greet_absent(&mut self, now: Instant) {
        let (seats, asks, since) = (&self.seats, &self.asks, self.a_round_ago(now));
        let is_absent = |machine: &&Machine| !is_held(seats, asks, machine.peer.id);
        let mut absent: Vec<&Machine> = self.machines.book().filter(is_absent).collect();
        if absent.iter().any(|machine| !machine.is_alive(since)) {
            absent.retain(|machine| !machine.is_alive(since));
        }
        let count = u64::try_from(absent.len()).unwrap_or(u64::MAX);
        let chosen = usize::try_from(self.random.below(count)).unwrap_or(0);
        if let Some(machine) = absent.get(chosen) {
            let to = Destination::Node(machine.peer.id, machine.peer.address);
            self.greet(to);
        }
    }

    fn greet_seed(&mut self) {
        let is_near =
            |seed: &SocketAddr| *seed == self.me.address || self.neighbours().any(|peer| peer.address == *seed);
        let seeds: Vec<SocketAddr> = self.seeds.iter().filter(|seed| !is_near(seed)).copied().collect();
        let count = u64::try_from(seeds.len()).unwrap_or(u64::MAX);
        let chosen = usize::try_from(self.random.below(count)).unwrap_or(0);
        if let Some(seed) = seeds.get(chosen) {
            self.greet(Destination::Address(*seed));
        }
    }

    fn greet(&mut self, to: Destination) {
        let message = Message::Greet { from: self.me.clone() };
        self.outputs.push_back(Output::Transmit { to, message });
    }

    /// Answers a greeting with machines to go on from: those near the one that greets.
    pub(super) fn greeted_by(&mut self, now: Instant, from: Peer) {
        if !self.hear(now, &from) {
            return;
        }
        let target = from.points().next().unwrap_or_default();
        let peers = if self.is_member() {
            self.nearer(target, None)
        } else {
            let others = self.machines.book().map(|machine| &machine.peer).filter(|peer| peer.id != from.id);
            others.take(NAMED_MAX).cloned().collect()
        };
        let message = Message::Greeted { from: self.me.clone(), peers };
        self.send(&from, message);
    }

    /// A greeting is answered: this node looks for its own place through who answered.
    pub(super) fn welcomed(&mut self, now: Instant, from: Peer, peers: Vec<Peer>) {
        if !self.hear(now, &from) {
            return;
        }
        self.machines.answered(from.id);
        let mut through = vec![from];
        through.extend(self.sensible(peers).into_iter().take(NAMED_MAX));
        if self.is_member() {
            if self.seats.iter().any(|seat| seat.holds(through[0].id)) {
                return;
            }
            let count = u64::try_from(self.seats.len()).unwrap_or(1);
            let seat = usize::try_from(self.random.below(count)).unwrap_or(0);
            self.look_around(now, seat, through);
        } else if !self.searches.is_open(|purpose| matches!(purpose, Purpose::Entry(_))) {
            if let Some(entry) = &mut self.entry {
                *entry =
                    Entry { attempt: entry.attempt, again: now + ENTRY_SPAN, ..Entry::new(now, entry.lists.len()) };
            }
            for seat in 0..self.seats.len() {
                let point = self.seats[seat].point;
                self.search(now, Purpose::Entry(seat), point, now + ENTRY_SPAN, through.clone());
            }
        }
    }

    fn look_around(&mut self, now: Instant, seat: usize, through: Vec<Peer>) {
        let is_around = |search: &Purpose| matches!(search, Purpose::Around(_));
        if self.searches.count(is_around) < AROUND_MAX {
            let point = self.seats[seat].point;
            self.search(now, Purpose::Around(seat), point, now + ENTRY_SPAN, through);
        }
    }

    /// A seat has lost its whole list: it looks for its place again, through everybody who may live.
    pub(super) fn refill(&mut self, now: Instant, seat: usize) {
        let since = Self::ago(now, self.settings.probe * 6);
        let mut through: Vec<Peer> = self.seats[seat].fingers.iter().map(|finger| finger.peer.clone()).collect();
        let trusted = |peer: &&Peer| self.machines.get(peer.id).is_some_and(|machine| !machine.is_doubted());
        through.extend(self.machines.alive_since(since).filter(trusted).take(NAMED_MAX).cloned());
        through.retain(|peer| !peer.leaving);
        if !through.is_empty() {
            self.look_around(now, seat, through);
        }
        self.probe_pause = super::PROBE_FIRST.min(self.settings.probe);
        self.probe_at = self.probe_at.min(now + self.probe_pause);
    }

    /// Notes who gave the answer that a seat joins with: it is told as soon as this node is a member.
    pub(super) fn answered_by(&mut self, now: Instant, giver: &Peer, purpose: Purpose) {
        if matches!(purpose, Purpose::Entry(_))
            && self.hear(now, giver)
            && let Some(entry) = &mut self.entry
        {
            entry.givers.push(giver.id);
        }
    }

    /// The search for a seat's place has ended. With the last one this node is a member, or tries again later.
    pub(super) fn entered(&mut self, now: Instant, seat: usize, machines: Option<Vec<Peer>>) {
        let own = self.me.id;
        let mut others = machines.unwrap_or_default();
        others.retain(|peer| peer.id != own);
        // When all members are about to go, whoever joins begins what comes after them: they wait for somebody to take over.
        let list = (!others.is_empty()).then(|| others.into_iter().filter(|peer| !peer.leaving).collect::<Vec<_>>());
        let Some(entry) = &mut self.entry else { return };
        let Some(list) = list else {
            entry.again = entry.again.min(now + entry.pause(&mut self.random));
            self.searches.cancel(|purpose| matches!(purpose, Purpose::Entry(_)));
            return;
        };
        if let Some(place) = entry.lists.get_mut(seat) {
            *place = Some(list);
        }
        if entry.lists.iter().any(Option::is_none) {
            return;
        }
        let Some(entry) = self.entry.take() else { return };
        self.become_member(now, entry);
    }

    fn become_member(&mut self, now: Instant, entry: Entry) {
        for (seat, list) in entry.lists.into_iter().enumerate() {
            let point = self.seats[seat].point;
            let mut nexts = Vec::new();
            for peer in list.into_iter().flatten() {
                self.machines_learn(now, &peer);
                let Some(peer) = self.machines.peer(peer.id).filter(|peer| !peer.leaving) else { continue };
                nexts.push(Next { distance: peer.first_after(point).0, id: peer.id });
            }
            self.seats[seat].replace(nexts, self.settings.successors);
        }
        self.outputs.push_back(Output::Joined);
        self.has_changed = true;
        for seat in 0..self.seats.len() {
            if let Some(first) = self.seats[seat].first() {
                self.ask(now, seat, first.id);
            }
            self.seats[seat].stabilize_at = now + self.about(self.settings.stabilize) / 2;
        }
        for giver in entry.givers {
            self.ask(now, 0, giver);
        }
        self.probe_at = now + self.about(self.settings.probe);
        self.probe_pause = self.settings.probe;
    }
}
