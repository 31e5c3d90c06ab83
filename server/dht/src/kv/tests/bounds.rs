//! Claims about what a slot refuses and what it never grows beyond.

use std::sync::Arc;

use super::*;
use crate::kv::limits::*;

const fn ballot(counter: u32, node: u128) -> Ballot {
    Ballot { counter, node: NodeId(node) }
}

const fn version(counter: u32, node: u128, seq: u64) -> Version {
    Version { ballot: ballot(counter, node), seq }
}

/// Node 1 of three, whose disk never syncs anything by itself.
struct Third {
    slot: Slot,
    now: Instant,
    position: u64,
}

impl Third {
    fn new() -> Self {
        Self::with(Vec::new())
    }

    fn with(more: Vec<Entry>) -> Self {
        let founding = Entry::Config { config: Config::founding(nodes(&[1, 2, 3])), chosen: true };
        let log: Vec<Entry> = std::iter::once(founding).chain(more).collect();
        let (now, position) = (Instant::from_micros(1), log.len() as u64);
        let slot = Slot::new(NodeId(1), Settings::default(), Rules::default(), Random::seeded(1), now, log);
        Self { slot, now, position }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.slot.handle_input(self.now, input);
        let mut outputs = Vec::new();
        loop {
            match self.slot.poll_output() {
                Output::Timeout(_) => return outputs,
                output => outputs.push(output),
            }
            if let Some(Output::Append { position, .. }) = outputs.last() {
                self.position = *position;
            }
        }
    }

    fn hear(&mut self, from: u128, message: Message) -> Vec<Output> {
        self.input(Input::Message { from: NodeId(from), message })
    }

    fn persist(&mut self) -> Vec<Output> {
        self.input(Input::Persisted { upto: self.position })
    }

    /// Begins a candidacy; says under which ballot.
    fn campaign(&mut self) -> Ballot {
        self.now = self.now + Duration::from_secs(3600);
        self.input(Input::Timeout);
        let asked = self.persist();
        let ballot = asked.iter().find_map(|output| match output {
            Output::Transmit { message: Message::Prepare { ballot, .. }, .. } => Some(*ballot),
            _ => None,
        });
        ballot.expect("a candidate asks the others")
    }

    /// Comes to lead.
    fn lead(&mut self) -> Ballot {
        let ballot = self.campaign();
        let report = self.report();
        let proposed = self.hear(2, Message::Promise { ballot, report });
        self.persist();
        let config = proposed.iter().find_map(|output| match output {
            Output::Transmit { message: Message::AcceptConfig { config, .. }, .. } => Some(config.clone()),
            _ => None,
        });
        let version = config.expect("a leader has its configuration accepted").version;
        self.hear(2, Message::ConfigAccepted { ballot, version });
        assert!(self.slot.leads().is_some());
        ballot
    }

    /// What a member says that holds the same as this one.
    fn report(&self) -> Box<Report> {
        let Durable { config, chosen, tenure, mark, seq, digest, .. } = self.slot.state().clone();
        Box::new(Report { config, chosen, tenure, mark, seq, digest })
    }

    fn accept(counter: u32, key: Key, value: usize) -> Message {
        let mut register = Register::EMPTY;
        register.apply(&put(&vec![0; value]), 1);
        let (ballot, version) = (ballot(counter, 2), version(counter, 2, 1));
        Message::Accept { ballot, key, version, register: Arc::new(register), config: Version::default() }
    }
}

fn duplicate() -> Config {
    let mut config = Config::founding(nodes(&[1, 2]));
    config.old.push(config.old[0]);
    config
}

fn ask_lone(node: &mut Lone, id: u64, key: Key, operation: Operation) -> Result<Answer, Refusal> {
    node.input(Input::Request { id: RequestId(id), request: Request { key, op: op(id, 1), operation } });
    node.persist();
    node.replies.pop().expect("every request is answered").1
}

