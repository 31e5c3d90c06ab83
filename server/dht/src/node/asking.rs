//! How a request of this node's user finds the leader of its slot, and is tried again until its time is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Node, silent::Silent};
use crate::kv::{Key, OpId, Refusal, Request, RequestId};
use crate::{Ask, Failure, Freshness, Instant, NodeId, Output, Peer, Reply, SlotId, Version};

/// Where a slot was last said to be.
#[derive(Debug, Default)]
struct Hint {
    leader: Option<NodeId>,
    /// The version of the configuration that `members` comes from, as far as it is known.
    version: Version,
    members: Vec<NodeId>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Its turn: another write of this node to the same key is under way.
    Turn,
    /// The answer of this machine.
    Answer(NodeId),
    /// The ring, to say where the slot should be.
    Lookup,
    /// A moment.
    Pause,
}

#[derive(Debug)]
struct Pending {
    id: RequestId,
    slot: SlotId,
    request: Request,
    freshness: Freshness,
    deadline: Instant,
    waiting: Waiting,
    wake: Instant,
    /// Whether an attempt may have been carried out although no answer came.
    doubtful: bool,
    /// Whether the last refusal was for a full disk.
    read_only: bool,
    /// Machines still to be asked in this round.
    tour: VecDeque<NodeId>,
    /// Rounds begun: each asks everybody who may know.
    rounds: u32,
    /// Whether it begins or has paused: then whoever is thought to lead is asked first.
    rested: bool,
    /// Times it was sent on by somebody who said he knew better, since the last pause.
    sent_on: u32,
}

/// What another machine, or this node's own slot, said about a request.
#[derive(Debug)]
pub(super) struct News {
    from: NodeId,
    number: u64,
    reply: Result<Reply, Refusal>,
}

/// Requests of this node's users, and what was learnt from them about where slots are.
#[derive(Debug)]
pub(super) struct Asking {
    client: u64,
    counted: u64,
    pending: BTreeMap<u64, Pending>,
    timers: BTreeSet<(Instant, u64)>,
    /// The writes to each key: one is under way, the others wait. A client's operations on a key must not overtake
    /// each other, or the memory of the first would shadow the second.
    writes: BTreeMap<Key, VecDeque<u64>>,
    hints: BTreeMap<SlotId, Hint>,
    silent: Silent,
    news: VecDeque<News>,
}

/// After so many redirections without a pause somebody's knowledge is out of date.
const SENT_ON_MAX: u32 = 4;

/// Lookups of requests have their number as token, which never comes near those of slots.
pub(super) const TOKENS_OF_REQUESTS: u64 = 1 << 62;

impl Asking {
    pub(super) const fn new(client: u64) -> Self {
        Self {
            client,
            counted: 0,
            pending: BTreeMap::new(),
            timers: BTreeSet::new(),
            writes: BTreeMap::new(),
            hints: BTreeMap::new(),
            silent: Silent::new(),
            news: VecDeque::new(),
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.timers.first().map_or(Instant::FAR, |(at, _)| *at)
    }

    pub(super) fn heard(&mut self, from: NodeId, op: OpId, reply: Result<Reply, Refusal>) {
        self.silent.heard(from);
        if op.client == self.client && self.pending.contains_key(&op.number) {
            self.news.push_back(News { from, number: op.number, reply });
        }
    }

    pub(super) fn next_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// The leader of a slot tells where it is.
    pub(super) fn point(&mut self, slot: SlotId, version: Version, members: &[NodeId]) {
        let hint = self.hints.entry(slot).or_default();
        if version >= hint.version && members.len() <= crate::kv::limits::MEMBERS_MAX {
            *hint = Hint { leader: None, version, members: members.to_vec() };
        }
    }

    pub(super) fn hinted(&self, slot: SlotId) -> Option<(Version, Vec<NodeId>)> {
        let hint = self.hints.get(&slot).filter(|hint| !hint.members.is_empty())?;
        Some((hint.version, hint.members.clone()))
    }

    fn wait(&mut self, number: u64, waiting: Waiting, until: Instant) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        self.timers.remove(&(pending.wake, number));
        pending.waiting = waiting;
        pending.wake = until.min(pending.deadline);
        self.timers.insert((pending.wake, number));
    }
}

