//! A slot among nodes that say anything that can be said: it neither panics nor grows, and once they are quiet it serves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::strategy::{self, Span};
use crate::codec::{Bounded, decode, encode};
use crate::kv::*;
use crate::{Ballot, Instant, NodeId, Random, Version};

const MEMBERS: [u64; 3] = [0, 1, 2];

/// Three members on one clock, whose disks are quick and whose words go through the codec.
struct Trio {
    slots: Vec<Slot>,
    now: Instant,
    wake: [Instant; 3],
    network: VecDeque<(NodeId, usize, Vec<u8>)>,
    replies: Vec<(RequestId, Result<Answer, Refusal>)>,
}

impl Trio {
    fn founded(settings: &Settings) -> Self {
        let now = Instant::from_micros(1_000_000);
        let config = Config::founding(MEMBERS.map(NodeId::from));
        let slot = |number: u64| {
            let log = [Entry::Config { config: config.clone(), chosen: true }];
            let random = Random::seeded(number);
            Slot::new(NodeId::from(number), settings.clone(), Rules::default(), random, now, log)
        };
        let mut trio = Self {
            slots: MEMBERS.map(slot).into(),
            now,
            wake: [now; 3],
            network: VecDeque::new(),
            replies: Vec::new(),
        };
        (0..3).for_each(|at| trio.drain(at));
        trio
    }

    fn input(&mut self, at: usize, input: Input) {
        self.slots[at].handle_input(self.now, input);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        let mut upto = 0;
        loop {
            match self.slots[at].poll_output() {
                Output::Append { position, .. } => upto = position,
                Output::Reply { id, reply, .. } => self.replies.push((id, reply)),
                Output::Transmit { to, message } => {
                    let mut bytes = Vec::new();
                    // Whom a forged configuration names is not here, and what garbage has driven too high is not sent.
                    if let Some(target) = MEMBERS.iter().position(|member| NodeId::from(*member) == to)
                        && encode(&message, &mut bytes).is_ok()
                    {
                        self.network.push_back((NodeId::from(MEMBERS[at]), target, bytes));
                    }
                }
                Output::Timeout(wake) if upto == 0 => {
                    self.wake[at] = wake;
                    return;
                }
                Output::Timeout(_) => {
                    self.slots[at].handle_input(self.now, Input::Persisted { upto });
                    upto = 0;
                }
            }
        }
    }

    /// Lets time go by; a message takes a millisecond.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            for (from, to, bytes) in std::mem::take(&mut self.network) {
                let message = decode(&bytes).expect("members understand each other");
                self.input(to, Input::Message { from, message });
            }
            for at in 0..3 {
                if self.wake[at] <= self.now {
                    self.input(at, Input::Timeout);
                }
            }
        }
    }

    /// The member that leads and can answer, within the time.
    fn leader(&mut self, within: Duration) -> Option<usize> {
        let end = self.now + within;
        loop {
            if let Some(leader) = self.slots.iter().position(|slot| slot.leads().is_some()) {
                return Some(leader);
            }
            if self.now >= end {
                return None;
            }
            self.run(Duration::from_millis(20));
        }
    }

    /// Asks whoever leads until there is an answer.
    fn ask(&mut self, number: u64, operation: &Operation) -> Option<Answer> {
        for attempt in 0..50 {
            let leader = self.leader(Duration::from_secs(60))?;
            let id = RequestId(1_000_000 + number * 100 + attempt);
            let op = OpId { client: 1 << 40, number };
            let request = Request { key: b"mine".to_vec(), op, operation: operation.clone() };
            self.input(leader, Input::Request { id, request });
            self.run(Duration::from_secs(1));
            let reply = self.replies.iter().find(|(known, _)| *known == id);
            if let Some((_, Ok(answer))) = reply {
                return Some(answer.clone());
            }
        }
        None
    }

    /// How much there is of everything, told by how long it is when written down.
    fn size(&self) -> usize {
        self.slots.iter().map(|slot| format!("{slot:?}").len()).sum()
    }
}

