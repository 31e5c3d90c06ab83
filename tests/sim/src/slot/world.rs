//! The event queue, and what each event does.

use std::collections::BTreeMap;
use std::time::Duration;

use specter_dht::kv::{Answer, Config, Entry, Input, Message, OpId, Output, Refusal, Request, RequestId};
use specter_dht::{NodeId, Random};

use crate::history::History;
use crate::invariant::Invariants;
use crate::lease::Leases;
use crate::network::{Links, Weather};
use crate::queue::Queue;
use crate::slot::Swarm;
use crate::slot::client::Client;
use crate::slot::machine::Machine;
use crate::workload::Workload;
use crate::{Outcome, Violation};

/// What is due at some time.
#[derive(Debug, Hash)]
pub(super) enum Event {
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
    pub(super) swarm: Swarm,
    pub(super) queue: Queue<Event>,
    pub(super) random: Random,
    pub(super) machines: BTreeMap<NodeId, Machine>,
    pub(super) links: Links<NodeId>,
    pub(super) weather: Weather,
    pub(super) clients: Vec<Client>,
    pub(super) history: History,
    pub(super) invariants: Invariants,
    pub(super) leases: Leases,
    pub(super) outcome: Outcome,
    pub(super) wanted: Vec<NodeId>,
    pub(super) disk_micros: u64,
    pub(super) calm: bool,
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
        let clients = (1..=swarm.clients)
            .map(|id| Client::new(id, Workload::new(id, swarm.keys, Random::seeded(random.next_u64()))))
            .collect();
        Self {
            queue: Queue::new(),
            machines: machines.collect(),
            links: Links::new(),
            weather: swarm.weather,
            clients,
            history: History::default(),
            invariants: Invariants::founded(config),
            leases: Leases::default(),
            outcome: Outcome::default(),
            wanted: founders,
            disk_micros: 0,
            calm: false,
            random,
            swarm,
        }
    }

    pub(crate) fn run(mut self) -> Outcome {
        if let Err(violation) = self.play() {
            self.outcome.violation = Some((violation, self.queue.time()));
        }
        self.outcome.micros = self.queue.time();
        self.outcome
    }

    fn play(&mut self) -> Result<(), Violation> {
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            self.start(node)?;
        }
        for client in 1..=self.swarm.clients {
            let after = self.random.below(10_000);
            self.queue.push(after, Event::Begin { client });
        }
        self.queue.push(self.swarm.fault_gap_micros.0, Event::Fault);
        self.queue.push(self.swarm.chaos_micros, Event::Calm);
        let end = self.swarm.chaos_micros + self.swarm.calm_micros;
        while let Some(event) = self.queue.pop_until(end) {
            self.outcome.trace.feed(&(self.queue.time(), &event));
            self.happen(event)?;
        }
        self.conclude()
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
        self.machines.get(node).map(|machine| machine.paused_until).filter(|until| *until > self.queue.time())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(until) = self.paused(&event) {
            self.queue.push_at(until, event);
            return Ok(());
        }
        match event {
            Event::Deliver { from, to, message } => {
                if !self.links.is_open(from, to) {
                    self.outcome.count("messages cut off");
                    return Ok(());
                }
                self.input(to, Input::Message { from, message: *message })
            }
            Event::Wake { node, boot } => {
                let due = |machine: &&mut Machine| machine.boot == boot && machine.wake_at == self.queue.time();
                if let Some(machine) = self.machines.get_mut(&node).filter(due) {
                    machine.wake_at = u64::MAX;
                    return self.input(node, Input::Timeout);
                }
                // A pause may have put the waking off.
                let late = |machine: &&Machine| machine.boot == boot && machine.wake_at < self.queue.time();
                if self.machines.get(&node).filter(late).is_some() {
                    return self.input(node, Input::Timeout);
                }
                Ok(())
            }
            Event::Synced { node, boot } => {
                let same = |machine: &&mut Machine| machine.boot == boot;
                let Some(machine) = self.machines.get_mut(&node).filter(same) else { return Ok(()) };
                let Some(input) = machine.end_sync() else { return Ok(()) };
                Invariants::synced(machine.id, &machine.image)?;
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

    pub(super) fn start(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        machine.start(&self.swarm, &mut self.random, self.queue.time());
        if let Some(slot) = &machine.slot {
            Invariants::started(node, slot.state(), &machine.image)?;
        }
        self.want(node)
    }

    /// Tells a node who should keep the slot.
    pub(super) fn want(&mut self, node: NodeId) -> Result<(), Violation> {
        let hold_off = Duration::from_micros(self.swarm.hold_off_micros);
        self.input(node, Input::Wanted { nodes: self.wanted.clone(), hold_off })
    }

    pub(super) fn input(&mut self, node: NodeId, input: Input) -> Result<(), Violation> {
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        let now = machine.clock.local(self.queue.time());
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
        let (boot, wake_at) = (machine.boot, machine.clock.global(wake).max(self.queue.time() + 1));
        if wake_at != machine.wake_at && wake_at != u64::MAX {
            machine.wake_at = wake_at;
            self.queue.push_at(wake_at, Event::Wake { node, boot });
        }
        for output in outputs {
            self.output(node, leads.as_ref(), output)?;
        }
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        if machine.begin_sync() {
            let (low, high) = self.swarm.fsync_micros;
            let micros = self.random.between(low, high) + self.disk_micros;
            self.queue.push(micros, Event::Synced { node, boot });
        }
        Ok(())
    }

    fn output(&mut self, node: NodeId, leads: Option<&Config>, output: Output) -> Result<(), Violation> {
        match output {
            Output::Transmit { to, message } => {
                for delay in self.weather.copies(&mut self.random) {
                    let message = Box::new(message.clone());
                    self.queue.push(delay, Event::Deliver { from: node, to, message });
                }
                Ok(())
            }
            Output::Append { entry, .. } => {
                let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
                match &entry {
                    Entry::Promise(ballot) if ballot.node == node => self.outcome.count("candidacies"),
                    Entry::Purge { .. } => self.outcome.count("purges"),
                    Entry::Promise(_) | Entry::Accept { .. } | Entry::Config { .. } => {}
                }
                self.invariants.appended(node, &machine.image, &entry)?;
                machine.append(entry);
                Ok(())
            }
            Output::Reply { id, reply, rests_on } => {
                let (op, copy) = named(id);
                let pending = self.pending(op).map(|pending| pending.request.key.clone());
                if let (Ok(_), Some(version), Some(config), Some(key)) = (&reply, rests_on, leads, pending) {
                    let image = |node| self.machines.get(&node).map(|machine| &machine.image);
                    self.invariants.answered(image, config, &key, version)?;
                }
                for delay in self.weather.client_copies(&mut self.random) {
                    let reply = reply.clone();
                    self.queue.push(delay, Event::Replied { from: node, op, copy, reply });
                }
                Ok(())
            }
            // Taken out before.
            Output::Timeout(_) => Ok(()),
        }
    }
}
