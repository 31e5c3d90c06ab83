//! A machine: an address, a disk, a clock, and the node that runs on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use specter_dht::kv::Rules;
use specter_dht::{ClusterId, Life, Node, NodeId, Peer, Random, Record, State, Terms};

use crate::clock::Clock;
use crate::cluster::Swarm;
use crate::disk::{Disk, Tail};

/// The name of a machine. It outlives disks, and so the identities of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(pub(crate) u16);

impl Name {
    /// Where a machine listens.
    pub(crate) fn address(self) -> SocketAddr {
        let [high, low] = self.0.to_be_bytes();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), 7000)
    }

    /// Which machine listens there.
    pub(crate) fn at(address: SocketAddr) -> Option<Self> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let [_, _, high, low] = ip.octets();
        Some(Self(u16::from_be_bytes([high, low])))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// It was never started, or it has left: nobody misses it.
    Away,
    /// It crashed and will be started again.
    Down,
    /// Its node runs.
    Up,
    /// Its node runs and was told to leave.
    Leaving,
}

/// The cluster of every world.
pub(crate) const CLUSTER: ClusterId = ClusterId(0x5EC7E2);

/// A machine, with the node that runs on it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: Name,
    pub(crate) id: NodeId,
    pub(crate) duty: Duty,
    /// The running node; none while the machine is down.
    pub(crate) node: Option<Node>,
    /// How often it has been started; what was meant for an earlier start is dropped.
    pub(crate) boot: u32,
    /// What its cluster is to agree on, when it is the machine that makes it.
    pub(crate) creates: Option<Terms>,
    /// Where it looks for others when it starts.
    pub(crate) seeds: Vec<SocketAddr>,
    pub(crate) seats: u8,
    pub(crate) incarnation: u64,
    pub(crate) disk: Disk<Record>,
    /// What the synced part of its log comes to by the rules its node keeps: with that it starts again.
    held: State,
    /// The same by the true rules.
    pub(crate) image: State,
    pub(crate) clock: Clock,
    /// Until when it stands still.
    pub(crate) paused_until: u64,
    /// Since when it has run without a crash or a pause.
    pub(crate) sound_since: u64,
    /// When its node wants to be woken.
    pub(crate) wake_at: u64,
    /// Until when its disk syncs nothing.
    pub(crate) stalled_until: u64,
    /// How much longer than usual an fsync takes, in microseconds.
    pub(crate) slow_micros: u64,
    /// Whether its disk is full.
    pub(crate) full: bool,
    /// It crashes after so many more things it does.
    pub(crate) dies_after: Option<u64>,
}

impl Machine {
    pub(crate) fn new(name: Name, id: NodeId, seats: u8) -> Self {
        let rules = Rules::default();
        Self {
            name,
            id,
            duty: Duty::Away,
            node: None,
            boot: 0,
            creates: None,
            seeds: Vec::new(),
            seats,
            incarnation: 0,
            disk: Disk::new(0),
            held: State::new(id, rules),
            image: State::new(id, rules),
            clock: Clock::draw(0, &mut Random::seeded(0)),
            paused_until: 0,
            sound_since: 0,
            wake_at: u64::MAX,
            stalled_until: 0,
            slow_micros: 0,
            full: false,
            dies_after: None,
        }
    }

    /// Gives it an empty disk, and a node with a name of its own.
    pub(crate) fn wipe(&mut self, id: NodeId, rules: Rules) {
        self.id = id;
        self.disk = Disk::new(0);
        self.held = State::new(id, rules);
        self.image = State::new(id, Rules::default());
    }

    /// What its node starts with.
    pub(crate) const fn held(&self) -> &State {
        &self.held
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// What other machines are told about it.
    pub(crate) fn peer(&self) -> Peer {
        Peer {
            id: self.id,
            incarnation: self.incarnation,
            address: self.name.address(),
            seats: self.seats,
            leaving: self.duty == Duty::Leaving,
        }
    }

    /// Starts the node on what its disk holds; its clock begins anywhere.
    pub(crate) fn start(&mut self, swarm: &Swarm, random: &mut Random, time: u64) {
        self.boot += 1;
        self.incarnation += 1;
        self.duty = Duty::Up;
        self.sound_since = time;
        self.clock = Clock::draw(swarm.skew_ppm, random);
        let life = Life {
            me: self.peer(),
            cluster: CLUSTER,
            create: self.creates,
            seeds: self.seeds.clone(),
            state: self.held.clone(),
            position: self.disk.position(),
        };
        let own = Random::seeded(random.next_u64());
        self.node = Some(Node::new(life, swarm.settings.clone(), swarm.rules, own, self.clock.local(time)));
    }

    /// Its node is gone; some of what was not synced may have survived.
    pub(crate) fn stop(&mut self, duty: Duty, tail: Tail, random: &mut Random) {
        self.duty = duty;
        self.node = None;
        self.paused_until = 0;
        self.wake_at = u64::MAX;
        self.dies_after = None;
        let survived = self.disk.crash(tail, random);
        self.keep(&survived);
    }

    /// Ends the fsync under way: up to which position.
    pub(crate) fn end_sync(&mut self) -> Option<(u64, Vec<Record>)> {
        let (upto, records) = self.disk.end_sync()?;
        self.keep(&records);
        Some((upto, records))
    }

    fn keep(&mut self, records: &[Record]) {
        for record in records {
            self.held.apply(record);
            self.image.apply(record);
        }
    }
}
