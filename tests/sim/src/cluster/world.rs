//! The machines, the event queue, and what each event does.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use specter_dht::kv::{Key, Operation};
use specter_dht::ring::Destination;
use specter_dht::{Event as NodeEvent, Failure, Freshness, Input, NodeId, Output, Packet, Part, Random, Reply};

use super::client::{Client, Kind};
use super::ending::Phase;
use super::machine::{Duty, Machine, Name};
use super::store::{End, Store};
use super::traffic::Traffic;
use super::waits::Waits;
use super::watch::Watch;
use crate::cluster::Swarm;
use crate::history::History;
use crate::lease::Leases;
use crate::network::{Links, Weather};
use crate::queue::Queue;
use crate::{Outcome, Violation};

/// What is due at some time.
#[derive(Debug, Hash)]
pub(super) enum Event {
    /// A packet arrives at a machine, meant for whoever is there or for one node.
    Deliver { sender: Name, from: NodeId, to: Name, meant: Option<NodeId>, packet: Rc<Packet> },
    /// A sender is told that nobody was there.
    Notice { machine: Name, boot: u32, node: NodeId, calm: bool },
    /// The instant has come that a node asked for.
    Wake { machine: Name, boot: u32 },
    /// An fsync ends.
    Synced { machine: Name, boot: u32 },
    /// A machine starts.
    Start { machine: Name, boot: u32 },
    /// A client asks its next operation.
    Begin { client: u64 },
    /// A client has its reply.
    Replied { client: u64, number: u64, reply: Result<Reply, Failure> },
    /// A client waits no longer.
    GiveUp { client: u64, number: u64 },
    /// A machine that leaves is stopped, whether it has or not.
    Deadline { machine: Name, boot: u32 },
    /// A disk has room again.
    Room { machine: Name, boot: u32 },
    /// All links work again.
    Heal,
    /// A link that fails on and off changes its mind.
    Flap { one: Name, times: u32 },
    /// The next fault.
    Fault,
    /// A look at the whole.
    Look,
    /// A checkpoint is written down.
    Saved { machine: Name, boot: u32 },
    /// A look whether a full disk has room again.
    Reclaim { machine: Name, boot: u32 },
    /// Somebody notices that a node's disk has failed, and starts it anew.
    Stop { machine: Name, boot: u32 },
}

/// A cluster, its clients, and everything that is about to happen to them.
pub(crate) struct World {
    pub(crate) swarm: Swarm,
    pub(super) queue: Queue<Event>,
    pub(super) random: Random,
    pub(super) machines: BTreeMap<Name, Machine>,
    /// Whose node it is, or was.
    pub(super) names: BTreeMap<NodeId, Name>,
    /// What a node is called in traces: like its machine, and which node of that it is.
    pub(super) labels: BTreeMap<NodeId, String>,
    pub(super) links: Links<Name>,
    pub(super) weather: Weather,
    pub(super) clients: Vec<Client>,
    pub(super) history: History,
    pub(super) leases: Leases,
    pub(super) watch: Watch,
    pub(super) waits: Waits,
    pub(super) traffic: Traffic,
    pub(super) phase: Phase,
    /// What is to be read once more at the end.
    pub(super) agenda: VecDeque<(Key, Operation, Freshness)>,
    pub(crate) outcome: Outcome,
    /// Whether what happens is printed.
    pub(crate) tells: bool,
}

impl World {
    /// A world in which nothing runs yet.
    pub(crate) fn new(swarm: Swarm) -> Self {
        let mut random = Random::seeded(swarm.seed);
        let count = u16::try_from(swarm.nodes + swarm.spares).unwrap_or(u16::MAX);
        let addresses: Vec<SocketAddr> = (1..=count).map(|number| Name(number).address()).collect();
        let mut machines = BTreeMap::new();
        for number in 1..=count {
            let (name, (fewest, most)) = (Name(number), swarm.seats);
            let seats = u8::try_from(random.between(fewest.into(), most.into())).unwrap_or(fewest);
            let id = draw_id(&mut random);
            // Drawn apart, so that everything else is as it is on a model.
            let store = Store::new(swarm.storage, id, &mut Random::seeded(swarm.seed ^ (u64::from(number) << 48)));
            let mut machine = Machine::new(name, id, seats, store);
            machine.creates = (number == 1).then_some(swarm.terms);
            let seeds = usize::try_from(swarm.seeds.min(swarm.nodes)).unwrap_or(1);
            machine.seeds = addresses[..seeds].to_vec();
            machines.insert(name, machine);
        }
        let mut clients = Vec::new();
        for id in 1..=swarm.clients + swarm.probes {
            let probed = format!("rprobe {id}").into_bytes();
            let kind = if id > swarm.clients { Kind::Probe(probed) } else { Kind::Busy };
            clients.push(Client::new(id, kind, swarm.keys, Random::seeded(random.next_u64())));
        }
        Self {
            queue: Queue::new(),
            names: machines.values().map(|machine| (machine.id, machine.name)).collect(),
            labels: machines.values().map(|machine| (machine.id, machine.name.to_string())).collect(),
            machines,
            links: Links::new(),
            // A ring that loses packets is never ideal everywhere at once.
            weather: if swarm.forms_first { swarm.weather.calm() } else { swarm.weather },
            clients,
            history: History::default(),
            leases: Leases::new(swarm.faults.leap),
            watch: Watch::default(),
            waits: Waits::default(),
            traffic: Traffic::default(),
            phase: Phase::Forming,
            agenda: VecDeque::new(),
            outcome: Outcome::default(),
            tells: false,
            random,
            swarm,
        }
    }

