//! One node: its place on the ring, its part in the slots it keeps, and what its users ask.
//!
//! - `placing`: who should keep the slots that this node leads; `leaving`: how it goes without being missed.
//! - `asking`: how a request of this node's user finds the leader of its slot, and is tried again.
//! - `serving`: how requests of other nodes are answered.
//! - `picture`: what it can tell people of its slots.
//! - `packing`: how everything for one machine goes into one packet.
//!
//! ```text
//! Request → asking: which slot, who leads it (hints, else ring lookup) → that node: serving → kv::Slot → Told → Reply
//! ```

mod asking;
mod leaving;
mod packing;
mod picture;
mod placing;
mod serving;
mod settings;
mod silent;

pub use picture::Picture;
pub use settings::Settings;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use asking::Asking;
use leaving::Leaving;
use packing::Parcels;
use placing::Placing;
use serving::Serving;

use crate::Version;
use crate::kv::{self, Rules, Slot};
use crate::ring::{self, Ring};
use crate::{
    ClusterId, Event, Input, Instant, NodeId, Output, Packet, Part, Peer, Random, Record, SlotId, State, Terms,
};

/// With what a node starts.
#[derive(Clone, Debug)]
pub struct Life {
    /// Who it is, where it listens, and which of its lives this is.
    pub me: Peer,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What the cluster is to agree on, when this node makes it; ignored when its log says more.
    pub create: Option<Terms>,
    /// Where other nodes may be found.
    pub seeds: Vec<SocketAddr>,
    /// What its log tells.
    pub state: State,
    /// The position of the newest record of that log.
    pub position: u64,
}

/// What a node refused, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Packets of another cluster or with other terms.
    pub foreign: u64,
    /// Parts about slots that do not exist.
    pub slots: u64,
    /// Requests of other nodes beyond what this one takes at a time.
    pub requests: u64,
    /// Messages to machines whose address is not known.
    pub homeless: u64,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub(crate) me: NodeId,
    cluster: ClusterId,
    settings: Settings,
    rules: Rules,
    random: Random,
    terms: Option<Terms>,
    ring: Ring,
    slots: BTreeMap<SlotId, Slot>,
    /// When each slot wants to be woken, by time and by slot.
    wakes: BTreeSet<(Instant, SlotId)>,
    wake_of: BTreeMap<SlotId, Instant>,
    appended: u64,
    /// Records on their way to the disk: their position, and the slot that waits for them with its own count.
    unsynced: VecDeque<(u64, SlotId, u64)>,
    outputs: VecDeque<Output>,
    parcels: Parcels,
    asking: Asking,
    serving: Serving,
    placing: Placing,
    leaving: Leaving,
    refused: Refused,
}

impl Node {
    /// A node that starts, or starts again.
    pub fn new(life: Life, settings: Settings, rules: Rules, mut random: Random, now: Instant) -> Self {
        let Life { me, cluster, create, seeds, state, position } = life;
        let resumes = state.terms.is_some();
        let (ring_random, client) = (Random::seeded(random.next_u64()), random.next_u64());
        let book: Vec<Peer> = state.peers.into_values().filter(|peer| peer.id != me.id).collect();
        let creates = resumes || create.is_some();
        let node = me.id;
        let ring = Ring::new(me, creates, settings.ring.clone(), ring_random, now, book, seeds);
        let mut this = Self {
            me: node,
            cluster,
            rules,
            terms: state.terms,
            ring,
            slots: BTreeMap::new(),
            wakes: BTreeSet::new(),
            wake_of: BTreeMap::new(),
            appended: position,
            unsynced: VecDeque::new(),
            outputs: VecDeque::new(),
            parcels: Parcels::default(),
            asking: Asking::new(client),
            serving: Serving::default(),
            placing: Placing::new(now),
            leaving: Leaving::new(),
            refused: Refused::default(),
            settings,
            random,
        };
        let mut durable = state.slots;
        if !resumes && let Some(terms) = create.filter(|terms| terms.is_sane()) {
            let record = Record::Cluster { terms, founder: true };
            let mut founded = State::new(node, rules);
            founded.apply(&record);
            durable = founded.slots;
            this.terms = Some(terms);
            this.append(record);
        }
        for (slot, durable) in durable {
            let random = Random::seeded(this.random.next_u64());
            let part = Slot::resume(node, this.settings.slot.clone(), rules, random, now, durable);
            this.slots.insert(slot, start_slot(part, now));
            this.note_wake(slot);
        }
        this.settle(now);
        this
    }

