//! The ring alone, with as many nodes as one likes: grown, crashed, and measured.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use specter_dht::ring::invariant::{self, Member};
use specter_dht::ring::{Destination, Message, Output, Ring, Settings};
use specter_dht::{Instant, NodeId, Peer, Point, Random};

/// For how many seconds a ring grows.
const GROWTH_SECONDS: u32 = 50;

/// How many of a thousand nodes crash.
const CRASHED_PER_MILLE: u64 = 20;

/// After so long a ring must be ideal again.
const PATIENCE_SECONDS: u64 = 120;

/// For how long an ideal ring is left alone before it is measured.
const REST: Duration = Duration::from_secs(60);

/// For how long an idle ring is listened to.
const IDLE_SECONDS: u64 = 20;

/// One in so many messages is weighed.
const WEIGHED: u64 = 16;

/// The shortest and the longest time a message is on its way.
const DELAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(40));

/// What a ring of some size is like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// How many nodes there were.
    pub nodes: u32,
    /// How many seconds after the last join the ring was ideal.
    pub grown_seconds: u64,
    /// How many seconds after the crash the ring was ideal.
    pub healed_seconds: u64,
    /// How many lookups ended with the true owner.
    pub right: u64,
    /// How many lookups there were.
    pub lookups: u64,
    /// How many machines a lookup asked on average, those counted that asked nobody.
    pub hops_average: f64,
    /// The most machines that a lookup asked.
    pub hops_most: u64,
    /// How many messages a node sent in a second when nothing happened.
    pub idle_messages: f64,
    /// How many bytes those messages had.
    pub idle_bytes: f64,
    /// How many messages there were in all.
    pub messages: u64,
}

impl Figures {
    /// What a lookup may take on average: half a hop for each doubling of the ring, and three.
    pub fn hops_aim(&self) -> f64 {
        f64::from(self.nodes.max(1)).log2() / 2.0 + 3.0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10}  nodes", self.nodes)?;
        writeln!(f, "{:>10}  s after the last join the ring is ideal", self.grown_seconds)?;
        writeln!(f, "{:>10}  s after {} of 1000 crashed it is ideal again", self.healed_seconds, CRASHED_PER_MILLE)?;
        writeln!(f, "{:>10}  of {} lookups find the owner", self.right, self.lookups)?;
        writeln!(f, "{:>10.2}  hops on average (at most {:.2} wanted)", self.hops_average, self.hops_aim())?;
        writeln!(f, "{:>10}  hops at most", self.hops_most)?;
        writeln!(f, "{:>10.2}  messages a node sends in a second when idle", self.idle_messages)?;
        writeln!(f, "{:>10.0}  bytes a node sends in a second when idle", self.idle_bytes)?;
        write!(f, "{:>10}  messages in all", self.messages)
    }
}

/// Grows a ring of so many nodes by joins through random members, crashes some, and measures the rest.
///
/// # Errors
/// What took too long, in words.
pub fn measure(nodes: u32, seed: u64) -> Result<Figures, String> {
    let mut world = World::new(seed);
    let mut figures = Figures { nodes, ..Figures::default() };
    world.grow(nodes);
    figures.grown_seconds = world.until_ideal().map_err(|error| format!("the grown ring: {error}"))?;
    world.crash();
    figures.healed_seconds = world.until_ideal().map_err(|error| format!("the crashed ring: {error}"))?;
    world.run(REST);
    world.listen(&mut figures);
    world.look_up(u64::from(nodes).clamp(1000, 20_000), &mut figures);
    figures.messages = world.sent;
    Ok(figures)
}

/// What happens at some time: a message comes to a node, or a node has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Message(usize),
    Tick(usize),
}

struct Letter {
    from: NodeId,
    to: usize,
    message: Message,
}

