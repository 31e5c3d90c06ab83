//! The ring: who comes after whom, and how to find who stands where (`ring.md` §3).
//!
//! Zave's correct Chord, with a successor list of [`Settings::successors`] distinct machines for each virtual node, so
//! that in a small cluster everybody knows everybody. It decides who *should* keep a slot and finds who does; it never
//! decides who *may* answer. A wrong ring costs time, never data.
//!
//! - `seat`: one virtual node: its successor list, its predecessor, its fingers.
//! - `machines`: what is known of the other machines, the peer book among it.
//! - `asks`: open questions, and when silence is death.
//! - `stabilize`: keeps lists and predecessors true; `adopt`: who is taken in, and who is dropped.
//! - `search`: lookups, step by step; `view`: what this node can answer by itself.
//! - `entry`: joins the ring, and finds another ring again after a partition.
//! - [`invariant`]: what must hold of all members together, for tests.

mod adopt;
mod asks;
mod entry;
pub mod invariant;
mod machines;
mod message;
mod search;
mod seat;
mod settings;
mod stabilize;
mod view;

pub use message::{Hop, Message, Place};
pub use settings::Settings;
pub use view::View;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::{Instant, NodeId, Peer, Random};
use asks::Asks;
use entry::Entry;
use machines::{Claim, Heard, Machines};
use search::Searches;
use seat::Seat;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To a known machine, at this address.
    Node(NodeId, SocketAddr),
    /// To whoever answers at this address.
    Address(SocketAddr),
}

/// What a ring wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message.
    Transmit {
        /// To whom.
        to: Destination,
        /// What.
        message: Message,
    },
    /// A lookup has come to its end.
    Found {
        /// The number it was begun with.
        token: u64,
        /// The first distinct machines clockwise from the target, the owner first, this node among them; nothing when no
        /// one answered in time.
        machines: Option<Vec<Peer>>,
    },
    /// Keep this row of the peer book on the disk, in place of an earlier one of the same machine.
    Remember(Peer),
    /// Drop the row of this machine.
    Forget(NodeId),
    /// This node has become a member of the ring.
    Joined,
    /// The neighbourhood is another one: what was computed from it may be out of date.
    Changed,
}

/// One machine's part in the ring, with all its virtual nodes.
#[derive(Debug)]
pub struct Ring {
    me: Peer,
    settings: Settings,
    random: Random,
    seats: Vec<Seat>,
    machines: Machines,
    asks: Asks,
    searches: Searches,
    /// The number of the last question; they begin anywhere, so that nobody answers what was not asked.
    numbers: u64,
    /// How far this node has come with joining; nothing when it is a member.
    entry: Option<Entry>,
    seeds: Vec<SocketAddr>,
    /// When an absent machine is greeted next, and how long after that the next one.
    probe_at: Instant,
    probe_pause: Duration,
    outputs: VecDeque<Output>,
    has_changed: bool,
    refused: u64,
}

impl Ring {
    /// A node that starts. With `create` it is a member at once, alone, and merges with whomever it finds: for the first
    /// node of a cluster, and for one that was a member before. Otherwise it joins through the machines of its book and the
    /// seeds, and never gives up.
    pub fn new(
        me: Peer,
        create: bool,
        settings: Settings,
        mut random: Random,
        now: Instant,
        book: impl IntoIterator<Item = Peer>,
        seeds: Vec<SocketAddr>,
    ) -> Self {
        let seats =
            me.points().map(|point| Seat::new(&me, point, now + random.span(Duration::ZERO, settings.stabilize)));
        let seats: Vec<Seat> = seats.collect();
        let mut machines = Machines::new(settings.book.max(BOOK_LEAST));
        for peer in book {
            if peer.id != me.id && peer.is_sound() && !machines.is_full() {
                machines.keep(now, peer, true);
            }
        }
        let mut ring = Self {
            entry: (!create).then(|| Entry::new(now, seats.len())),
            me,
            seats,
            machines,
            asks: Asks::default(),
            searches: Searches::default(),
            numbers: random.below(1 << 40),
            seeds,
            probe_at: now,
            probe_pause: PROBE_FIRST.min(settings.probe),
            settings,
            random,
            outputs: VecDeque::new(),
            has_changed: false,
            refused: 0,
        };
        if create {
            ring.outputs.push_back(Output::Joined);
        }
        ring
    }

