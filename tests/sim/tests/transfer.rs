//! A slot of many keys changes its members while it is in use.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use specter_dht::kv::{
    Config, Entry, Input, Key, Message, OpId, Operation, Output, Register, Request, RequestId, Rules, Settings, Slot,
};
use specter_dht::{Ballot, Instant, NodeId, Random, Version};

const MILLI: u64 = 1000;
/// How long a message takes, and an fsync.
const HOP_MICROS: u64 = MILLI;
const FSYNC_MICROS: u64 = 2 * MILLI;

enum Event {
    Deliver(NodeId, NodeId, Box<Message>),
    Synced(NodeId, u64),
    Wake(NodeId),
    Ask(u64),
}

/// Nodes with disks that all work, a short way from each other.
struct Net {
    now: u64,
    queue: BTreeMap<u64, VecDeque<Event>>,
    slots: BTreeMap<NodeId, (Slot, u64)>,
    /// When each request was asked.
    asked: BTreeMap<u64, u64>,
    slowest: u64,
    answered: u64,
}

impl Net {
    fn schedule(&mut self, after: u64, event: Event) {
        self.queue.entry(self.now + after).or_default().push_back(event);
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let Some((slot, wake)) = self.slots.get_mut(&id) else { return };
        slot.handle_input(Instant::from_micros(self.now), input);
        let (mut events, mut appended) = (Vec::new(), None);
        loop {
            match slot.poll_output() {
                Output::Transmit { to, message } => {
                    events.push((HOP_MICROS, Event::Deliver(id, to, Box::new(message))))
                }
                Output::Append { position, .. } => appended = Some(position),
                Output::Reply { id, reply, .. } => {
                    assert!(reply.is_ok(), "request {} after {} us: {reply:?}", id.0, self.now);
                    self.answered += 1;
                    self.slowest = self.slowest.max(self.now - self.asked[&id.0]);
                }
                Output::Timeout(at) if at.as_micros() == *wake || at == Instant::FAR => break,
                Output::Timeout(at) => {
                    *wake = at.as_micros();
                    events.push((wake.saturating_sub(self.now), Event::Wake(id)));
                    break;
                }
            }
        }
        appended.into_iter().for_each(|position| events.push((FSYNC_MICROS, Event::Synced(id, position))));
        events.into_iter().for_each(|(after, event)| self.schedule(after, event));
    }

    /// Lets time pass until something holds; says how long that took.
    fn until(&mut self, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let begun = self.now;
        while !holds(self) {
            let (at, events) = self.queue.pop_first().expect("leaders have heartbeats");
            assert!(at < begun + 60_000 * MILLI, "it takes more than a minute");
            self.now = at;
            for event in events {
                match event {
                    Event::Deliver(from, to, message) => self.input(to, Input::Message { from, message: *message }),
                    Event::Synced(id, upto) => self.input(id, Input::Persisted { upto }),
                    Event::Wake(id) if self.slots[&id].1 == at => self.input(id, Input::Timeout),
                    Event::Wake(_) => {}
                    Event::Ask(number) => self.ask(number),
                }
            }
        }
        Duration::from_micros(self.now - begun)
    }

    /// One of many clients writes or reads one of the keys, and another will in a moment.
    fn ask(&mut self, number: u64) {
        self.schedule(MILLI, Event::Ask(number + 1));
        let Some(leader) = self.leader() else { return };
        let operation = if number.is_multiple_of(2) { Operation::Get } else { put(number) };
        let request = Request { key: key(number * 7919), op: OpId { client: number, number: 1 }, operation };
        self.asked.insert(number, self.now);
        self.input(leader, Input::Request { id: RequestId(number), request });
    }

    fn leader(&self) -> Option<NodeId> {
        self.slots.iter().find(|(_, (slot, _))| slot.leads().is_some()).map(|(id, _)| *id)
    }

    fn config(&self, id: u64) -> &Config {
        &self.slots[&NodeId::from(id)].0.state().config
    }
}

const KEYS: u64 = 100_000;

fn key(number: u64) -> Key {
    (number % KEYS).to_be_bytes().to_vec()
}

fn put(number: u64) -> Operation {
    Operation::Put { value: number.to_be_bytes().repeat(8), fence: None }
}

#[test]
fn a_hundred_thousand_keys_move_in_seconds_while_clients_are_served() {
    let founders = [1, 2, 3].map(NodeId::from);
    let mut log = vec![Entry::Config { config: Config::founding(founders), chosen: true }];
    log.extend((0..KEYS).map(|number| {
        let mut register = Register::EMPTY;
        register.apply(&put(number), number);
        let version = Version { ballot: Ballot::default(), seq: number + 1 };
        Entry::Accept { key: key(number), version, register: Arc::new(register) }
    }));
    let slot = |id: u64| {
        let log: &[Entry] = if id <= 3 { &log } else { &[] };
        let (id, random) = (NodeId::from(id), Random::seeded(id));
        let now = Instant::from_micros(0);
        (id, (Slot::new(id, Settings::default(), Rules::default(), random, now, log.iter().cloned()), 0))
    };
    let slots = (1..=6).map(slot).collect();
    let mut net = Net { now: 1, queue: BTreeMap::new(), slots, asked: BTreeMap::new(), slowest: 0, answered: 0 };
    for id in founders {
        net.input(id, Input::Timeout);
    }
    net.until(|net| net.leader().is_some());
    let nodes: Vec<NodeId> = [4, 5, 6].map(NodeId::from).to_vec();
    for id in 1..=6 {
        net.input(NodeId::from(id), Input::Wanted { nodes: nodes.clone(), hold_off: Duration::ZERO });
    }
    net.until(|net| !net.config(1).is_stable());
    net.schedule(0, Event::Ask(1));
    let took = net.until(|net| net.config(4).is_stable() && net.config(4).nodes().len() == 3);
    println!("moved in {took:?}; {} answers, the slowest after {} us", net.answered, net.slowest);
    for id in [4, 5, 6] {
        assert_eq!(net.slots[&NodeId::from(id)].0.state().digest.keys, KEYS);
    }
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(net.answered > 100, "{} answers", net.answered);
    assert!(net.slowest < 50 * MILLI, "the slowest answer took {} us", net.slowest);
}