impl Node {
    pub(super) fn ask(&mut self, now: Instant, id: RequestId, ask: Ask) {
        let Ask { key, operation, freshness, patience } = ask;
        let is_read = operation.is_read();
        let fail = |failure| Output::Reply { id, reply: Err(failure) };
        if self.asking.pending.len() >= self.settings.requests {
            return self.outputs.push_back(fail(Failure::Busy));
        }
        let Some(terms) = self.terms else { return self.outputs.push_back(fail(Failure::Unavailable)) };
        self.asking.counted += 1;
        let number = self.asking.counted;
        let request = Request { key: key.clone(), op: OpId { client: self.asking.client, number }, operation };
        if (freshness == Freshness::Hint && !is_read) || !request.fits() {
            return self.outputs.push_back(fail(Failure::Invalid));
        }
        let deadline = now + patience;
        self.asking.pending.insert(
            number,
            Pending {
                id,
                slot: terms.slot_of(&key),
                request,
                freshness,
                deadline,
                waiting: Waiting::Turn,
                wake: deadline,
                doubtful: false,
                read_only: false,
                tour: VecDeque::new(),
                rounds: 0,
                rested: true,
                sent_on: 0,
            },
        );
        self.asking.timers.insert((deadline, number));
        if !is_read {
            let queue = self.asking.writes.entry(key).or_default();
            queue.push_back(number);
            if queue.len() > 1 {
                return;
            }
        }
        self.attempt(now, number, None);
    }

    pub(super) fn retry_due(&mut self, now: Instant) {
        while let Some((_, number)) = self.asking.timers.first().copied().filter(|(at, _)| *at <= now) {
            let Some(pending) = self.asking.pending.get_mut(&number) else { return };
            if let Waiting::Answer(silent) = pending.waiting {
                pending.doubtful = true;
                let slot = pending.slot;
                if let Some(hint) = self.asking.hints.get_mut(&slot).filter(|hint| hint.leader == Some(silent)) {
                    hint.leader = None;
                }
                self.asking.silent.note(silent, now, self.settings.attempt);
            }
            let Some(pending) = self.asking.pending.get(&number) else { return };
            if pending.deadline <= now {
                let unknown = pending.doubtful && !pending.request.operation.is_read();
                let failure = match (unknown, pending.read_only) {
                    (true, _) => Failure::Unknown,
                    (false, true) => Failure::ReadOnly,
                    (false, false) => Failure::Unavailable,
                };
                self.finish(now, number, Err(failure));
                continue;
            }
            self.attempt(now, number, None);
        }
    }

    /// Sends a request to the machine that is most likely to answer it; `hint` is one that was just named.
    fn attempt(&mut self, now: Instant, number: u64, hint: Option<NodeId>) {
        let Some(pending) = self.asking.pending.get_mut(&number) else { return };
        let slot = pending.slot;
        let own = self.slots.get(&slot);
        let here = own.is_some_and(|own| match pending.freshness {
            Freshness::Linearizable => own.leads().is_some(),
            Freshness::Hint => own.is_member(),
        });
        // Who is gone for good, or never was known, is not waited for, and for who was silent only when nobody else is left.
        let (ring, me, silent) = (&self.ring, self.me, &self.asking.silent);
        let is_silent = |node: &NodeId| silent.contains(now, *node);
        let is_known = |node: &NodeId| *node == me || ring.contact(*node).is_some();
        let is_near = |node: &NodeId| is_known(node) && !is_silent(node);
        let led = || self.asking.hints.get(&slot).and_then(|hint| hint.leader).filter(is_near);
        pending.tour.retain(is_known);
        let next = pending.tour.iter().position(|node| !is_silent(node)).unwrap_or(0);
        let rested = std::mem::take(&mut pending.rested);
        let target = if here {
            Some(self.me)
        } else {
            hint.filter(is_near).or_else(|| led().filter(|_| rested)).or_else(|| pending.tour.remove(next))
        };
        match target {
            Some(node) => self.send_request(now, number, node),
            None => self.next_round(now, number),
        }
    }