    /// Takes a message in; `from` is who sent it, as the transport has made sure.
    pub fn receive(&mut self, now: Instant, from: NodeId, message: Message) {
        let sender = message.from();
        if sender.id != from || from == self.me.id || !message.is_sound() {
            self.refused += 1;
            return;
        }
        match message {
            Message::Ask { from, to, number, known } => self.asked(now, from, to, number, known),
            Message::Tell { from, number, predecessor, successors } => {
                self.told(now, from, number, predecessor, successors);
            }
            Message::Introduce { from, peer } => {
                if self.machines.get(from.id).is_some() && self.hear(now, &from) && self.is_member() {
                    self.offer(now, &peer);
                }
            }
            Message::Step { from, number, target } => self.step(from, number, target),
            Message::Stepped { from, number, hop } => self.stepped(now, from, number, hop),
            Message::Greet { from } => self.greeted_by(now, from),
            Message::Greeted { from, peers } => self.welcomed(now, from, peers),
            Message::Farewell { from } => {
                if self.machines.get(from.id).is_some() {
                    self.hear(now, &Peer { leaving: true, ..from });
                }
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.is_member() {
            for seat in 0..self.seats.len() {
                if self.seats[seat].stabilize_at <= now {
                    self.stabilize(now, seat);
                }
            }
            if self.probe_at <= now {
                self.probe(now);
            }
        } else {
            self.try_entry(now);
        }
        self.ask_again(now);
        self.search_on(now);
    }

    /// When something is due next.
    pub fn deadline(&self) -> Instant {
        let upkeep = match &self.entry {
            Some(entry) => entry.deadline(),
            None => self.seats.iter().map(|seat| seat.stabilize_at).fold(self.probe_at, Instant::min),
        };
        upkeep.min(self.asks.deadline()).min(self.searches.deadline())
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        std::mem::take(&mut self.has_changed).then_some(Output::Changed)
    }

    /// Takes into the book a machine that somebody told of, so that it is greeted some time; it has to show itself before
    /// it comes into any list.
    pub fn introduce(&mut self, now: Instant, peer: Peer) {
        self.take_in(now, peer, Claim::ToldOf);
    }

    /// The same of a machine that a lookup of this node named, and that it is about to ask: a full book makes room for it.
    pub fn acquaint(&mut self, now: Instant, peer: Peer) {
        self.take_in(now, peer, Claim::Needed);
    }

    fn take_in(&mut self, now: Instant, peer: Peer, claim: Claim) {
        if peer.id == self.me.id || !peer.is_sound() || self.machines.get(peer.id).is_some() {
            return;
        }
        if self.make_room(claim) {
            self.machines.keep(now, peer, false);
        }
    }

    /// Keeps on the disk where a machine is that this node counts on, if that is known: whoever told of it may have gone when
    /// this node starts again.
    pub fn rely_on(&mut self, now: Instant, node: NodeId) {
        self.outputs.extend(self.machines.rely_on(now, node).map(Output::Remember));
    }

    /// Other machines may be found there from now on, in place of those said before.
    pub fn set_seeds(&mut self, now: Instant, seeds: Vec<SocketAddr>) {
        if self.seeds == seeds {
            return;
        }
        self.seeds = seeds;
        match &mut self.entry {
            Some(entry) => entry.hurry(now),
            None => self.probe_at = now,
        }
    }

    /// The transport cannot reach this machine: it counts as silent from now on.
    pub fn unreachable(&mut self, now: Instant, node: NodeId) {
        if self.machines.get(node).is_some() {
            self.silent(now, node);
        }
    }

    /// Says farewell to all who may have this machine in a list. It goes on answering until it stops.
    pub fn leave(&mut self, now: Instant) {
        self.me.leaving = true;
        let since = self.a_round_ago(now);
        let mut told: Vec<Peer> = self.neighbours().cloned().collect();
        told.extend(self.machines.alive_since(since).cloned());
        told.sort_unstable_by_key(|peer| peer.id);
        told.dedup_by_key(|peer| peer.id);
        for peer in told.iter().take(FAREWELLS_MAX) {
            let message = Message::Farewell { from: self.me.clone() };
            self.send(peer, message);
        }
    }

    /// Whether this node is a member of the ring.
    pub const fn is_member(&self) -> bool {
        self.entry.is_none()
    }

    /// This machine, as it tells others of itself.
    pub const fn me(&self) -> &Peer {
        &self.me
    }

    /// How many messages were refused because they could not be true.
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// A machine has spoken. Answers whether it may be believed: not when it speaks from an earlier life.
    fn hear(&mut self, now: Instant, peer: &Peer) -> bool {
        if self.machines.get(peer.id).is_none() && !self.make_room(Claim::Spoke) {
            return false;
        }
        match self.machines.hear(now, peer) {
            Heard::Stale => false,
            Heard::Same => true,
            Heard::Changed => {
                self.outputs.push_back(Output::Remember(peer.clone()));
                self.renew(now, peer);
                true
            }
        }
    }

    /// Makes room for one more row, if it can.
    fn make_room(&mut self, claim: Claim) -> bool {
        if !self.machines.is_full() {
            return true;
        }
        let (seats, asks) = (&self.seats, &self.asks);
        let Some((victim, is_stored)) = self.machines.evict(|id| is_held(seats, asks, id), claim) else {
            return false;
        };
        if is_stored {
            self.outputs.push_back(Output::Forget(victim));
        }
        true
    }

    fn send(&mut self, to: &Peer, message: Message) {
        self.outputs.push_back(Output::Transmit { to: Destination::Node(to.id, to.address), message });
    }

    fn place(&self, seat: usize) -> Place {
        Place { peer: self.me.clone(), point: self.seats[seat].point }
    }

    /// A number that was not used before.
    const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Since then everybody who has this machine in a list has asked it, lost messages aside: one of a list each period.
    fn a_round_ago(&self, now: Instant) -> Instant {
        let periods = u32::try_from(self.settings.successors).unwrap_or(u32::MAX).saturating_mul(2);
        Self::ago(now, self.settings.stabilize.saturating_mul(periods))
    }

    /// The instant so long ago.
    fn ago(now: Instant, span: Duration) -> Instant {
        Instant::from_micros(now.as_micros().saturating_sub(micros(span)))
    }

    /// About so long: nodes that began together do not go on in step.
    fn about(&mut self, span: Duration) -> Duration {
        self.random.span(span * 3 / 4, span * 5 / 4)
    }
}

/// Whether a list, a predecessor or an open question needs to know of this machine.
fn is_held(seats: &[Seat], asks: &Asks, id: NodeId) -> bool {
    let holds = |seat: &Seat| seat.holds(id) || seat.before.is_some_and(|before| before.id == id);
    asks.is_open(id) || seats.iter().any(holds)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// How many virtual nodes lie between, at most, when a point is looked for: the bound of a search below a thousand nodes.
const HOPS_LEAST: u64 = 16;

/// The book is never smaller than what the lists need.
const BOOK_LEAST: usize = 256;

/// The most machines that a farewell goes to.
const FAREWELLS_MAX: usize = 64;

/// How soon a member that starts greets for the second time.
const PROBE_FIRST: Duration = Duration::from_secs(1);

/// The most machines that a list in a message may have; the rest is not read.
const LISTED_MAX: usize = 64;

#[cfg(test)]
mod tests;