/// What somebody does to one of the members.
#[derive(Clone, Debug)]
enum Step {
    Say {
        to: usize,
        from: NodeId,
        message: Box<Message>,
        /// Whether it is made to name who may say it: whoever leads names itself, whoever answers names the asker.
        apt: bool,
    },
    /// What a leader waits for, in its own ballot and, where it has one, of the version that it waits for.
    Answer {
        from: NodeId,
        round: u64,
        kind: u8,
    },
    Ask {
        to: usize,
        request: Request,
    },
    Want {
        to: usize,
        nodes: Vec<NodeId>,
    },
    Wait(u64),
}

fn step(
    message: impl Strategy<Value = Message>,
    members: impl Strategy<Value = NodeId>,
) -> impl Strategy<Value = Step> {
    let at = || 0..3_usize;
    prop_oneof![
        8 => (at(), strategy::node(), message, any::<bool>())
            .prop_map(|(to, from, message, apt)| Step::Say { to, from, message: Box::new(message), apt }),
        3 => (strategy::node(), 0..20_u64, any::<u8>())
            .prop_map(|(from, round, kind)| Step::Answer { from, round, kind }),
        2 => (at(), strategy::request()).prop_map(|(to, request)| Step::Ask { to, request }),
        1 => (at(), vec(members, 1..4)).prop_map(|(to, mut nodes)| {
            nodes.sort_unstable();
            nodes.dedup();
            Step::Want { to, nodes }
        }),
        3 => prop_oneof![8 => 0..50_u64, 1 => 0..5_000_u64].prop_map(Step::Wait),
    ]
}

fn ballot_of(message: &mut Message) -> Option<&mut Ballot> {
    match message {
        Message::Prepare { ballot, .. }
        | Message::Promise { ballot, .. }
        | Message::Fetch { ballot, .. }
        | Message::Held { ballot, .. }
        | Message::Nack { ballot, .. }
        | Message::Accept { ballot, .. }
        | Message::Accepted { ballot, .. }
        | Message::Behind { ballot, .. }
        | Message::Full { ballot }
        | Message::AcceptConfig { ballot, .. }
        | Message::ConfigAccepted { ballot, .. }
        | Message::Confirm { ballot, .. }
        | Message::Confirmed { ballot, .. }
        | Message::Purge { ballot, .. }
        | Message::List { ballot, .. }
        | Message::Listed { ballot, .. }
        | Message::Succeed { ballot } => Some(ballot),
        Message::Learn { .. } => None,
    }
}

fn take(trio: &mut Trio, number: u64, step: Step) {
    match step {
        Step::Say { to, from, mut message, apt } => {
            assert_eq!(message.check(), Ok(()));
            let speaker = if message.is_answer() { NodeId::from(MEMBERS[to]) } else { from };
            if let Some(ballot) = ballot_of(&mut message).filter(|_| apt) {
                ballot.node = speaker;
            }
            if message.check().is_ok() {
                trio.input(to, Input::Message { from, message: *message });
            }
        }
        Step::Answer { from, round, kind } => {
            let Some(to) = trio.slots.iter().position(|slot| slot.leads().is_some()) else { return };
            let ballot = trio.slots[to].state().promise;
            let held = trio.slots[to].state().registers.iter().next();
            let (key, version) = held.map_or_else(Default::default, |(key, (version, _))| (key.clone(), *version));
            let known = None;
            let message = match kind % 4 {
                0 => Message::Accepted { ballot, key, version },
                1 => Message::ConfigAccepted { ballot, version: trio.slots[to].state().config.version },
                2 => Message::Nack { ballot, promised: ballot, config: Config::default(), chosen: false },
                _ => Message::Confirmed { ballot, round, known, full: round % 2 == 0, digest: None },
            };
            trio.input(to, Input::Message { from, message });
        }
        Step::Ask { to, request } => trio.input(to, Input::Request { id: RequestId(number), request }),
        Step::Want { to, nodes } => trio.input(to, Input::Wanted { nodes, hold_off: Duration::from_millis(300) }),
        Step::Wait(millis) => trio.run(Duration::from_millis(millis)),
    }
}

