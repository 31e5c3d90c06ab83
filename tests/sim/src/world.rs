//! The event queue, and what each event does.

use std::collections::{BTreeMap, BTreeSet};

use specter_dht::{
    Answer, Config, Entry, Input, Message, NodeId, OpId, Output, Random, Refusal, Request, RequestId, Version,
};

use crate::checker::{self, Call, Verdict};
use crate::client::{Client, Pending};
use crate::history::History;
use crate::invariant::Invariants;
use crate::machine::{Machine, Tail};
use crate::nemesis::{self, Fault};
use crate::network::Network;
use crate::{Outcome, Swarm, Violation};

/// What is due at some time.
#[derive(Debug, Hash)]
enum Event {
    Deliver { from: NodeId, to: NodeId, message: Box<Message> },
    Wake { node: NodeId, boot: u32 },
    Synced { node: NodeId, boot: u32 },
    Start { node: NodeId, boot: u32 },
    Ask { node: NodeId, request: Request },
    Replied { from: NodeId, op: OpId, reply: Result<Answer, Refusal> },
    Begin { client: u64 },
    Attempt { op: OpId },
    Fault,
    Calm,
}

/// A few nodes, their clients, and everything that is about to happen to them.
pub(crate) struct World {
    swarm: Swarm,
    time: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    random: Random,
    machines: BTreeMap<NodeId, Machine>,
    network: Network,
    clients: Vec<Client>,
    history: History,
    invariants: Invariants,
    outcome: Outcome,
    /// Every configuration that some node knows to be chosen.
    chosen: BTreeMap<Version, Config>,
    wanted: Vec<NodeId>,
    disk_micros: u64,
    calm: bool,
}

impl World {
    pub(crate) fn new(swarm: Swarm) -> Self {
        let mut random = Random::seeded(swarm.seed);
        let founders: Vec<NodeId> = (0..swarm.replicas).map(NodeId).collect();
        let config = Config::founding(founders.iter().copied());
        let founding = Entry::Config { config: config.clone(), chosen: true };
        let machines = (0..swarm.nodes)
            .map(NodeId)
            .map(|id| (id, Machine::new(id, founders.contains(&id).then(|| founding.clone()).into_iter().collect())));
        let clients = (1..=swarm.clients).map(|id| Client::new(id, Random::seeded(random.next_u64()))).collect();
        Self {
            time: 0,
            queue: BTreeMap::new(),
            queued: 0,
            machines: machines.collect(),
            network: Network::default(),
            clients,
            history: History::default(),
            invariants: Invariants::default(),
            outcome: Outcome::default(),
            chosen: BTreeMap::from([(config.version, config)]),
            wanted: founders,
            disk_micros: 0,
            calm: false,
            random,
            swarm,
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        if let Err(violation) = self.play() {
            self.outcome.violation = Some((violation, self.time));
        }
        self.outcome.micros = self.time;
        self.outcome
    }

    fn play(&mut self) -> Result<(), Violation> {
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            self.start(node)?;
        }
        for client in 1..=self.swarm.clients {
            let after = self.random.below(10_000);
            self.schedule(after, Event::Begin { client });
        }
        self.schedule(self.swarm.fault_gap_micros.0, Event::Fault);
        self.schedule(self.swarm.chaos_micros, Event::Calm);
        let end = self.swarm.chaos_micros + self.swarm.calm_micros;
        while let Some(((time, _), event)) = self.queue.pop_first() {
            if time > end {
                break;
            }
            self.time = time;
            self.outcome.trace.feed(&(time, &event));
            self.happen(event)?;
        }
        self.time = end;
        self.conclude()
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.schedule_at(self.time.saturating_add(after), event);
    }