#[test]
fn what_is_larger_than_the_limits_is_refused_and_what_just_fits_is_done() {
    let long = |length: usize| vec![7; length];
    let fenced = |length| Operation::Put { value: vec![], fence: Some(Fence { lease_key: vec![7; length], token: 1 }) };
    let swap = |length| Operation::CompareAndSwap { expected: None, new: Some(vec![7; length]) };
    let owned = |length, ttl| Operation::Acquire { owner: vec![7; length], nonce: 1, ttl };
    let second = Duration::from_secs(1);
    let cases: [(Key, Operation, bool); 14] = [
        (long(KEY_MAX), put(b""), true),
        (long(KEY_MAX + 1), put(b""), false),
        (long(1), put(&long(VALUE_MAX)), true),
        (long(1), put(&long(VALUE_MAX + 1)), false),
        (long(2), swap(VALUE_MAX), true),
        (long(2), swap(VALUE_MAX + 1), false),
        (long(3), Operation::Append(long(CHILD_MAX)), true),
        (long(3), Operation::Append(long(CHILD_MAX + 1)), false),
        (long(4), fenced(KEY_MAX), true),
        (long(4), fenced(KEY_MAX + 1), false),
        (long(5), owned(OWNER_MAX, second), true),
        (long(6), owned(OWNER_MAX + 1, second), false),
        (long(7), owned(1, Duration::ZERO), false),
        (long(8), owned(1, LEASE_LONGEST + second), false),
    ];
    let mut node = Lone::founded();
    node.elect();
    for (id, (key, operation, fits)) in (1..).zip(cases) {
        let reply = ask_lone(&mut node, id, key, operation.clone());
        assert_eq!(reply != Err(Refusal::TooLarge), fits, "{operation:?}: {reply:?}");
    }
    let held: Vec<usize> = node.slot.state().registers.keys().map(Vec::len).collect();
    assert_eq!(held, [1, 2, 3, 4, 5, KEY_MAX], "what is refused leaves no trace");
}

#[test]
fn a_set_takes_so_many_children_and_a_key_so_many_bytes_and_fences() {
    let mut many = Register::EMPTY;
    (0..CHILDREN_MAX - 3).for_each(|number| drop(many.apply(&Operation::Append(number.to_le_bytes().to_vec()), 1)));
    let founding = Entry::Config { config: Config::founding([NodeId(1)]), chosen: true };
    let register = Arc::new(many);
    let many = Entry::Accept { key: b"many".to_vec(), version: version(0, 1, 1), register };
    let mut node = Lone::new(vec![founding, many]);
    node.elect();
    let name = |number: usize, length: usize| [&number.to_be_bytes()[..], &vec![0; length - 8]].concat();
    let mut full = |key: &str, operation: &dyn Fn(usize) -> Operation| {
        (0..10_000).find(|number| {
            let id = node.log.len() as u64 + 1;
            ask_lone(&mut node, id, key.into(), operation(*number)) == Err(Refusal::TooLarge)
        })
    };
    assert_eq!(full("many", &|number| Operation::Append(name(number, 9))), Some(3));
    let large = full("large", &|number| Operation::Append(name(number, CHILD_MAX))).expect("it is full");
    assert!((400..REGISTER_MAX / CHILD_MAX).contains(&large), "{large}");
    let fence = |number| Some(Fence { lease_key: name(number, 8), token: 1 });
    assert_eq!(full("fenced", &|number| Operation::Put { value: vec![], fence: fence(number) }), Some(FENCES_MAX));
}

