//! The nodes of a large cluster, what passes between them, and who comes and goes.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use specter_dht::kv::{Config, RequestId, Rules};
use specter_dht::ring::Destination;
use specter_dht::ring::invariant::{self, Member};
use specter_dht::{
    ClusterId, Event as NodeEvent, Failure, Input, Instant, Life, Node, NodeId, Output, Packet, Peer, Random, Reply,
    SlotId, State, Terms, node,
};

use super::names::{Names, Purpose};
use super::{Figures, Plan, SERVERS};
use crate::queue::Queue;

const CLUSTER: ClusterId = ClusterId(0x5EC7E2);
const SECOND: u64 = 1_000_000;

/// Shortest and longest time a packet is on its way, and a record until it is on the disk.
const DELAY_MICROS: (u64, u64) = (500, 20_000);
const SYNC_MICROS: u64 = 1_000;

/// Nodes that start in a second while the cluster grows.
const GROWTH: u64 = 20;

/// How long the cluster may take until each slot has its replicas, and after the churn until all is as it must be.
const FORMING_SECONDS: u64 = 3_600;

/// A node that goes is stopped after so long, as its operator would.
const LEAVE_SECONDS: u64 = 60;

/// How many nodes are looked at for one that may go: of each slot one replica of three may be missed, not two.
const VICTIMS: u64 = 20;

/// What is due at some time.
#[derive(Debug)]
pub(super) enum Event {
    Deliver {
        from: NodeId,
        to: usize,
        packet: Box<Packet>,
    },
    Wake {
        node: usize,
    },
    Synced {
        node: usize,
        upto: u64,
    },
    /// A node tells that it serves a name, if it still does.
    Announce {
        node: usize,
        name: usize,
    },
    /// A node that goes tries once more to tell that it serves a name no longer.
    Withdraw {
        node: usize,
        name: usize,
    },
    /// Clients whose node has gone have a link to another one now.
    Move {
        name: usize,
    },
    /// Somebody looks for a name, for the first time or again.
    Look {
        look: usize,
    },
    /// The time of a node that goes is over.
    Stop {
        node: usize,
    },
}