    fn schedule_at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    /// Until when a node stands still for which this event is meant.
    fn paused(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Deliver { to: node, .. } | Event::Ask { node, .. } => node,
            Event::Wake { node, .. } | Event::Synced { node, .. } => node,
            Event::Start { .. }
            | Event::Replied { .. }
            | Event::Begin { .. }
            | Event::Attempt { .. }
            | Event::Fault
            | Event::Calm => return None,
        };
        self.machines.get(node).map(|machine| machine.paused_until).filter(|until| *until > self.time)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(until) = self.paused(&event) {
            self.schedule_at(until, event);
            return Ok(());
        }
        match event {
            Event::Deliver { from, to, message } => {
                if !self.network.is_open(from, to) {
                    self.outcome.count("messages cut off");
                    return Ok(());
                }
                self.input(to, Input::Message { from, message: *message })
            }
            Event::Wake { node, boot } => {
                let due = |machine: &&mut Machine| machine.boot == boot && machine.wake_at == self.time;
                if let Some(machine) = self.machines.get_mut(&node).filter(due) {
                    machine.wake_at = u64::MAX;
                    return self.input(node, Input::Timeout);
                }
                // A pause may have put the waking off.
                let late = |machine: &&Machine| machine.boot == boot && machine.wake_at < self.time;
                if self.machines.get(&node).filter(late).is_some() {
                    return self.input(node, Input::Timeout);
                }
                Ok(())
            }
            Event::Synced { node, boot } => {
                let same = |machine: &&mut Machine| machine.boot == boot;
                let Some(machine) = self.machines.get_mut(&node).filter(same) else { return Ok(()) };
                let Some(input) = machine.end_sync() else { return Ok(()) };
                Invariants::synced(machine)?;
                self.input(node, input)
            }
            Event::Start { node, boot } => {
                let down = |machine: &&Machine| machine.slot.is_none() && machine.boot == boot;
                if self.machines.get(&node).filter(down).is_some() { self.start(node) } else { Ok(()) }
            }
            Event::Ask { node, request } => {
                let id = RequestId((request.op.client << 40) | request.op.number);
                self.input(node, Input::Request { id, request })
            }
            Event::Replied { from, op, reply } => self.replied(from, op, reply),
            Event::Begin { client } => {
                self.begin(client);
                Ok(())
            }
            Event::Attempt { op } => {
                self.attempt(op);
                Ok(())
            }
            Event::Fault => self.fault(),
            Event::Calm => self.settle_down(),
        }
    }

    fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        machine.start(&self.swarm, &mut self.random, self.time);
        Invariants::started(machine)?;
        self.input(node, Input::Wanted { nodes: self.wanted.clone() })
    }

    fn input(&mut self, node: NodeId, input: Input) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        let now = machine.local(self.time);
        let Some(slot) = machine.slot.as_mut() else { return Ok(()) };
        slot.handle_input(now, input);
        let mut outputs = Vec::new();
        let wake = loop {
            match slot.poll_output() {
                Output::Timeout(at) => break at,
                output => outputs.push(output),
            }
        };
        let leads = slot.leads().cloned();
        let (boot, wake_at) = (machine.boot, machine.global(wake).max(self.time + 1));
        if wake_at != machine.wake_at && wake_at != u64::MAX {
            machine.wake_at = wake_at;
            self.schedule_at(wake_at, Event::Wake { node, boot });
        }
        for output in outputs {
            self.output(node, leads.as_ref(), output)?;
        }
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        if machine.begin_sync() {
            let (low, high) = self.swarm.fsync_micros;
            let micros = self.random.between(low, high) + self.disk_micros;
            self.schedule(micros, Event::Synced { node, boot });
        }
        Ok(())
    }

    fn output(&mut self, node: NodeId, leads: Option<&Config>, output: Output) -> Result<(), Violation> {
        match output {
            Output::Transmit { to, message } => {
                for delay in self.network.copies(&self.swarm, &mut self.random, self.calm) {
                    let message = Box::new(message.clone());
                    self.schedule(delay, Event::Deliver { from: node, to, message });
                }
                Ok(())
            }
            Output::Append { entry, .. } => {
                if let Entry::Config { config, chosen: true } = &entry {
                    let known = self.chosen.entry(config.version).or_insert_with(|| config.clone());
                    if known != config {
                        let text = format!("two configurations are chosen as {}", config.version);
                        return Err(Violation::TwoValues(text));
                    }
                }
                let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
                self.invariants.appended(machine, &entry)?;
                machine.append(entry);
                Ok(())
            }
            Output::Reply { id, reply, rests_on } => {
                let op = OpId { client: id.0 >> 40, number: id.0 & ((1 << 40) - 1) };
                let pending = self.pending(op).map(|pending| pending.request.key.clone());
                if let (Ok(_), Some(version), Some(config), Some(key)) = (&reply, rests_on, leads, pending) {
                    self.invariants.answered(&self.machines, config, &key, version)?;
                }
                for delay in Network::client_copies(&self.swarm, &mut self.random, self.calm) {
                    let reply = reply.clone();
                    self.schedule(delay, Event::Replied { from: node, op, reply });
                }
                Ok(())
            }
            // Taken out before.
            Output::Timeout(_) => Ok(()),
        }
    }

    fn client(&mut self, id: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    fn pending(&self, op: OpId) -> Option<&Pending> {
        let client = self.clients.iter().find(|client| client.id == op.client && client.awaits(op))?;
        client.pending.as_ref()
    }

    fn begin(&mut self, id: u64) {
        let (swarm, time) = (self.swarm.clone(), self.time);
        let Some(client) = self.client(id) else { return };
        client.begin(&swarm, time);
        let Some(request) = client.pending.as_ref().map(|pending| pending.request.clone()) else { return };
        if let specter_dht::Operation::Release { token } = request.operation {
            self.invariants.releasing(&request.key, token, time);
        }
        self.attempt(request.op);
    }

    fn attempt(&mut self, op: OpId) {
        let (swarm, time) = (self.swarm.clone(), self.time);
        let Some(client) = self.client(op.client).filter(|client| client.awaits(op)) else { return };
        let Some((node, request, wait)) = client.attempt(&swarm, time) else {
            return self.give_up(op.client);
        };
        let copies = Network::client_copies(&swarm, &mut self.random, self.calm);
        if let Some(pending) = self.client(op.client).and_then(|client| client.pending.as_mut()) {
            pending.copies += copies.len() as u64;
        }
        for delay in copies {
            let request = request.clone();
            self.schedule(delay, Event::Ask { node, request });
        }
        self.schedule(wait, Event::Attempt { op });
    }

    fn give_up(&mut self, id: u64) {
        let Some(client) = self.client(id) else { return };
        let Some(pending) = client.pending.take() else { return };
        client.note_lease(&pending.request.operation, &pending.request.key, None);
        // Refused for sure: then it must have left no trace, and it is left out of the history.
        let refused = pending.copies == pending.refused;
        self.outcome.count(if refused { "operations refused" } else { "operations of unknown fate" });
        if !refused {
            self.record(pending, None);
        }
        self.think(id);
    }

    fn record(&mut self, pending: Pending, returned: Option<(Answer, u64)>) {
        let Pending { request, called, .. } = pending;
        if request.key.starts_with(b"r") {
            self.history.add(&request.key, Call { operation: request.operation, called, returned });
        }
    }

    fn think(&mut self, client: u64) {
        let (low, high) = self.swarm.think_micros;
        let after = self.random.between(low, high);
        self.schedule(after, Event::Begin { client });
    }

    fn replied(&mut self, from: NodeId, op: OpId, reply: Result<Answer, Refusal>) -> Result<(), Violation> {
        let (swarm, time, calm) = (self.swarm.clone(), self.time, self.calm);
        let Some(client) = self.client(op.client).filter(|client| client.awaits(op)) else { return Ok(()) };
        let answer = match reply {
            Ok(answer) => answer,
            Err(refusal) => {
                client.refused(from, &refusal, &swarm);
                self.schedule(5_000, Event::Attempt { op });
                return Ok(());
            }
        };
        let Some(pending) = client.pending.take() else { return Ok(()) };
        client.calm_answers += u64::from(calm);
        let Request { key, operation, .. } = &pending.request;
        client.note_lease(operation, key, Some(&answer));
        let times = (pending.called, pending.sent, time);
        self.invariants.lease_answered(op.client, key, operation, &answer, times)?;
        self.outcome.count("operations answered");
        self.record(pending, Some((answer, time)));
        self.think(op.client);
        Ok(())
    }

    fn leader(&self) -> Option<NodeId> {
        let leading = |machine: &&Machine| machine.slot.as_ref().is_some_and(|slot| slot.leads().is_some());
        let leaders = self.machines.values().filter(leading);
        leaders.max_by_key(|machine| machine.image.promise).map(|machine| machine.id)
    }

    fn victim(&mut self, leader: bool) -> NodeId {
        let any = NodeId(self.random.below(self.swarm.nodes));
        if leader { self.leader().unwrap_or(any) } else { any }
    }

    fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let (low, high) = self.swarm.fault_gap_micros;
        let after = self.random.between(low, high);
        self.schedule(after, Event::Fault);
        let Some(fault) = nemesis::draw(&self.swarm, &mut self.random) else { return Ok(()) };
        self.outcome.trace.feed(&fault);
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        match fault {
            Fault::Crash { leader, down_micros } => {
                let node = self.victim(leader);
                self.outcome.count("crashes");
                self.crash(node, down_micros);
            }
            Fault::Power { down_micros } => {
                self.outcome.count("power cuts");
                nodes.into_iter().for_each(|node| self.crash(node, down_micros));
            }
            Fault::Pause { leader, micros } => {
                let (node, until) = (self.victim(leader), self.time + micros);
                if let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.paused_until <= self.time) {
                    machine.paused_until = until;
                    self.outcome.count("pauses");
                }
            }
            Fault::Isolate { leader, inward, outward } => {
                let node = self.victim(leader);
                self.outcome.count("partitions");
                for other in nodes.into_iter().filter(|other| *other != node) {
                    if outward {
                        self.network.block(node, other);
                    }
                    if inward {
                        self.network.block(other, node);
                    }
                }
            }
            Fault::Split { mask, bridge } => {
                self.outcome.count("partitions");
                let side = |node: NodeId| (mask >> (node.0 % 64)) & 1;
                let apart = |a: NodeId, b: NodeId| side(a) != side(b) && bridge != Some(a) && bridge != Some(b);
                let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
                for (a, b) in pairs.filter(|(a, b)| apart(*a, *b)) {
                    self.network.block(a, b);
                }
            }
            Fault::Heal => self.network.heal(),
            Fault::Disk { micros } => {
                self.outcome.count("disk stalls");
                self.disk_micros = micros;
            }
            Fault::Want { nodes: wanted } => {
                self.wanted = wanted;
                for node in nodes {
                    self.input(node, Input::Wanted { nodes: self.wanted.clone() })?;
                }
            }
        }
        Ok(())
    }

    fn crash(&mut self, node: NodeId, down_micros: u64) {
        let tail = [Tail::Kept, Tail::Lost, Tail::Torn][usize::try_from(self.random.below(3)).unwrap_or_default()];
        let Some(machine) = self.machines.get_mut(&node) else { return };
        if machine.slot.is_some() {
            machine.crash(tail, &mut self.random);
            let boot = machine.boot;
            self.schedule(down_micros, Event::Start { node, boot });
        }
    }

    /// The faults stop.
    fn settle_down(&mut self) -> Result<(), Violation> {
        self.calm = true;
        self.network.heal();
        self.disk_micros = 0;
        let down: Vec<NodeId> =
            self.machines.values().filter(|machine| machine.slot.is_none()).map(|machine| machine.id).collect();
        down.into_iter().try_for_each(|node| self.start(node))
    }

    fn conclude(&mut self) -> Result<(), Violation> {
        self.count_configurations();
        for client in &mut self.clients {
            let Some(Pending { request, called, .. }) = client.pending.take() else { continue };
            if request.key.starts_with(b"r") {
                self.history.add(&request.key, Call { operation: request.operation, called, returned: None });
            }
        }
        for (key, calls) in self.history.keys() {
            match checker::check(calls) {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.outcome.count("histories undecided"),
                Verdict::NotLinearizable => {
                    return Err(Violation::NotLinearizable(String::from_utf8_lossy(key).escape_debug().to_string()));
                }
            }
        }
        let wanted: BTreeSet<NodeId> = self.wanted.iter().copied().collect();
        let leads = self.leader().and_then(|node| self.machines.get(&node)?.slot.as_ref()?.leads());
        match leads {
            None => return Err(Violation::Stuck("nobody leads".into())),
            Some(config) if !config.is_stable() || config.nodes() != wanted => {
                return Err(Violation::Stuck(format!("the members are {:?}, not {wanted:?}", config.nodes())));
            }
            Some(_) => {}
        }
        match self.clients.iter().find(|client| client.calm_answers == 0) {
            Some(client) => Err(Violation::Stuck(format!("client {} has no answer", client.id))),
            None => Ok(()),
        }
    }

    fn count_configurations(&mut self) {
        let configs: Vec<&Config> = self.chosen.values().collect();
        for pair in configs.windows(2) {
            if pair[0].is_stable() && !pair[1].is_stable() {
                self.outcome.count("joint configurations");
            } else if !pair[0].is_stable() && pair[1].is_stable() {
                let undone = pair[1].old == pair[0].old;
                self.outcome.count(if undone { "reconfigurations undone" } else { "reconfigurations" });
            }
        }
    }
}