#[test]
fn nobody_leads_or_asks_in_the_name_of_another() {
    let (ballot, after) = (ballot(1, 2), None);
    let config = Config { version: version(1, 2, 1), ..Config::founding(nodes(&[1, 2, 3])) };
    let (key, version) = (b"k".to_vec(), version(1, 2, 1));
    let messages = [
        Message::Prepare { ballot, config: Version::default(), instead_of: None },
        Third::accept(1, b"k".to_vec(), 1),
        Message::AcceptConfig { ballot, config },
        Message::Confirm { ballot, round: 1 },
        Message::Purge { ballot, key, version },
        Message::Fetch { ballot, after: after.clone() },
        Message::List { ballot, after },
        Message::Succeed { ballot },
    ];
    for message in messages {
        let mut node = Third::new();
        let outputs = node.hear(3, message.clone());
        assert!(outputs.is_empty() && node.slot.refused() == 1, "{message:?}: {outputs:?}");
        node.hear(2, message.clone());
        assert_eq!(node.slot.refused(), 1, "from whom it speaks for it is listened to: {message:?}");
    }
}

#[test]
fn a_ballot_far_above_all_others_is_not_listened_to() {
    let mut node = Third::new();
    node.hear(
        2,
        Message::Prepare { ballot: ballot(COUNTER_JUMP_MAX + 1, 2), config: Version::default(), instead_of: None },
    );
    let promised = ballot(COUNTER_JUMP_MAX + 1, 2);
    let config = Config::default();
    node.hear(2, Message::Nack { ballot: ballot(0, 1), promised, config, chosen: true });
    assert_eq!((node.slot.refused(), node.slot.state().promise), (2, Ballot::default()));
    assert_eq!(node.campaign().counter, 1, "it is not taken as the highest one seen");
    node.hear(
        2,
        Message::Prepare { ballot: ballot(COUNTER_JUMP_MAX, 2), config: Version::default(), instead_of: None },
    );
    assert_eq!(node.slot.state().promise.counter, COUNTER_JUMP_MAX);
}

#[test]
fn counters_stop_at_their_end() {
    let mut node = Third::with(vec![Entry::Promise(ballot(u32::MAX, 2))]);
    for _ in 0..10 {
        node.now = node.now + Duration::from_secs(3600);
        assert!(node.input(Input::Timeout).is_empty(), "there is no higher ballot to claim");
    }
    let last = Entry::Accept { key: b"k".to_vec(), version: version(0, 1, SEQ_MAX), register: Arc::default() };
    let mut node = Third::with(vec![last]);
    let ballot = node.campaign();
    let report = node.report();
    node.hear(2, Message::Promise { ballot, report });
    node.persist();
    assert!(node.slot.leads().is_none(), "there is no higher place for a write");
    let beyond = Report { seq: SEQ_MAX + 1, ..*node.report() };
    node.hear(3, Message::Promise { ballot, report: Box::new(beyond) });
    assert_eq!(node.slot.refused(), 1);
}

#[test]
fn an_answer_that_nobody_asked_for_changes_nothing() {
    let answers = |ballot: Ballot, report: &Report| {
        let (key, version, round) = (b"k".to_vec(), Version { ballot, seq: 1 }, 1_000_000);
        let registers = vec![(key.clone(), Version::default(), Arc::default())];
        [
            Message::Promise { ballot, report: Box::new(report.clone()) },
            Message::Accepted { ballot, key: key.clone(), version },
            Message::Behind { ballot, key },
            Message::ConfigAccepted { ballot, version },
            Message::Confirmed { ballot, round, known: None, full: true, digest: None },
            Message::Listed { ballot, after: None, versions: vec![(b"k".to_vec(), Version::default())], more: true },
            Message::Full { ballot },
            Message::Held { ballot, tenure: Some(Version::default()), after: None, registers, more: true },
        ]
    };
    let mut leader = Third::new();
    let leads = leader.lead();
    let mut candidate = Third::new();
    let wants = candidate.campaign();
    for (mut node, ballot) in [(Third::new(), ballot(1, 1)), (leader, leads), (candidate, wants)] {
        let before = format!("{:?}", node.slot.role);
        for message in answers(ballot, &node.report()) {
            for from in [9, 2] {
                // What node 2 promises a candidate was asked for.
                if from == 2 && matches!(message, Message::Promise { .. }) {
                    continue;
                }
                let outputs = node.hear(from, message.clone());
                assert!(outputs.is_empty(), "{message:?} from {from}: {outputs:?}");
            }
        }
        assert_eq!(format!("{:?}", node.slot.role), before);
    }
}