fn impatient() -> Settings {
    Settings { retry_after: Duration::from_millis(300), abort_after: Duration::from_secs(2), ..Settings::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Forged configurations and numbers at their very ends among them.
    #[test]
    fn nothing_that_is_said_makes_a_slot_panic(
        steps in vec(step(strategy::message(Span::WIDEST, strategy::config(Span::WIDEST)), strategy::node()), 1..60),
    ) {
        let mut trio = Trio::founded(&impatient());
        prop_assert!(trio.leader(Duration::from_secs(20)).is_some());
        for (number, step) in steps.into_iter().enumerate() {
            take(&mut trio, number as u64, step);
        }
        trio.run(Duration::from_secs(10));
    }

    /// Whoever forges a configuration takes the slot over, which no check of a single message prevents; whoever says
    /// anything else is outlived.
    #[test]
    fn a_slot_serves_again_once_the_talk_is_over(
        steps in vec(
            step(
                strategy::message(
                    Span { counter: 1000, number: 1 << 40 },
                    Just(Config::founding(MEMBERS.map(NodeId::from))).boxed(),
                ),
                (0..3_u64).prop_map(NodeId::from),
            ),
            1..60,
        ),
    ) {
        let mut trio = Trio::founded(&impatient());
        prop_assert!(trio.leader(Duration::from_secs(20)).is_some());
        for (number, step) in steps.into_iter().enumerate() {
            take(&mut trio, number as u64, step);
        }
        let value = b"value".to_vec();
        prop_assert_eq!(trio.ask(1, &Operation::Put { value: value.clone(), fence: None }), Some(Answer::Done));
        prop_assert_eq!(trio.ask(2, &Operation::Get), Some(Answer::Value(Some(value))));
    }
}

#[test]
fn strangers_leave_nothing_behind() {
    let mut trio = Trio::founded(&Settings::default());
    let leader = trio.leader(Duration::from_secs(20)).unwrap();
    assert_eq!(trio.ask(1, &Operation::Put { value: b"v".to_vec(), fence: None }), Some(Answer::Done));
    let (ballot, before) = (trio.slots[leader].state().promise, trio.size());
    let version = trio.slots[leader].state().registers[&b"mine".to_vec()].0;
    let report = Report {
        config: Config::founding(MEMBERS.map(NodeId::from)),
        chosen: true,
        tenure: None,
        mark: Version::default(),
        seq: 0,
        digest: Digest { keys: 200, hash: 7 },
    };
    let registers: Vec<_> = (0..200_u8).map(|key| (vec![key; 100], version, Arc::new(Register::EMPTY))).collect();
    for stranger in 100..1100 {
        let from = NodeId::from(stranger);
        for to in 0..3 {
            let (key, config) = (b"mine".to_vec(), Config::default());
            for message in [
                Message::Accepted { ballot, key, version },
                Message::ConfigAccepted { ballot, version },
                Message::Confirmed { ballot, round: 5, known: None, full: true, digest: None },
                Message::Held { ballot, tenure: None, after: None, registers: registers.clone(), more: true },
                Message::Behind { ballot, key: vec![1; 100] },
                Message::Full { ballot },
                Message::Promise { ballot, report: Box::new(report.clone()) },
                Message::Prepare {
                    ballot: Ballot { counter: 50, node: from },
                    config: Version::default(),
                    instead_of: None,
                },
                Message::Nack { ballot, promised: ballot, config, chosen: true },
            ] {
                trio.input(to, Input::Message { from, message });
            }
        }
    }
    trio.run(Duration::from_secs(5));
    assert!(trio.size() < before + 1000, "from {before} to {}", trio.size());
    assert_eq!(trio.ask(2, &Operation::Get), Some(Answer::Value(Some(b"v".to_vec()))));
}

#[test]
fn a_leader_keeps_so_many_requests_and_no_more() {
    let settings = Settings { queue: 16, ..Settings::default() };
    let mut trio = Trio::founded(&settings);
    let leader = trio.leader(Duration::from_secs(20)).unwrap();
    for number in 0..1000 {
        let operation = if number % 2 == 0 { Operation::Get } else { Operation::Delete };
        let request = Request { key: vec![0; 1], op: OpId { client: number, number: 1 }, operation };
        trio.input(leader, Input::Request { id: RequestId(number), request });
    }
    let busy = trio.replies.iter().filter(|(_, reply)| *reply == Err(Refusal::Busy)).count();
    assert!(busy >= 1000 - 17, "only {busy} were refused");
}