struct World {
    random: Random,
    now: Instant,
    nodes: Vec<Option<Ring>>,
    /// When the next tick of each node is in the queue.
    ticks: Vec<Instant>,
    queue: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    events: u64,
    /// Messages on their way; the queue has their places.
    letters: Vec<Option<Letter>>,
    free: Vec<usize>,
    sent: u64,
    weighed_bytes: u64,
    found: Vec<(u64, Option<NodeId>)>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::seeded(seed),
            now: Instant::from_micros(1_000_000),
            nodes: Vec::new(),
            ticks: Vec::new(),
            queue: BinaryHeap::new(),
            events: 0,
            letters: Vec::new(),
            free: Vec::new(),
            sent: 0,
            weighed_bytes: 0,
            found: Vec::new(),
        }
    }

    fn start(&mut self, seed: Option<usize>) {
        let node = self.nodes.len();
        let (id, address) = (id_of(node), address_of(node));
        let me = Peer { id, incarnation: 1, address, seats: 1, leaving: false };
        let random = Random::seeded(self.random.next_u64());
        let seeds = seed.map(address_of).into_iter().collect();
        let ring = Ring::new(me, seed.is_none(), Settings::default(), random, self.now, [], seeds);
        self.nodes.push(Some(ring));
        self.ticks.push(Instant::FAR);
        self.settle(node);
    }

    fn grow(&mut self, nodes: u32) {
        self.start(None);
        let span = Duration::from_secs(u64::from(GROWTH_SECONDS)) / nodes.max(1);
        for _ in 1..nodes {
            self.run(span);
            let seed = self.random_member();
            self.start(Some(seed));
        }
    }

    fn random_member(&mut self) -> usize {
        loop {
            let node = self.random_node();
            if self.nodes[node].as_ref().is_some_and(Ring::is_member) {
                return node;
            }
        }
    }

    fn random_node(&mut self) -> usize {
        let count = u64::try_from(self.nodes.len()).unwrap_or(u64::MAX);
        usize::try_from(self.random.below(count)).unwrap_or(0)
    }

    fn crash(&mut self) {
        let count = u64::try_from(self.nodes.len()).unwrap_or(u64::MAX);
        for _ in 0..(count * CRASHED_PER_MILLE).div_ceil(1000) {
            let node = self.random_member();
            self.nodes[node] = None;
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(Reverse((at, _, event))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            match event {
                Event::Tick(node) => self.tick(node),
                Event::Message(place) => self.deliver(place),
            }
        }
        self.now = end;
    }

    fn tick(&mut self, node: usize) {
        if self.ticks[node] != self.now {
            return;
        }
        self.ticks[node] = Instant::FAR;
        if let Some(ring) = &mut self.nodes[node] {
            ring.tick(self.now);
            self.settle(node);
        }
    }

    fn deliver(&mut self, place: usize) {
        self.free.push(place);
        let Some(letter) = self.letters[place].take() else { return };
        if let Some(ring) = &mut self.nodes[letter.to] {
            ring.receive(self.now, letter.from, letter.message);
            self.settle(letter.to);
        }
    }

    /// Does what a node wants done, and notes when it has something to do next.
    fn settle(&mut self, node: usize) {
        let Some(ring) = &mut self.nodes[node] else { return };
        let mut letters = Vec::new();
        while let Some(output) = ring.poll() {
            match output {
                Output::Transmit { to, message } => letters.push((to, message)),
                Output::Found { token, machines } => {
                    let owner = machines.and_then(|machines| machines.first().map(|peer| peer.id));
                    self.found.push((token, owner));
                }
                Output::Remember(_) | Output::Forget(_) | Output::Joined | Output::Changed => {}
            }
        }
        let deadline = ring.deadline();
        if deadline < self.ticks[node] {
            self.ticks[node] = deadline;
            self.push(deadline, Event::Tick(node));
        }
        for (to, message) in letters {
            self.send(node, to, message);
        }
    }

    fn send(&mut self, from: usize, to: Destination, message: Message) {
        self.sent += 1;
        if self.sent.is_multiple_of(WEIGHED) {
            let bytes = postcard::to_allocvec(&message).map_or(0, |bytes| bytes.len());
            self.weighed_bytes += u64::try_from(bytes).unwrap_or(0);
        }
        let (Destination::Node(_, address) | Destination::Address(address)) = to;
        let Some(to) = node_at(address).filter(|to| *to < self.nodes.len()) else { return };
        let letter = Some(Letter { from: id_of(from), to, message });
        let place = self.free.pop().unwrap_or(self.letters.len());
        if place == self.letters.len() {
            self.letters.push(letter);
        } else {
            self.letters[place] = letter;
        }
        let delay = self.random.span(DELAY.0, DELAY.1);
        self.push(self.now + delay, Event::Message(place));
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.events += 1;
        self.queue.push(Reverse((at, self.events, event)));
    }

    fn living(&self) -> impl Iterator<Item = &Ring> {
        self.nodes.iter().flatten()
    }

    /// Runs until the ring is ideal; answers how many seconds that took.
    fn until_ideal(&mut self) -> Result<u64, String> {
        let mut last = String::new();
        for seconds in 0..=PATIENCE_SECONDS {
            let outside = self.living().filter(|ring| !ring.is_member()).count();
            let members = self.living().map(|ring| Member { peer: ring.me().clone(), views: ring.views() });
            let members: Vec<Member> = members.collect();
            match invariant::check_ideal(&members, Settings::default().successors) {
                Ok(()) if outside == 0 => return invariant::check(&members).map(|()| seconds),
                Ok(()) => last = format!("{outside} nodes are no members"),
                Err(error) => last = error,
            }
            self.run(Duration::from_secs(1));
        }
        Err(format!("not ideal after {PATIENCE_SECONDS} s: {last}"))
    }

    fn listen(&mut self, figures: &mut Figures) {
        let (sent, bytes) = (self.sent, self.weighed_bytes);
        self.run(Duration::from_secs(IDLE_SECONDS));
        let node_seconds = self.living().count() as f64 * IDLE_SECONDS as f64;
        figures.idle_messages = (self.sent - sent) as f64 / node_seconds;
        figures.idle_bytes = ((self.weighed_bytes - bytes) * WEIGHED) as f64 / node_seconds;
    }

    /// Looks for random points from random nodes, and compares with who really owns them.
    fn look_up(&mut self, lookups: u64, figures: &mut Figures) {
        let mut owners: Vec<(Point, NodeId)> = Vec::new();
        for ring in self.living() {
            owners.extend(ring.me().points().map(|point| (point, ring.me().id)));
        }
        owners.sort_unstable();
        let steps = |world: &Self| world.living().map(|ring| ring.steps().0).sum::<u64>();
        let before = steps(self);
        let mut wanted = Vec::new();
        for token in 0..lookups {
            let node = self.random_member();
            let target = Point::new(self.random.next_u64());
            let place = owners.partition_point(|(point, _)| *point < target) % owners.len();
            wanted.push(owners[place].1);
            let now = self.now;
            if let Some(ring) = &mut self.nodes[node] {
                ring.lookup(now, token, target, now + Duration::from_secs(5));
            }
            self.settle(node);
            self.run(Duration::from_millis(1));
        }
        self.run(Duration::from_secs(6));
        let is_right = |(token, owner): &&(u64, Option<NodeId>)| {
            usize::try_from(*token).is_ok_and(|token| wanted.get(token).copied() == *owner)
        };
        figures.right = u64::try_from(self.found.iter().filter(is_right).count()).unwrap_or(0);
        figures.lookups = lookups;
        figures.hops_average = (steps(self) - before) as f64 / lookups as f64;
        figures.hops_most = self.living().map(|ring| ring.steps().1).max().unwrap_or(0);
    }
}

fn id_of(node: usize) -> NodeId {
    NodeId(node as u128 + 1)
}

fn address_of(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::from_bits(node as u128), 1))
}

fn node_at(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(_) => None,
        SocketAddr::V6(address) => usize::try_from(address.ip().to_bits()).ok(),
    }
}
