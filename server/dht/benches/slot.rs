//! How many operations a slot does on one core, when messages and disks take no time: `cargo bench -p specter-dht`.
//!
//! A batch of requests for different keys comes in at once, and everything they cause is carried out before the next, on
//! one thread: with three members that is the work of all three. Each key is written by one client, as most are.

use std::collections::VecDeque;

use divan::Bencher;
use divan::counter::ItemsCount;
use specter_dht::kv::{
    Config, Entry, Input, Message, OpId, Operation, Output, Request, RequestId, Rules, Settings, Slot,
};
use specter_dht::{Instant, NodeId, Random};

/// Requests that come in at once.
const BATCH: u64 = 64;
/// Batches a measurement.
const BATCHES: u64 = 100;
/// Keys in the slot.
const KEYS: u64 = 10_000;
/// Bytes of a value.
const VALUE: usize = 64;

fn main() {
    divan::main();
}

/// Members of a slot whose messages and disks take no time.
struct Group {
    slots: Vec<Slot>,
    mail: VecDeque<(usize, NodeId, Message)>,
    /// How far each member's log goes, and how far it is synced.
    logs: Vec<(u64, u64)>,
    replies: u64,
    asked: u64,
    random: Random,
}

impl Group {
    fn new(members: u64) -> Self {
        let nodes: Vec<NodeId> = (0..members).map(NodeId::from).collect();
        let log = [Entry::Config { config: Config::founding(nodes.iter().copied()), chosen: true }];
        let start = |node: &NodeId| {
            let (settings, random) = (Settings::default(), Random::seeded(1));
            Slot::new(*node, settings, Rules::default(), random, Instant::from_micros(0), log.clone())
        };
        let mut group = Self {
            slots: nodes.iter().map(start).collect(),
            mail: VecDeque::new(),
            logs: vec![(1, 1); nodes.len()],
            replies: 0,
            asked: 0,
            random: Random::seeded(7),
        };
        group.input(0, Instant::from_micros(60_000_000), Input::Timeout);
        group.carry_out();
        assert!(group.slots[0].leads().is_some(), "the first member leads");
        for _ in 0..KEYS.div_ceil(BATCH) {
            group.batch(|_, number| (number % KEYS, put()));
        }
        group
    }

    fn input(&mut self, member: usize, now: Instant, input: Input) {
        self.slots[member].handle_input(now, input);
        loop {
            match self.slots[member].poll_output() {
                Output::Transmit { to, message } => {
                    let to = usize::try_from(to.0).expect("members are numbered");
                    let from = u64::try_from(member).expect("members are few");
                    self.mail.push_back((to, NodeId::from(from), message));
                }
                Output::Append { position, .. } => self.logs[member].0 = position,
                Output::Reply { reply, .. } => {
                    assert!(reply.is_ok(), "{reply:?}");
                    self.replies += 1;
                }
                Output::Timeout(_) => return,
            }
        }
    }

    /// Delivers everything and syncs every disk, until nothing is left to be done.
    fn carry_out(&mut self) {
        let now = Instant::from_micros(60_000_000);
        loop {
            while let Some((to, from, message)) = self.mail.pop_front() {
                self.input(to, now, Input::Message { from, message });
            }
            let behind = (0..self.logs.len()).find(|member| self.logs[*member].1 < self.logs[*member].0);
            let Some(member) = behind else { return };
            let upto = self.logs[member].0;
            self.logs[member].1 = upto;
            self.input(member, now, Input::Persisted { upto });
        }
    }

    /// One batch of requests, each for a key and with an operation.
    fn batch(&mut self, draw: impl Fn(&mut Random, u64) -> (u64, Operation)) {
        for _ in 0..BATCH {
            let number = self.asked;
            self.asked += 1;
            let (key, operation) = draw(&mut self.random, number);
            let request = Request { key: key.to_be_bytes().repeat(2), op: OpId { client: key, number }, operation };
            self.input(0, Instant::from_micros(60_000_000), Input::Request { id: RequestId(number), request });
        }
        self.carry_out();
        assert_eq!(self.replies, self.asked, "every request is answered");
    }
}

fn put() -> Operation {
    Operation::Put { value: vec![7; VALUE], fence: None }
}

fn measure(bencher: Bencher<'_, '_>, members: u64, gets_of_ten: u64) {
    let mut group = Group::new(members);
    bencher.counter(ItemsCount::new(BATCH * BATCHES)).bench_local(|| {
        for _ in 0..BATCHES {
            group.batch(|random, _| {
                let operation = if random.below(10) < gets_of_ten { Operation::Get } else { put() };
                (random.below(KEYS), operation)
            });
        }
    });
}

#[divan::bench(args = [1, 3])]
fn put_a_value(bencher: Bencher<'_, '_>, members: u64) {
    measure(bencher, members, 0);
}

#[divan::bench(args = [1, 3])]
fn get_a_value(bencher: Bencher<'_, '_>, members: u64) {
    measure(bencher, members, 10);
}

#[divan::bench(args = [1, 3])]
fn get_seven_of_ten(bencher: Bencher<'_, '_>, members: u64) {
    measure(bencher, members, 7);
}