#[test]
fn a_configuration_without_members_with_too_many_or_with_one_twice_is_not_taken_in() {
    let many: Vec<u64> = (1..=10).collect();
    let new = Some(Vec::new());
    let empty_side = Config { new, ..Config::founding(nodes(&[1, 2, 3])) };
    for config in [Config::default(), Config::founding(nodes(&many)), duplicate(), empty_side] {
        let config = Config { version: version(1, 2, 5), ..config };
        let mut node = Third::new();
        node.hear(2, Message::AcceptConfig { ballot: ballot(1, 2), config: config.clone() });
        node.hear(2, Message::Learn { config: config.clone() });
        assert_eq!(node.slot.refused(), 2, "{config:?}");
        assert_eq!(node.slot.state().config.version, Version::default());
    }
    let mut node = Third::new();
    let config = Config { version: version(1, 2, 5), ..Config::founding(nodes(&many[..9])) };
    node.hear(2, Message::Learn { config: config.clone() });
    assert_eq!((node.slot.refused(), &node.slot.state().config), (0, &config));
}

#[test]
fn a_member_that_gives_more_than_it_promised_ends_the_candidacy() {
    let mut node = Third::new();
    let ballot = node.campaign();
    let mut report = node.report();
    report.digest.keys = 2;
    let asks = |outputs: &[Output]| {
        let fetch = |output: &Output| matches!(output, Output::Transmit { message: Message::Fetch { .. }, .. });
        outputs.iter().any(fetch)
    };
    assert!(asks(&node.hear(2, Message::Promise { ballot, report })));
    let tenure = Some(Version::default());
    let part = |number: u8| {
        let after = number.checked_sub(1).map(|last| vec![last]);
        let registers = vec![(vec![number], version(0, 2, 1), Arc::default())];
        Message::Held { ballot, tenure, after, registers, more: true }
    };
    assert!(asks(&node.hear(2, part(0))) && asks(&node.hear(2, part(1))));
    assert!(!asks(&node.hear(2, part(2))), "it promised two keys");
    assert!(node.hear(2, part(3)).is_empty());
    assert!(matches!(node.slot.role, slot::Role::Follower));
}

#[test]
fn a_member_whose_disk_stands_still_takes_in_only_so_much() {
    let mut node = Third::new();
    let mut appended = 0;
    for number in 0..5000_u64 {
        let outputs = node.hear(2, Third::accept(1, number.to_be_bytes().to_vec(), VALUE_MAX));
        appended += outputs.iter().filter(|output| matches!(output, Output::Append { .. })).count();
    }
    assert!((500..=BACKLOG_MAX / VALUE_MAX + 2).contains(&appended), "{appended} entries wait for the disk");
    for counter in 2..5000 {
        node.hear(2, Message::Prepare { ballot: ballot(counter, 2), config: Version::default(), instead_of: None });
    }
    assert_eq!(node.slot.state().promise.counter, 1);
    let acks = node.persist().len();
    assert!(acks + 1 >= appended, "what was taken in is answered once it is on the disk");
    assert!(!node.hear(2, Third::accept(1, b"next".to_vec(), 1)).is_empty(), "and more is taken in again");
}

#[test]
fn a_leader_whose_writes_are_not_accepted_takes_only_so_many_requests() {
    let mut node = Third::new();
    node.lead();
    let busy = |output: &Output| matches!(output, Output::Reply { reply: Err(Refusal::Busy), .. });
    let limit = Settings::default().queue as u64;
    for number in 0..limit + 10 {
        let (key, operation) =
            (number.to_be_bytes().to_vec(), if number % 2 == 0 { put(b"v") } else { Operation::Get });
        let request = Request { key, op: op(number, 1), operation };
        let outputs = node.input(Input::Request { id: RequestId(number), request });
        assert_eq!(outputs.iter().any(busy), number >= limit, "request {number}");
    }
}
