//! A machine: an address, a disk, a clock, and the node that runs on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use specter_dht::kv::Rules;
use specter_dht::{ClusterId, Life, Node, NodeId, Peer, Random, Record, State, Terms};
use specter_storage::{fault::Fault, recover::OpenError};

use super::store::{End, StartError, Started, Store};
use super::watch::difference;
use crate::Violation;
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

/// What a log comes to that was synced, and what may follow. A power cut can take that even from a node that is down.
#[derive(Debug)]
struct Tailed {
    synced: u64,
    held: State,
    image: State,
    records: Vec<Record>,
}

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
    /// Which node it was when it last started.
    last_id: Option<NodeId>,
    /// What its log has, as far as the world can tell.
    pub(crate) disk: Disk<Record>,
    /// What its records are really kept in.
    pub(crate) store: Option<Store>,
    /// What its log may have beyond what was synced, while it is down.
    tail: Option<Tailed>,
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
    pub(crate) fn new(name: Name, id: NodeId, seats: u8, store: Option<Store>) -> Self {
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
            last_id: None,
            disk: Disk::new(0),
            store,
            tail: None,
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
        (self.tail, self.last_id) = (None, None);
        if let Some(store) = &mut self.store {
            store.replace(id);
        }
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

    /// Starts the node on what its disk holds; its clock begins anywhere. Tells whether the disk let it.
    pub(crate) fn start(&mut self, swarm: &Swarm, random: &mut Random, time: u64) -> Result<bool, Violation> {
        self.boot += 1;
        let state = match self.store.as_mut().map(|store| store.start(self.id, swarm.rules)) {
            None => {
                self.incarnation += 1;
                self.held.clone()
            }
            Some(Ok(started)) => self.started(started)?,
            Some(Err(StartError::Open(OpenError::Disk { .. } | OpenError::Full(_)) | StartError::Snapshot(_))) => {
                self.duty = Duty::Down;
                self.end(End::Killed);
                return Ok(false);
            }
            Some(Err(error)) => {
                return Err(Violation::Log(format!("{} does not start any more: {error}", self.name)));
            }
        };
        self.duty = Duty::Up;
        self.sound_since = time;
        self.clock = Clock::draw(swarm.skew_ppm, random);
        let life = Life {
            me: self.peer(),
            cluster: CLUSTER,
            create: self.creates,
            seeds: self.seeds.clone(),
            state,
            position: self.disk.position(),
        };
        let own = Random::seeded(random.next_u64());
        self.node = Some(Node::new(life, swarm.settings.clone(), swarm.rules, own, self.clock.local(time)));
        Ok(true)
    }

    /// Checks what the storage code found against what its disk must have.
    fn started(&mut self, Started { state, found }: Started) -> Result<State, Violation> {
        let name = self.name;
        let wrong = |text| Err(Violation::Log(format!("{name} {text}")));
        let (synced, last) = (self.tail.as_ref().map_or(0, |tail| tail.synced), found.last_lsn);
        let most = synced + self.tail.as_ref().map_or(0, |tail| tail.records.len() as u64);
        if !(synced..=most).contains(&last) {
            return wrong(format!("finds a log up to {last}; {synced} records were synced and {most} written"));
        }
        let boot = u64::from(found.boot.number);
        if boot <= self.incarnation && self.last_id == Some(self.id) {
            return wrong(format!("takes its start for number {boot} after {}", self.incarnation));
        }
        if found.may_have_forgotten {
            return wrong("takes its log for a copy".to_owned());
        }
        self.keep_tail(last);
        if let Some(what) = difference(&state, &self.held) {
            return wrong(format!("finds other {what} on its disk than it wrote"));
        }
        self.tail = None;
        (self.incarnation, self.last_id) = (boot, Some(self.id));
        Ok(state)
    }

    /// Its node is gone; some of what was not synced may have survived.
    pub(crate) fn stop(&mut self, duty: Duty, end: End, random: &mut Random) {
        self.duty = duty;
        self.node = None;
        self.paused_until = 0;
        self.wake_at = u64::MAX;
        self.dies_after = None;
        if self.store.is_some() {
            self.end(end);
        } else {
            let tail = match end {
                End::Killed => Tail::Kept,
                End::PowerCut(tail) => tail,
            };
            let survived = self.disk.crash(tail, random);
            self.keep(&survived);
        }
    }

    /// Its process or its power ends, whether a node runs or not.
    pub(crate) fn end(&mut self, end: End) {
        let Some(store) = &mut self.store else { return };
        let written = store.written();
        let last = store.end(end);
        if self.tail.is_none() {
            let (held, image) = (self.held.clone(), self.image.clone());
            let (synced, records) = (self.disk.synced(), self.disk.take_unsynced(written));
            self.tail = Some(Tailed { synced, held, image, records });
        }
        // What it cannot be read, the next start tells.
        self.keep_tail(last.unwrap_or_default());
    }

    /// Its log goes up to a record now.
    fn keep_tail(&mut self, last: u64) {
        let Some(tail) = self.tail.take() else { return };
        (self.held, self.image) = (tail.held.clone(), tail.image.clone());
        let count = usize::try_from(last.saturating_sub(tail.synced)).unwrap_or_default().min(tail.records.len());
        self.keep(&tail.records[..count]);
        self.disk = Disk::new(tail.synced + count as u64);
        self.tail = Some(tail);
    }

    /// Its node has another record.
    pub(crate) fn append(&mut self, position: u64, record: Record) -> Result<(), Violation> {
        if let Some(store) = &mut self.store {
            let text = |error| Violation::Log(format!("{} has a record that cannot be written: {error}", self.name));
            store.append(position, &record).map_err(text)?;
        }
        self.disk.append(record);
        Ok(())
    }

    /// Its process ends in order.
    pub(crate) fn close(&mut self) -> Result<(), Violation> {
        let Some((store, node)) = self.store.as_mut().zip(self.node.as_ref()) else { return Ok(()) };
        let text = |error| Violation::Log(format!("{} has a row that cannot be written: {error}", self.name));
        store.close(node).map_err(text)
    }

    /// Lets a start fail now and then: in a call of its disk, or because the machine stops.
    pub(crate) fn fail_in_start(&mut self) {
        if let Some(store) = &mut self.store
            && store.random().chance(100)
        {
            store.fail_soon(&Fault::ALL);
        }
    }

    /// Begins an fsync of everything written, if there is anything and none is under way.
    pub(crate) fn begin_sync(&mut self) -> bool {
        self.store.as_mut().is_none_or(Store::write) && self.disk.begin_sync()
    }

    /// Ends the fsync under way: up to which position.
    pub(crate) fn end_sync(&mut self) -> Option<(u64, Vec<Record>)> {
        if self.store.as_mut().is_some_and(|store| !store.sync()) {
            return None;
        }
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