/// A machine. Who has gone or died does not come back.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) node: Option<Node>,
    wake_at: u64,
    /// Withdraws its routes, or hands its slots over.
    pub(super) is_leaving: bool,
    /// When it died or left.
    pub(super) gone_at: u64,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) queue: Queue<Event>,
    pub(super) machines: Vec<Machine>,
    pub(super) names: Names,
    /// What the answer to each request is for.
    pub(super) requests: BTreeMap<u64, Purpose>,
    pub(super) counted: u64,
    pub(super) figures: Figures,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            random: Random::seeded(plan.seed),
            queue: Queue::new(),
            machines: Vec::new(),
            names: Names::default(),
            requests: BTreeMap::new(),
            counted: 0,
            figures: Figures { nodes: plan.nodes, routes: plan.routes, ..Figures::default() },
        }
    }

    pub(super) const fn seconds(&self) -> u64 {
        self.queue.time() / SECOND
    }

    /// Nodes join through random members until there are all, and each slot gets its replicas.
    pub(super) fn grow(&mut self) -> Result<(), String> {
        self.start(None);
        for number in 1..self.plan.nodes {
            if number.is_multiple_of(GROWTH) {
                self.run(SECOND)?;
            }
            self.join();
        }
        let limit = self.seconds() + FORMING_SECONDS;
        while let Some(lack) = self.lack() {
            if self.seconds() > limit {
                return Err(format!("the cluster did not form in {FORMING_SECONDS} s: {lack}"));
            }
            self.run(SECOND)?;
        }
        self.figures.formed_seconds = self.seconds();
        Ok(())
    }

    /// What a whole cluster would have and this one lacks.
    pub(super) fn lack(&self) -> Option<String> {
        if let Some(node) = self.living().find(|node| self.node(*node).is_some_and(|node| !node.ring().is_member())) {
            return Some(format!("node {node} is no member of the ring"));
        }
        let nodes = self.living().filter_map(|node| self.node(node));
        let ring: Vec<Member> =
            nodes.map(|node| Member { peer: node.ring().me().clone(), views: node.ring().views() }).collect();
        let ideal = invariant::check(&ring)
            .and_then(|()| invariant::check_ideal(&ring, node::Settings::default().ring.successors));
        if let Err(text) = ideal {
            return Some(text);
        }
        let terms = Terms::default();
        let wanted = usize::from(terms.replicas).min(self.living().count());
        let led = self.led();
        let is_kept = |config: &Config| config.is_stable() && self.all_stay(config) && config.nodes().len() >= wanted;
        let slot = (0..terms.slots()).map(SlotId).find(|slot| !led.get(slot).is_some_and(|config| is_kept(config)))?;
        Some(format!("{slot:?} is kept by {:?}, as its leader says", led.get(&slot).map(|config| config.nodes())))
    }

    /// The configuration of each slot that somebody leads.
    fn led(&self) -> BTreeMap<SlotId, &Config> {
        let nodes = self.living().filter_map(|node| self.node(node));
        nodes.flat_map(Node::slots).filter_map(|(slot, part)| Some((*slot, part.leads()?))).collect()
    }

    fn all_stay(&self, config: &Config) -> bool {
        config.nodes().iter().all(|id| self.index_of(*id).is_some_and(|node| self.is_open(node)))
    }

    /// Whether each slot that a node keeps has all its replicas, so that it is one of three at most that is missed.
    fn may_go(&self, node: usize) -> bool {
        let led = self.led();
        let whole = |slot: &SlotId| led.get(slot).is_some_and(|config| config.is_stable() && self.all_stay(config));
        self.node(node).is_some_and(|node| node.slots().iter().all(|(slot, part)| !part.is_member() || whole(slot)))
    }

    /// For a while nodes leave, die and come, and look-ups go on.
    pub(super) fn churn(&mut self) -> Result<(), String> {
        let end = self.queue.time() + micros(self.plan.churn);
        let pace = micros(self.plan.pace).max(1);
        let mut next = self.queue.time();
        let mut turn = 0_u64;
        while self.queue.time() < end {
            if self.queue.time() >= next {
                next += pace;
                let victims: Vec<usize> = (0..VICTIMS).map(|_| self.random_node()).collect();
                if let Some(victim) = victims.into_iter().find(|victim| self.may_go(*victim)) {
                    turn += 1;
                    if turn.is_multiple_of(2) {
                        self.leave(victim);
                    } else {
                        self.die(victim);
                    }
                    self.join();
                    self.figures.came += 1;
                }
            }
            for _ in 0..self.plan.look_ups.div_ceil(10) {
                self.look_up_any();
            }
            self.run(SECOND / 10)?;
        }
        Ok(())
    }

    fn join(&mut self) {
        let seed = self.random_node();
        self.start(Some(seed));
    }

    fn start(&mut self, seed: Option<usize>) {
        let node = self.machines.len();
        let me = Peer { id: id_of(node), incarnation: 1, address: address_of(node), seats: 1, leaving: false };
        let (state, seeds) = (State::new(me.id, Rules::default()), seed.map(address_of).into_iter().collect());
        let create = seed.is_none().then(Terms::default);
        let life = Life { me, cluster: CLUSTER, create, seeds, state, position: 0 };
        let random = Random::seeded(self.random.next_u64());
        let started = Node::new(life, node::Settings::default(), Rules::default(), random, self.now());
        self.machines.push(Machine { node: Some(started), wake_at: u64::MAX, is_leaving: false, gone_at: u64::MAX });
        self.drain(node);
    }

    /// A node dies without a word; the clients that had links to it notice after a while.
    fn die(&mut self, node: usize) {
        self.figures.died += 1;
        self.stop(node);
        self.let_clients_go(node, (12 * SECOND, 16 * SECOND));
    }

    /// A node goes: its clients move, then its routes are withdrawn, then its slots are handed over.
    fn leave(&mut self, node: usize) {
        self.figures.left += 1;
        self.machines[node].is_leaving = true;
        self.let_clients_go(node, (SECOND / 10, SECOND));
        self.queue.push(LEAVE_SECONDS * SECOND, Event::Stop { node });
        self.withdraw(node);
    }

    pub(super) fn stop(&mut self, node: usize) {
        let time = self.queue.time();
        let Some(machine) = self.machines.get_mut(node).filter(|machine| machine.node.is_some()) else { return };
        machine.gone_at = time;
        if let Some(ended) = machine.node.take() {
            self.note_memory(&ended);
        }
        self.look_elsewhere(node);
    }

    fn note_memory(&mut self, node: &Node) {
        let kept = node.slots().values().map(|slot| slot.state().registers.len()).sum();
        self.figures.slots_most = self.figures.slots_most.max(node.slots().len());
        self.figures.kept_most = self.figures.kept_most.max(kept);
    }

    pub(super) fn figures(mut self) -> Figures {
        for machine in std::mem::take(&mut self.machines) {
            if let Some(node) = &machine.node {
                self.note_memory(node);
            }
        }
        self.figures.micros = self.queue.time();
        self.names.measure(&mut self.figures);
        self.figures
    }

    pub(super) fn run(&mut self, span_micros: u64) -> Result<(), String> {
        let end = self.queue.time() + span_micros;
        while let Some(event) = self.queue.pop_until(end) {
            match event {
                Event::Deliver { from, to, packet } => self.input(to, Input::Packet { from, packet: *packet }),
                Event::Wake { node } => {
                    let due = |machine: &Machine| machine.wake_at <= self.queue.time();
                    if self.machines.get(node).is_some_and(due) {
                        self.machines[node].wake_at = u64::MAX;
                        self.input(node, Input::Timeout);
                    }
                }
                Event::Synced { node, upto } => self.input(node, Input::Persisted { upto }),
                Event::Announce { node, name } => self.announce(node, name),
                Event::Withdraw { node, name } => self.withdraw_one(node, name),
                Event::Move { name } => self.move_clients(name),
                Event::Look { look } => self.look(look)?,
                Event::Stop { node } => self.stop(node),
            }
        }
        Ok(())
    }

    pub(super) fn input(&mut self, to: usize, input: Input) {
        let now = self.now();
        if let Some(node) = self.machines.get_mut(to).and_then(|machine| machine.node.as_mut()) {
            node.handle_input(now, input);
            self.drain(to);
        }
    }

    fn drain(&mut self, index: usize) {
        let (mut appended, mut left, mut replies) = (None, false, Vec::new());
        let wake = loop {
            let Some(node) = self.machines[index].node.as_mut() else { return };
            match node.poll_output() {
                Output::Transmit { to, packet } => self.transmit(index, to, packet),
                Output::Append { position, .. } => appended = Some(position),
                Output::Reply { id, reply } => replies.push((id, reply)),
                Output::Event(event) => left |= event == NodeEvent::Left,
                Output::Timeout(at) => break at,
            }
        };
        if let Some(upto) = appended {
            self.queue.push(SYNC_MICROS, Event::Synced { node: index, upto });
        }
        let wake_at = wake.as_micros().max(self.queue.time() + 1);
        if wake_at < self.machines[index].wake_at && wake != Instant::FAR {
            self.machines[index].wake_at = wake_at;
            self.queue.push_at(wake_at, Event::Wake { node: index });
        }
        if left {
            self.stop(index);
        }
        for (id, reply) in replies {
            self.replied(id, reply);
        }
    }

    fn transmit(&mut self, from: usize, to: Destination, packet: Packet) {
        self.figures.packets += 1;
        let (Destination::Node(_, address) | Destination::Address(address)) = to;
        let to = match address {
            SocketAddr::V6(address) => usize::try_from(address.ip().to_bits()).unwrap_or(usize::MAX),
            SocketAddr::V4(_) => return,
        };
        // Nobody tells a sender that a machine is dead.
        if self.machines.get(to).is_some_and(|machine| machine.node.is_some()) {
            let delay = self.random.between(DELAY_MICROS.0, DELAY_MICROS.1);
            self.queue.push(delay, Event::Deliver { from: id_of(from), to, packet: Box::new(packet) });
        }
    }

    fn replied(&mut self, id: RequestId, reply: Result<Reply, Failure>) {
        if let Some(purpose) = self.requests.remove(&id.0) {
            self.answered(purpose, reply.map(|reply| reply.answer));
        }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_micros(self.queue.time())
    }

    pub(super) fn node(&self, index: usize) -> Option<&Node> {
        self.machines.get(index)?.node.as_ref()
    }

    /// Who lives, those that are about to go among them.
    pub(super) fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.machines.len()).filter(|node| self.machines[*node].node.is_some())
    }

    /// Whether a node takes links and is a member of the ring.
    pub(super) fn is_open(&self, node: usize) -> bool {
        let Some(machine) = self.machines.get(node) else { return false };
        !machine.is_leaving && machine.node.as_ref().is_some_and(|node| node.ring().is_member())
    }

    /// Somebody who is a member and stays.
    pub(super) fn random_node(&mut self) -> usize {
        loop {
            let node = usize::try_from(self.random.below(self.machines.len() as u64)).unwrap_or(0);
            if self.is_open(node) {
                return node;
            }
        }
    }

    fn index_of(&self, id: NodeId) -> Option<usize> {
        usize::try_from(id.0).ok()?.checked_sub(1).filter(|index| *index < self.machines.len())
    }

    /// How many names there are to be.
    pub(super) fn name_count(&self) -> usize {
        usize::try_from(self.plan.routes / SERVERS).unwrap_or(0)
    }
}

pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Names of nodes say nothing of where they stand: points are hashes of them.
fn id_of(node: usize) -> NodeId {
    NodeId(node as u128 + 1)
}

fn address_of(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::from_bits(node as u128), 1))
}