    fn send_request(&mut self, now: Instant, number: u64, node: NodeId) {
        let Some(pending) = self.asking.pending.get(&number) else { return };
        let (freshness, request) = (pending.freshness, pending.request.clone());
        let attempt = match freshness {
            Freshness::Linearizable => self.settings.attempt,
            Freshness::Hint => self.settings.hint_attempt,
        };
        self.asking.wait(number, Waiting::Answer(node), now + attempt);
        if node == self.me {
            self.serve(now, node, freshness, request);
        } else {
            self.post(now, node, crate::Part::Ask { freshness, request });
        }
    }

    /// Everybody who might have known was asked: pause, and ask the ring where the slot should be.
    fn next_round(&mut self, now: Instant, number: u64) {
        let Some(pending) = self.asking.pending.get_mut(&number) else { return };
        pending.rounds += 1;
        pending.sent_on = 0;
        let (slot, rounds) = (pending.slot, pending.rounds);
        let mut tour = VecDeque::from(self.known_members(slot).1);
        tour.retain(|node| *node != self.me);
        // Nobody to ask, or they were asked before and did not help.
        let are_silent = tour.iter().all(|node| self.asking.silent.contains(now, *node));
        if are_silent || rounds.is_multiple_of(2) {
            let Some(terms) = self.terms else { return };
            self.asking.wait(number, Waiting::Lookup, now + self.settings.ring.silence);
            let until = now + self.settings.ring.silence;
            return self.ring.lookup(now, number, terms.point_of(slot), until);
        }
        // From a random one on, so that many who know the same do not all ask the same; but those first that live.
        let turn = usize::try_from(self.random.below(tour.len() as u64)).unwrap_or_default();
        tour.rotate_left(turn);
        tour.make_contiguous().sort_by_key(|node| !self.ring.is_trusted(*node));
        self.begin_tour(now, number, tour);
    }

    /// Asks these machines one after the other: the first time at once, later after a pause.
    fn begin_tour(&mut self, now: Instant, number: u64, tour: VecDeque<NodeId>) {
        let Some(pending) = self.asking.pending.get_mut(&number) else { return };
        pending.tour = tour;
        if pending.rounds <= 1 {
            return self.attempt(now, number, None);
        }
        self.pause(now, number);
    }

    /// Waits a moment, the longer the more rounds there were.
    fn pause(&mut self, now: Instant, number: u64) {
        let Some(pending) = self.asking.pending.get(&number) else { return };
        let (shortest, longest) = self.settings.retry;
        let wait = (shortest * (1 << pending.rounds.min(10))).min(longest);
        let wait = self.random.span(wait / 2, wait);
        self.asking.wait(number, Waiting::Pause, now + wait);
        if let Some(pending) = self.asking.pending.get_mut(&number) {
            pending.rested = true;
        }
    }

    /// Whoever was asked knows the slot and cannot answer now: another may, or the same one a moment later.
    fn try_later(&mut self, now: Instant, number: u64, asked: NodeId) {
        let Some(pending) = self.asking.pending.get_mut(&number) else { return };
        if asked != self.me && !pending.tour.is_empty() {
            return self.attempt(now, number, None);
        }
        pending.rounds += 1;
        self.pause(now, number);
    }