    /// Takes one input in; afterwards drain [`Self::poll_output`] until it answers with a timeout.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Timeout => self.tick(now),
            Input::Packet { from, packet } => self.receive(now, from, packet),
            Input::Request { id, ask } => self.ask(now, id, ask),
            Input::Persisted { upto } => self.persisted(now, upto),
            Input::Unreachable { node } => self.ring.unreachable(now, node),
            Input::Leave => self.leave(now),
            Input::Seeds(seeds) => self.ring.set_seeds(now, seeds),
            Input::Force => {
                for slot in self.stranded(now) {
                    self.slot_input(now, slot, kv::Input::Force);
                    self.outputs.push_back(Output::Event(Event::Forced { slot }));
                }
            }
            Input::ReadOnly(full) => {
                for slot in self.slots.keys().copied().collect::<Vec<_>>() {
                    self.slot_input(now, slot, kv::Input::ReadOnly(full));
                }
            }
        }
        self.settle(now);
    }

    /// The next thing to be done; a timeout when there is nothing more.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Timeout(self.deadline()))
    }

    /// What the cluster agreed on, once the node knows.
    pub const fn terms(&self) -> Option<Terms> {
        self.terms
    }

    /// Its part in the ring.
    pub const fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Its part in each slot that it keeps, kept, or was asked about.
    pub const fn slots(&self) -> &BTreeMap<SlotId, Slot> {
        &self.slots
    }

    /// The slots that nobody leads and of whose members too few live to choose a leader, of those that this node could go
    /// on with alone ([`Input::Force`]). One that has lost nothing but its leader is not among them: it soon has another,
    /// and two who go on with it would be worse than none.
    pub fn stranded(&self, now: Instant) -> Vec<SlotId> {
        let living = self.living(now);
        let has_quorum = |slot: &Slot| {
            let config = &slot.state().config;
            config.nodes().len() == 1 || config.quorum(&living, self.rules)
        };
        let stranded = self.slots.iter().filter(|(_, slot)| slot.may_be_forced(now) && !has_quorum(slot));
        stranded.map(|(id, _)| *id).collect()
    }

    /// The machines that live, as far as this node knows: itself, and who has answered lately and does not go.
    fn living(&self, now: Instant) -> BTreeSet<NodeId> {
        let others = self.ring.living(now).map(|peer| peer.id);
        others.chain(std::iter::once(self.me)).collect()
    }

    /// What it refused since it started.
    pub const fn refused(&self) -> Refused {
        self.refused
    }

    fn deadline(&self) -> Instant {
        let slots = self.wakes.first().map_or(Instant::FAR, |(at, _)| *at);
        slots
            .min(self.ring.deadline())
            .min(self.asking.deadline())
            .min(self.placing.deadline())
            .min(self.leaving.deadline())
    }

    fn tick(&mut self, now: Instant) {
        while let Some((_, slot)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.slot_input(now, slot, kv::Input::Timeout);
        }
        if self.ring.deadline() <= now {
            self.ring.tick(now);
        }
        self.retry_due(now);
        self.place_due(now);
        self.leave_due(now);
    }

    fn receive(&mut self, now: Instant, from: NodeId, packet: Packet) {
        let terms_differ =
            packet.terms.is_some_and(|terms| !terms.is_sane() || self.terms.is_some_and(|own| own != terms));
        if packet.cluster != self.cluster || terms_differ || from == self.me {
            self.refused.foreign += 1;
            self.outputs.push_back(Output::Event(Event::Foreign { from }));
            return;
        }
        if let (None, Some(terms)) = (self.terms, packet.terms) {
            self.terms = Some(terms);
            self.append(Record::Cluster { terms, founder: false });
        }
        for peer in packet.peers.into_iter().filter(|peer| peer.id != self.me) {
            if peer.id == from {
                self.ring.acquaint(now, peer);
            } else {
                self.ring.introduce(now, peer);
            }
        }
        for part in packet.parts {
            match part {
                Part::Ring(message) => self.ring.receive(now, from, message),
                Part::Slot { slot, message } => {
                    if self.has_slot(slot) {
                        self.slot_input(now, slot, kv::Input::Message { from, message });
                    }
                }
                Part::Ask { freshness, request } => self.serve(now, from, freshness, request),
                Part::Told { op, reply } => self.asking.heard(from, op, reply),
                Part::Pointer { slot, version, members } => {
                    if self.has_slot(slot) {
                        self.asking.point(slot, version, &members);
                    }
                }
                Part::Handed { slot, config } => {
                    if self.has_slot(slot) {
                        self.handed(now, from, slot, config);
                    }
                }
                Part::Understood { slot, version } => self.understood(from, slot, version),
            }
        }
    }

    /// Whether there is such a slot; it is counted when there is not.
    fn has_slot(&mut self, slot: SlotId) -> bool {
        let exists = self.terms.is_some_and(|terms| slot.0 < terms.slots());
        if !exists {
            self.refused.slots += 1;
        }
        exists
    }

    fn append(&mut self, record: Record) {
        self.appended += 1;
        self.outputs.push_back(Output::Append { position: self.appended, record });
    }

    fn persisted(&mut self, now: Instant, upto: u64) {
        let mut synced: BTreeMap<SlotId, u64> = BTreeMap::new();
        while let Some((_, slot, position)) = self.unsynced.pop_front_if(|(position, _, _)| *position <= upto) {
            synced.insert(slot, position);
        }
        for (slot, upto) in synced {
            self.slot_input(now, slot, kv::Input::Persisted { upto });
            self.pay(now, slot);
        }
    }

    /// This node's part in a slot; made when it has none, of which there is a bound because slots are few.
    fn slot(&mut self, now: Instant, id: SlotId) -> &mut Slot {
        let (me, rules, settings, random) = (self.me, self.rules, &self.settings.slot, &mut self.random);
        self.slots.entry(id).or_insert_with(|| {
            let random = Random::seeded(random.next_u64());
            start_slot(Slot::resume(me, settings.clone(), rules, random, now, kv::Durable::new(me, rules)), now)
        })
    }

    /// Gives a slot an input and takes what it wants out of it.
    fn slot_input(&mut self, now: Instant, id: SlotId, input: kv::Input) {
        let holds_up = self.holds_up(id);
        let slot = self.slot(now, id);
        let led = slot.leads().is_some();
        slot.handle_input(now, input);
        while let Some(slot) = self.slots.get_mut(&id) {
            match slot.poll_output() {
                kv::Output::Transmit { to, message } => self.post_slot(now, to, id, message),
                kv::Output::Append { position, entry } => {
                    if let kv::Entry::Config { config, .. } = &entry {
                        config.audience().into_iter().for_each(|node| self.ring.rely_on(now, node));
                    }
                    self.append(Record::Slot { slot: id, entry });
                    self.unsynced.push_back((self.appended, id, position));
                }
                kv::Output::Reply { id, reply, rests_on } => self.served(now, id, reply, rests_on),
                kv::Output::Timeout(_) => break,
            }
        }
        if !led && self.slots.get(&id).is_some_and(|slot| slot.leads().is_some()) {
            // Who led before may have wanted other members, and nobody tells who leads now.
            self.place_soon(now);
        }
        if holds_up && !self.holds_up(id) {
            self.handed_over(now);
        }
        self.note_wake(id);
    }

    fn note_wake(&mut self, id: SlotId) {
        let Some(at) = self.slots.get(&id).map(Slot::deadline) else { return };
        let known = self.wake_of.insert(id, at);
        if known != Some(at) {
            known.map(|known| self.wakes.remove(&(known, id)));
            self.wakes.insert((at, id));
        }
    }

    /// Carries on until nothing more follows from the input, and packs what is to be sent.
    fn settle(&mut self, now: Instant) {
        self.permit_due(now);
        loop {
            if let Some(output) = self.ring.poll() {
                self.ring_wants(now, output);
            } else if let Some(news) = self.asking.next_news() {
                self.told(now, news);
            } else {
                break;
            }
        }
        self.check_left();
        self.flush();
    }

    fn ring_wants(&mut self, now: Instant, output: ring::Output) {
        match output {
            ring::Output::Transmit { to, message } => self.parcels.post(to, Part::Ring(message)),
            ring::Output::Found { token, machines } => self.found(now, token, machines),
            ring::Output::Remember(peer) => self.append(Record::Remember(peer)),
            ring::Output::Forget(node) => self.append(Record::Forget(node)),
            ring::Output::Joined => self.outputs.push_back(Output::Event(Event::Joined)),
            ring::Output::Changed => self.place_soon(now),
        }
    }

    /// The members of a slot as of the newest configuration this node has heard of, and its version.
    fn known_members(&self, slot: SlotId) -> (Version, Vec<NodeId>) {
        let own = self.slots.get(&slot).map(|slot| &slot.state().config);
        let own = own.map(|config| (config.version, config.nodes().into_iter().collect()));
        let hinted = self.asking.hinted(slot);
        own.into_iter().chain(hinted).max_by_key(|(version, _)| *version).unwrap_or_default()
    }
}

/// A slot of a node changes its members only when the node lets it.
fn start_slot(mut slot: Slot, now: Instant) -> Slot {
    slot.handle_input(now, kv::Input::Permit { may_change: false });
    slot
}
