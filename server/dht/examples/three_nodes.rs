//! Three nodes in one program: they find each other, share the slots of a cluster, and one of them is asked.
//!
//! `cargo run -p specter-dht --example three_nodes` prints what happens. There are no sockets, no files and no threads: this
//! loop carries packets from node to node, says at once that every record is on the disk, and turns the clock itself. A
//! real program does the same three things with a network, a log and a clock.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use specter_dht::kv::{Operation, RequestId, Rules};
use specter_dht::ring::Destination;
use specter_dht::{
    Ask, ClusterId, Failure, Freshness, Input, Instant, Life, Node, NodeId, Output, Packet, Peer, Random, Reply, State,
    Terms, node::Settings,
};

/// Nodes that speak to each other without delay.
struct Cluster {
    nodes: BTreeMap<NodeId, (SocketAddr, Node)>,
    wakes: BTreeMap<NodeId, Instant>,
    mail: VecDeque<(NodeId, NodeId, Packet)>,
    replies: BTreeMap<RequestId, Result<Reply, Failure>>,
    now: Instant,
}

impl Cluster {
    fn start(&mut self, number: u16, create: Option<Terms>, seeds: Vec<SocketAddr>) -> SocketAddr {
        let id = NodeId::from(u64::from(number));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, number));
        let me = Peer { id, incarnation: 1, address, seats: 1, leaving: false };
        let state = State::new(id, Rules::default());
        let life = Life { me, cluster: ClusterId(7), create, seeds, state, position: 0 };
        let random = Random::seeded(u64::from(number));
        let node = Node::new(life, Settings::default(), Rules::default(), random, self.now);
        self.nodes.insert(id, (address, node));
        self.drain(id);
        address
    }

    fn input(&mut self, id: NodeId, input: Input) {
        if let Some((_, node)) = self.nodes.get_mut(&id) {
            node.handle_input(self.now, input);
            self.drain(id);
        }
    }

    /// Carries out what a node wants, until it wants nothing but to be woken.
    fn drain(&mut self, id: NodeId) {
        let mut written = None;
        while let Some((_, node)) = self.nodes.get_mut(&id) {
            match node.poll_output() {
                Output::Transmit { to, packet } => {
                    let address = match to {
                        Destination::Node(_, address) | Destination::Address(address) => address,
                    };
                    let known = self.nodes.iter().find(|(_, (at, _))| *at == address);
                    if let Some(to) = known.map(|(to, _)| *to) {
                        self.mail.push_back((id, to, packet));
                    }
                }
                // A real node writes it to a log, and tells when that is on the disk.
                Output::Append { position, .. } => written = Some(position),
                Output::Reply { id, reply } => {
                    self.replies.insert(id, reply);
                }
                Output::Event(event) => println!("{:>6.1} s  node {id}: {event:?}", self.seconds()),
                Output::Timeout(at) => {
                    self.wakes.insert(id, at);
                    break;
                }
            }
        }
        if let Some(upto) = written {
            self.input(id, Input::Persisted { upto });
        }
    }

    /// Delivers everything, then lets time pass until the next node wants to be woken.
    fn step(&mut self) {
        while let Some((from, to, packet)) = self.mail.pop_front() {
            self.input(to, Input::Packet { from, packet });
        }
        let next = self.wakes.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (*id, *at));
        if let Some((id, at)) = next {
            self.now = self.now.max(at);
            self.input(id, Input::Timeout);
        }
    }

    fn ask(&mut self, node: u64, key: &str, operation: Operation) -> Result<Reply, Failure> {
        let id = RequestId(self.now.as_micros());
        let ask =
            Ask { key: key.into(), operation, freshness: Freshness::Linearizable, patience: Duration::from_secs(5) };
        self.input(NodeId::from(node), Input::Request { id, ask });
        loop {
            if let Some(reply) = self.replies.remove(&id) {
                return reply;
            }
            self.step();
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    fn seconds(&self) -> f64 {
        Duration::from_micros(self.now.as_micros()).as_secs_f64()
    }
}

fn main() -> Result<(), Failure> {
    let mut cluster = Cluster {
        nodes: BTreeMap::new(),
        wakes: BTreeMap::new(),
        mail: VecDeque::new(),
        replies: BTreeMap::new(),
        now: Instant::from_micros(1),
    };
    let seed = cluster.start(1, Some(Terms::default()), Vec::new());
    let put = Operation::Put { value: b"here".to_vec(), fence: None };
    println!("put at node 1 alone: {:?}", cluster.ask(1, "tunnel", put)?.answer);

    cluster.start(2, None, vec![seed]);
    cluster.start(3, None, vec![seed]);
    // Half a minute later the ring has been stable for long enough to move the slots.
    cluster.run(Duration::from_secs(90));
    for (id, (_, node)) in &cluster.nodes {
        let kept = node.slots().values().filter(|slot| slot.is_member()).count();
        let led = node.slots().values().filter(|slot| slot.leads().is_some()).count();
        println!("{:>6.1} s  node {id} keeps {kept} slots and leads {led}", cluster.seconds());
    }
    println!("get at node 3: {:?}", cluster.ask(3, "tunnel", Operation::Get)?.answer);

    println!("node 1 dies");
    cluster.nodes.remove(&NodeId::from(1));
    cluster.wakes.remove(&NodeId::from(1));
    cluster.run(Duration::from_secs(10));
    println!("get at node 2: {:?}", cluster.ask(2, "tunnel", Operation::Get)?.answer);
    Ok(())
}