    /// Runs to some time.
    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        while let Some(event) = self.queue.pop_until(end) {
            self.outcome.trace.feed(&(self.queue.time(), &event));
            self.happen(event)?;
        }
        Ok(())
    }

    /// True time, in microseconds.
    pub(crate) const fn time(&self) -> u64 {
        self.queue.time()
    }

    /// Prints one line when it is asked for.
    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>12.6}  {}", self.queue.time() as f64 / 1e6, line());
        }
    }

    /// The machines whose nodes run.
    pub(super) fn up(&self) -> impl Iterator<Item = &Machine> {
        self.machines.values().filter(|machine| machine.is_up())
    }

    /// Until when a machine stands still for which this event is meant.
    fn paused(&self, event: &Event) -> Option<u64> {
        let machine = match event {
            Event::Deliver { to: machine, .. }
            | Event::Notice { machine, .. }
            | Event::Wake { machine, .. }
            | Event::Synced { machine, .. }
            | Event::Saved { machine, .. }
            | Event::Reclaim { machine, .. } => machine,
            Event::Start { .. }
            | Event::Begin { .. }
            | Event::Replied { .. }
            | Event::GiveUp { .. }
            | Event::Deadline { .. }
            | Event::Stop { .. }
            | Event::Room { .. }
            | Event::Flap { .. }
            | Event::Heal
            | Event::Fault
            | Event::Look => return None,
        };
        self.machines.get(machine).map(|machine| machine.paused_until).filter(|until| *until > self.queue.time())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(until) = self.paused(&event) {
            self.queue.push_at(until, event);
            return Ok(());
        }
        match event {
            Event::Deliver { sender, from, to, meant, packet } => self.deliver((sender, from), (to, meant), packet),
            Event::Notice { machine, boot, node, calm } => {
                // What is still to be said of links that were cut is not true any more.
                if self.is_same(machine, boot) && self.phase.is_calm() == calm {
                    self.outcome.count("notices that nobody is there");
                    return self.input(machine, Input::Unreachable { node });
                }
                Ok(())
            }
            Event::Wake { machine, boot } => {
                let time = self.queue.time();
                // A pause may have put the waking off.
                let due = |machine: &&mut Machine| machine.boot == boot && machine.wake_at <= time;
                let Some(awake) = self.machines.get_mut(&machine).filter(due) else { return Ok(()) };
                awake.wake_at = u64::MAX;
                self.input(machine, Input::Timeout)
            }
            Event::Synced { machine, boot } => self.synced(machine, boot),
            Event::Saved { machine, boot } => self.saved(machine, boot),
            Event::Reclaim { machine, boot } => self.reclaim(machine, boot),
            Event::Stop { machine, boot } => {
                if self.is_same(machine, boot) {
                    self.crash(machine, None);
                }
                Ok(())
            }
            Event::Start { machine, boot } => {
                let down = |machine: &&Machine| !machine.is_up() && machine.boot == boot;
                if self.machines.get(&machine).filter(down).is_some() { self.start(machine) } else { Ok(()) }
            }
            Event::Begin { client } => self.begin(client),
            Event::Replied { client, number, reply } => self.replied(client, number, reply),
            Event::GiveUp { client, number } => self.give_up(client, number),
            Event::Deadline { machine, boot } => {
                self.deadline(machine, boot);
                Ok(())
            }
            Event::Room { machine, boot } => {
                if self.is_same(machine, boot) {
                    return self.set_full(machine, false);
                }
                Ok(())
            }
            Event::Heal => {
                self.links.heal();
                Ok(())
            }
            Event::Flap { one, times } => {
                self.flap(one, times);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Look => self.look(),
        }
    }

    pub(super) fn is_same(&self, machine: Name, boot: u32) -> bool {
        self.machines.get(&machine).is_some_and(|machine| machine.boot == boot && machine.is_up())
    }

    fn deliver(
        &mut self,
        (sender, from): (Name, NodeId),
        (to, meant): (Name, Option<NodeId>),
        packet: Rc<Packet>,
    ) -> Result<(), Violation> {
        if !self.links.is_open(sender, to) {
            self.outcome.count("packets cut off");
            // A connection over a dead link dies in the end.
            return self.notice(sender, from, meant, (1_000_000, 4_000_000));
        }
        let here = self.machines.get(&to).filter(|machine| machine.is_up());
        if here.is_none_or(|machine| meant.is_some_and(|meant| meant != machine.id)) {
            return self.notice(sender, from, meant, (200, 5_000));
        }
        self.tell(|| format!("{sender} -> {to}  {}", super::trace::packet(&self.labels, &packet)));
        self.input(to, Input::Packet { from, packet: Rc::unwrap_or_clone(packet) })
    }

    fn notice(
        &mut self,
        sender: Name,
        from: NodeId,
        meant: Option<NodeId>,
        (soon, late): (u64, u64),
    ) -> Result<(), Violation> {
        let Some(node) = meant.filter(|_| self.random.chance(self.swarm.notices)) else { return Ok(()) };
        let boot = self.machines.get(&sender).filter(|machine| machine.id == from).map(|machine| machine.boot);
        if let Some(boot) = boot {
            let after = self.random.between(soon, late);
            let calm = self.phase.is_calm();
            self.queue.push(after, Event::Notice { machine: sender, boot, node, calm });
        }
        Ok(())
    }

    fn synced(&mut self, name: Name, boot: u32) -> Result<(), Violation> {
        let time = self.queue.time();
        let Some(machine) = self.machines.get_mut(&name).filter(|machine| machine.boot == boot) else { return Ok(()) };
        if machine.stalled_until > time {
            let until = machine.stalled_until;
            self.queue.push_at(until, Event::Synced { machine: name, boot });
            return Ok(());
        }
        let Some((upto, records)) = machine.end_sync() else { return self.look_after(name) };
        Watch::synced(machine, &records)?;
        self.input(name, Input::Persisted { upto })
    }

    pub(super) fn start(&mut self, name: Name) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
        if self.phase.is_chaos() && (self.swarm.faults.disk || self.swarm.faults.crash) {
            machine.fail_in_start();
        }
        if !machine.start(&self.swarm, &mut self.random, self.queue.time())? {
            return self.start_later(name);
        }
        Watch::started(machine)?;
        let (id, life, full) = (machine.id, machine.incarnation, machine.full);
        self.tell(|| format!("{name} starts as {id:?}, life {life}"));
        self.carry_out(name)?;
        if full { self.set_full(name, true) } else { Ok(()) }
    }

    /// A disk did not let its node start: it is tried again.
    fn start_later(&mut self, name: Name) -> Result<(), Violation> {
        self.outcome.count("starts that failed");
        self.tell(|| format!("{name} does not start"));
        let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
        let Some(store) = machine.store.as_mut().filter(|_| self.phase.is_chaos()) else {
            return Err(Violation::Log(format!("{name} does not start although its disk is sound")));
        };
        let (after, boot) = (store.random().between(1_000, 1_000_000), machine.boot);
        self.queue.push(after, Event::Start { machine: name, boot });
        Ok(())
    }

    /// Gives a node an input and carries out what it wants.
    pub(super) fn input(&mut self, name: Name, input: Input) -> Result<(), Violation> {
        let time = self.queue.time();
        let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
        let now = machine.clock.local(time);
        let Some(node) = machine.node.as_mut() else { return Ok(()) };
        node.handle_input(now, input);
        self.carry_out(name)
    }

    fn carry_out(&mut self, name: Name) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
        let Some(node) = machine.node.as_mut() else { return Ok(()) };
        let mut outputs = Vec::new();
        let wake = loop {
            match node.poll_output() {
                Output::Timeout(at) => break at,
                output => outputs.push(output),
            }
        };
        self.watch.bounded(name, node, outputs.len())?;
        let (boot, wake_at) = (machine.boot, machine.clock.global(wake).max(self.queue.time() + 1));
        if wake_at != machine.wake_at && wake_at != u64::MAX {
            machine.wake_at = wake_at;
            self.queue.push_at(wake_at, Event::Wake { machine: name, boot });
        }
        let leaves = outputs.iter().any(|output| matches!(output, Output::Event(NodeEvent::Left)));
        for output in outputs {
            self.output(name, output)?;
            if self.dies(name) {
                self.outcome.count("crashes in the middle of an input");
                self.crash(name, None);
                return Ok(());
            }
        }
        if leaves {
            self.left(name)?;
        }
        let Some(machine) = self.machines.get_mut(&name).filter(|machine| machine.is_up()) else { return Ok(()) };
        if machine.begin_sync() {
            let (low, high) = self.swarm.fsync_micros;
            let micros = self.random.between(low, high) + machine.slow_micros;
            self.queue.push(micros, Event::Synced { machine: name, boot });
        }
        self.look_after(name)
    }

    /// Whether the machine crashes now, in the middle of what it does.
    fn dies(&mut self, name: Name) -> bool {
        let Some(machine) = self.machines.get_mut(&name) else { return false };
        let Some(left) = machine.dies_after else { return false };
        machine.dies_after = Some(left.saturating_sub(1));
        left <= 1 && machine.is_up()
    }

    fn output(&mut self, name: Name, output: Output) -> Result<(), Violation> {
        match output {
            Output::Transmit { to, packet } => self.transmit(name, to, packet),
            Output::Append { position, record } => {
                let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
                self.traffic.written(name, &record)?;
                self.watch.appended(machine, position, &record, &mut self.outcome)?;
                machine.append(position, record)
            }
            Output::Reply { id, reply } => {
                let (client, number) = (id.0 >> 32, id.0 & 0xFFFF_FFFF);
                self.check_reply(client, number, &reply)?;
                self.queue.push(0, Event::Replied { client, number, reply });
                Ok(())
            }
            Output::Event(event) => {
                match event {
                    NodeEvent::Joined => self.outcome.count("nodes joined"),
                    NodeEvent::Forced { .. } => self.outcome.count("slots that went on alone"),
                    NodeEvent::Foreign { .. } => self.outcome.count("packets refused as foreign"),
                    // Once everything is sent.
                    NodeEvent::Left => {}
                }
                Ok(())
            }
            // Taken out before.
            Output::Timeout(_) => Ok(()),
        }
    }

    fn transmit(&mut self, sender: Name, to: Destination, packet: Packet) -> Result<(), Violation> {
        let (address, meant) = match to {
            Destination::Node(node, address) => (address, Some(node)),
            Destination::Address(address) => (address, None),
        };
        let Some(from) = self.machines.get(&sender).map(|machine| machine.id) else { return Ok(()) };
        self.traffic.sent(sender, &packet, self.swarm.settings.packet_bytes)?;
        let Some(to) = Name::at(address).filter(|name| self.machines.contains_key(name)) else { return Ok(()) };
        let packet = Rc::new(packet);
        for (copy, delay) in self.weather.copies(&mut self.random).into_iter().enumerate() {
            let packet = if copy == 0 { Rc::clone(&packet) } else { Rc::new(without_requests(&packet)) };
            self.queue.push(delay, Event::Deliver { sender, from, to, meant, packet });
        }
        Ok(())
    }

    /// A node says that it may go: its process ends.
    fn left(&mut self, name: Name) -> Result<(), Violation> {
        self.tell(|| format!("{name} has left"));
        let Some(machine) = self.machines.get(&name) else { return Ok(()) };
        let last = self.watch.left(machine)?;
        let missed = self.watch.is_missed(machine.id, &self.machines);
        self.outcome.count(if last { "last nodes left" } else { "nodes left" });
        let Some(machine) = self.machines.get_mut(&name) else { return Ok(()) };
        machine.close()?;
        // What is only on its disk, or cannot go on without it, can be had again only when it is started again.
        machine.stop(if last || missed { Duty::Down } else { Duty::Away }, End::Killed, &mut self.random);
        if last || missed {
            let (boot, after) = (machine.boot, self.random.between(1_000, 3_000_000));
            self.queue.push(after, Event::Start { machine: name, boot });
        }
        self.look_up_again()
    }
}

/// What arrives a second time. Nodes bear copies of everything but requests and their answers, which the transport must not
/// deliver twice: a request that one node refused, so that its sender said that nothing was done, may be done by a late
/// copy; and the copy of a refusal is taken for the answer to the next attempt at the same node.
fn without_requests(packet: &Packet) -> Packet {
    let parts =
        packet.parts.iter().filter(|part| !matches!(part, Part::Ask { .. } | Part::Told { .. })).cloned().collect();
    Packet { parts, peers: packet.peers.clone(), ..*packet }
}

/// The name of a new node.
pub(super) fn draw_id(random: &mut Random) -> NodeId {
    NodeId((u128::from(random.next_u64()) << 64) | u128::from(random.next_u64()))
}
