//! A few rings in memory, with delays, losses and walls between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::ring::invariant::{self, Member};
use crate::ring::{Destination, Message, Output, Ring, Settings};
use crate::{Instant, NodeId, Peer, Point, Random};

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) random: Random,
    pub(super) rings: BTreeMap<u64, Ring>,
    pub(super) settings: Settings,
    /// Messages on their way, by when they come and in which order they were sent.
    queue: BTreeMap<(Instant, u64), (u64, u64, Message)>,
    /// When each node has something to do, and the same by node.
    due: BTreeSet<(Instant, u64)>,
    deadlines: BTreeMap<u64, Instant>,
    /// Links that carry nothing, from and to.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// How many of a thousand messages are lost.
    pub(super) loss: u64,
    pub(super) sent: u64,
    pub(super) found: BTreeMap<u64, Vec<Option<Vec<Peer>>>>,
    /// What each node would have on its disk.
    pub(super) disks: BTreeMap<u64, BTreeMap<NodeId, Peer>>,
    lives: BTreeMap<u64, u64>,
    /// Nodes that are no rings: what they answer to each message.
    pub(super) liars: BTreeMap<u64, Liar>,
    /// How often a neighbourhood became another one, and how often something was to be written to a disk.
    pub(super) changes: u64,
    pub(super) writes: u64,
}

/// What a node that lies answers to a message; the number differs from message to message.
pub(super) type Liar = fn(u64, &Message) -> Vec<Message>;

pub(in crate::ring) fn address(node: u64) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(node).expect("nodes have small numbers")))
}

pub(in crate::ring) fn peer(node: u64, incarnation: u64, seats: u8) -> Peer {
    Peer { id: NodeId::from(node), incarnation, address: address(node), seats, leaving: false }
}

