//! The event queue, and what each event does.

mod asking;
mod ending;
mod faults;

use std::collections::BTreeMap;
use std::time::Duration;

use specter_dht::kv::{Answer, Config, Entry, Input, Message, OpId, Output, Refusal, Request, RequestId};
use specter_dht::{NodeId, Random, Version};

use crate::client::Client;
use crate::history::History;
use crate::invariant::Invariants;
use crate::machine::Machine;
use crate::network::Network;
use crate::{Outcome, Swarm, Violation};

/// What is due at some time.
#[derive(Debug, Hash)]
enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        message: Box<Message>,
    },
    Wake {
        node: NodeId,
        boot: u32,
    },
    Synced {
        node: NodeId,
        boot: u32,
    },
    Start {
        node: NodeId,
        boot: u32,
    },
    Ask {
        node: NodeId,
        copy: u64,
        request: Request,
    },
    Replied {
        from: NodeId,
        op: OpId,
        copy: u64,
        reply: Result<Answer, Refusal>,
    },
    Begin {
        client: u64,
    },
    /// Nothing came of so many attempts: make another.
    Attempt {
        op: OpId,
        after: u64,
    },
    Fault,
    Calm,
}

/// The name of one copy of an operation.
const fn name_request(op: OpId, copy: u64) -> RequestId {
    RequestId((op.client << 48) | (op.number << 16) | copy)
}

const fn named(id: RequestId) -> (OpId, u64) {
    (OpId { client: id.0 >> 48, number: (id.0 >> 16) & 0xFFFF_FFFF }, id.0 & 0xFFFF)
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
        let founders: Vec<NodeId> = (0..swarm.replicas).map(NodeId::from).collect();
        let config = Config::founding(founders.iter().copied());
        let founding = Entry::Config { config: config.clone(), chosen: true };
        let machines = (0..swarm.nodes)
            .map(NodeId::from)
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
            Event::Ask { node, copy, request } => {
                let id = name_request(request.op, copy);
                self.input(node, Input::Request { id, request })
            }
            Event::Replied { from, op, copy, reply } => self.replied(from, op, copy, reply),
            Event::Begin { client } => {
                self.begin(client);
                Ok(())
            }
            Event::Attempt { op, after } => {
                if self.pending(op).is_some_and(|pending| pending.attempts == after) {
                    self.attempt(op);
                }
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
        let full = machine.full;
        self.input(node, Input::ReadOnly(full))?;
        self.input(node, self.want())
    }

    /// What the ring tells every node.
    fn want(&self) -> Input {
        Input::Wanted { nodes: self.wanted.clone(), hold_off: Duration::from_micros(self.swarm.hold_off_micros) }
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
        if slot.refused() > 0 {
            return Err(Violation::Refused(format!("{node} refused to listen to a message")));
        }
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
                match &entry {
                    Entry::Promise(ballot) if ballot.node == node => self.outcome.count("candidacies"),
                    Entry::Purge { .. } => self.outcome.count("purges"),
                    Entry::Lost { .. } => self.outcome.count("values lost"),
                    Entry::Promise(_) | Entry::Accept { .. } | Entry::Config { .. } => {}
                }
                self.invariants.appended(machine, &entry)?;
                machine.append(entry);
                Ok(())
            }
            Output::Reply { id, reply, rests_on } => {
                let (op, copy) = named(id);
                let pending = self.pending(op).map(|pending| pending.request.key.clone());
                if let (Ok(_), Some(version), Some(config), Some(key)) = (&reply, rests_on, leads, pending) {
                    // A late answer of a leader that was replaced is a true one: by now others hold what it rests on.
                    let newest = self.chosen.values().next_back();
                    let config = newest.filter(|newest| newest.version > config.version).unwrap_or(config);
                    self.invariants.answered(&self.machines, config, &key, version)?;
                }
                for delay in Network::client_copies(&self.swarm, &mut self.random, self.calm) {
                    let reply = reply.clone();
                    self.schedule(delay, Event::Replied { from: node, op, copy, reply });
                }
                Ok(())
            }
            // Taken out before.
            Output::Timeout(_) => Ok(()),
        }
    }
}