    /// The ring has said where a slot should be.
    pub(super) fn found_slot(&mut self, now: Instant, number: u64, machines: Option<Vec<Peer>>) {
        let waits = |pending: &&Pending| pending.waiting == Waiting::Lookup;
        let Some(slot) = self.asking.pending.get(&number).filter(waits).map(|pending| pending.slot) else { return };
        // Whoever is said to keep it comes first, then those that should; a slot that moves is still with those behind.
        let mut tour = VecDeque::from(self.known_members(slot).1);
        for peer in machines.into_iter().flatten() {
            if !tour.contains(&peer.id) {
                tour.push_back(peer.id);
            }
            // In a large ring this node has not heard of most machines, and cannot ask one without its address.
            self.ring.acquaint(now, peer);
        }
        tour.retain(|node| *node != self.me);
        self.begin_tour(now, number, tour);
    }

    pub(super) fn told(&mut self, now: Instant, news: News) {
        let News { from, number, reply } = news;
        let Some(pending) = self.asking.pending.get_mut(&number) else { return };
        let slot = pending.slot;
        let expected = pending.waiting == Waiting::Answer(from);
        let refusal = match reply {
            Ok(reply) => {
                if pending.freshness == Freshness::Linearizable {
                    self.asking.hints.entry(slot).or_default().leader = Some(from);
                }
                return self.finish(now, number, Ok(reply));
            }
            Err(refusal) => refusal,
        };
        if !expected {
            // Of an earlier attempt, whose time was over: another one is under way.
            return;
        }
        if let Some(hint) = self.asking.hints.get_mut(&slot).filter(|hint| hint.leader == Some(from)) {
            hint.leader = None;
        }
        pending.read_only = refusal == Refusal::ReadOnly;
        match refusal {
            Refusal::Redirect { leader, members, version } => {
                let leader = leader.filter(|leader| *leader != from);
                let hint = self.asking.hints.entry(slot).or_default();
                if leader.is_some() {
                    hint.leader = leader;
                }
                // Who knows an older configuration sends back to those who know better.
                let newer = version > hint.version || hint.members.is_empty();
                if newer && members.len() <= crate::kv::limits::MEMBERS_MAX * 2 {
                    hint.version = version;
                    hint.members = members;
                    for node in hint.members.iter().copied().filter(|node| *node != from && *node != self.me) {
                        // Nearer to the slot than whom the ring named.
                        pending.tour.retain(|known| *known != node);
                        pending.tour.push_front(node);
                    }
                }
                pending.sent_on += 1;
                if pending.sent_on > SENT_ON_MAX {
                    // Those who know it disagree: soon they will not.
                    pending.sent_on = 0;
                    pending.rounds += 1;
                    return self.pause(now, number);
                }
                self.attempt(now, number, leader);
            }
            Refusal::Busy | Refusal::Unavailable | Refusal::ReadOnly => self.try_later(now, number, from),
            Refusal::Unknown { .. } => {
                pending.doubtful = true;
                self.try_later(now, number, from);
            }
            Refusal::Superseded => {
                let read = pending.request.operation.is_read();
                self.finish(now, number, Err(if read { Failure::Unavailable } else { Failure::Unknown }));
            }
            Refusal::TooLarge => self.finish(now, number, Err(Failure::Invalid)),
        }
    }

    fn finish(&mut self, now: Instant, number: u64, reply: Result<Reply, Failure>) {
        let Some(pending) = self.asking.pending.remove(&number) else { return };
        self.asking.timers.remove(&(pending.wake, number));
        self.outputs.push_back(Output::Reply { id: pending.id, reply });
        let Some(queue) = self.asking.writes.get_mut(&pending.request.key) else { return };
        let had_turn = queue.front() == Some(&number);
        queue.retain(|waiting| *waiting != number);
        let next = queue.front().copied();
        if queue.is_empty() {
            self.asking.writes.remove(&pending.request.key);
        }
        if let Some(next) = next.filter(|_| had_turn) {
            self.attempt(now, next, None);
        }
    }
}