fn number(id: NodeId) -> u64 {
    u64::try_from(id.0).expect("nodes have small numbers")
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            random: Random::seeded(seed),
            rings: BTreeMap::new(),
            settings: Settings::default(),
            queue: BTreeMap::new(),
            due: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
            sent: 0,
            found: BTreeMap::new(),
            disks: BTreeMap::new(),
            lives: BTreeMap::new(),
            liars: BTreeMap::new(),
            changes: 0,
            writes: 0,
        }
    }

    /// So many nodes, the first of which creates the ring; all others join through it, at once.
    pub(super) fn of(seed: u64, nodes: u64, seats: u8) -> Self {
        let mut world = Self::new(seed);
        for node in 1..=nodes {
            world.start(node, seats, node == 1, if node == 1 { &[] } else { &[1] });
        }
        world
    }

    /// As [`Self::of`], and the ring is ideal.
    pub(super) fn settled(seed: u64, nodes: u64, seats: u8) -> Self {
        let mut world = Self::of(seed, nodes, seats);
        world.until_ideal(60);
        world
    }

    /// Starts a node, again perhaps: with the book that is on its disk, and in another life.
    pub(super) fn start(&mut self, node: u64, seats: u8, create: bool, seeds: &[u64]) {
        let life = self.lives.entry(node).or_insert(0);
        *life += 1;
        let book: Vec<Peer> = self.disks.entry(node).or_default().values().cloned().collect();
        let random = Random::seeded(self.random.next_u64());
        let seeds = seeds.iter().map(|seed| address(*seed)).collect();
        let ring = Ring::new(peer(node, *life, seats), create, self.settings.clone(), random, self.now, book, seeds);
        self.rings.insert(node, ring);
        self.drain(node);
    }

    pub(super) fn crash(&mut self, node: u64) {
        self.rings.remove(&node);
        self.schedule(node);
    }

    pub(super) fn wall(&mut self, side: impl Fn(u64) -> bool) {
        let nodes: Vec<u64> = self.rings.keys().copied().collect();
        for from in &nodes {
            self.cut.extend(nodes.iter().filter(|to| side(*from) != side(**to)).map(|to| (*from, *to)));
        }
    }

    pub(super) fn with<T>(&mut self, node: u64, what: impl FnOnce(&mut Ring, Instant) -> T) -> T {
        let result = what(self.rings.get_mut(&node).expect("the node runs"), self.now);
        self.drain(node);
        result
    }

    fn drain(&mut self, node: u64) {
        let Some(ring) = self.rings.get_mut(&node) else { return };
        let outputs: Vec<Output> = std::iter::from_fn(|| ring.poll()).take(1000).collect();
        assert!(outputs.len() < 1000, "one input makes no flood");
        for output in outputs {
            match output {
                Output::Transmit { to, message } => {
                    let (Destination::Node(_, to) | Destination::Address(to)) = to;
                    let to = u64::from(to.port());
                    self.send(node, to, message);
                }
                Output::Found { token, machines } => self.found.entry(token).or_default().push(machines),
                Output::Remember(peer) => {
                    self.writes += 1;
                    self.disks.entry(node).or_default().insert(peer.id, peer);
                }
                Output::Forget(id) => {
                    self.writes += 1;
                    self.disks.entry(node).or_default().remove(&id);
                }
                Output::Changed => self.changes += 1,
                Output::Joined => {}
            }
        }
        self.schedule(node);
    }

    fn send(&mut self, from: u64, to: u64, message: Message) {
        self.sent += 1;
        let is_lost = self.cut.contains(&(from, to)) || self.random.chance(self.loss);
        if !is_lost {
            let delay = self.random.span(Duration::from_millis(2), Duration::from_millis(40));
            self.queue.insert((self.now + delay, self.sent), (from, to, message));
        }
    }

    fn schedule(&mut self, node: u64) {
        if let Some(former) = self.deadlines.remove(&node) {
            self.due.remove(&(former, node));
        }
        if let Some(ring) = self.rings.get(&node) {
            self.deadlines.insert(node, ring.deadline());
            self.due.insert((ring.deadline(), node));
        }
    }

    /// Does the next thing, if it is due before `end`.
    fn turn(&mut self, end: Instant) -> bool {
        let message_at = self.queue.first_key_value().map_or(Instant::FAR, |((at, _), _)| *at);
        let (tick_at, node) = self.due.first().copied().unwrap_or((Instant::FAR, 0));
        let at = message_at.min(tick_at).max(self.now);
        if at > end {
            self.now = end;
            return false;
        }
        self.now = at;
        if message_at <= tick_at {
            let Some((_, (from, to, message))) = self.queue.pop_first() else { return true };
            if let Some(lie) = self.liars.get(&to) {
                for answer in lie(self.sent, &message) {
                    self.send(to, from, answer);
                }
            } else if let Some(ring) = self.rings.get_mut(&to) {
                ring.receive(at, NodeId::from(from), message);
            }
            self.drain(to);
        } else {
            self.with(node, Ring::tick);
            assert!(self.rings[&node].deadline() > at, "a tick leaves nothing due at node {node}");
        }
        true
    }

    pub(super) fn run(&mut self, seconds: u64) {
        self.run_for(Duration::from_secs(seconds));
    }

    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.turn(end) {}
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let members = self.rings.values().filter(|ring| ring.is_member() && !ring.me().leaving);
        members.map(|ring| Member { peer: ring.me().clone(), views: ring.views() }).collect()
    }

    pub(super) fn is_ideal(&self) -> Result<(), String> {
        let members = self.members();
        let running = self.rings.values().filter(|ring| !ring.me().leaving).count();
        if members.len() < running {
            return Err(format!("{} of {running} are members", members.len()));
        }
        invariant::check_ideal(&members, self.settings.successors)
    }

    /// Runs until the ring is ideal; answers how many seconds that took.
    pub(super) fn until_ideal(&mut self, most: u64) -> u64 {
        self.until_ideal_or(most, "")
    }

    /// The same, with words for a failure.
    pub(super) fn until_ideal_or(&mut self, most: u64, words: &str) -> u64 {
        for seconds in 0..=most {
            if self.is_ideal().is_ok() {
                return seconds;
            }
            self.run(1);
        }
        panic!("{words} not ideal after {most} s: {:?}", self.is_ideal());
    }

    /// Who really owns the target.
    pub(super) fn owner(&self, target: Point) -> NodeId {
        let members = self.members();
        members.iter().map(|member| (member.peer.first_from(target), member.peer.id)).min().expect("somebody lives").1
    }

    /// Looks for so many points from everywhere; answers how many lookups ended with the true owner.
    pub(super) fn look_up(&mut self, count: u64) -> usize {
        let nodes: Vec<u64> = self.rings.keys().copied().collect();
        let mut wanted = BTreeMap::new();
        self.found.clear();
        for token in 0..count {
            let node = nodes[usize::try_from(self.random.below(nodes.len() as u64)).expect("small")];
            let target = Point::new(self.random.next_u64());
            wanted.insert(token, self.owner(target));
            self.with(node, |ring, now| ring.lookup(now, token, target, now + Duration::from_secs(5)));
        }
        self.run(6);
        let right = |token: u64, owner: NodeId| {
            let answers = &self.found[&token];
            assert_eq!(answers.len(), 1, "a lookup ends once");
            let is_right = answers[0].as_ref().is_some_and(|machines| machines[0].id == owner);
            if !is_right {
                println!("{owner} {:?}", answers[0].as_ref().map(|m| m.iter().map(|p| p.id).collect::<Vec<_>>()));
            }
            is_right
        };
        wanted.into_iter().filter(|(token, owner)| right(*token, *owner)).count()
    }

    /// Hands a node a message of somebody else.
    pub(super) fn deliver(&mut self, to: u64, from: u64, message: Message) {
        self.with(to, |ring, now| ring.receive(now, NodeId::from(from), message));
    }

    /// How many messages a node sends in a second, on average.
    pub(super) fn idle_rate(&mut self, seconds: u64) -> f64 {
        let before = self.sent;
        self.run(seconds);
        (self.sent - before) as f64 / (seconds * self.rings.len() as u64) as f64
    }

    pub(super) fn knows(&self, node: u64, other: u64) -> bool {
        self.rings[&node].neighbours().any(|peer| number(peer.id) == other)
    }
}
