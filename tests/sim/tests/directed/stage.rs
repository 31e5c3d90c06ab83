//! A few slots moved by hand: who may speak to whom, whose clock goes on, whose disk stalls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use specter_dht::kv::{
    Answer, Config, Entry, Input, Key, Message, OpId, Operation, Output, Refusal, Request, RequestId, Rules, Settings,
    Slot,
};
use specter_dht::{Ballot, Instant, NodeId, Random, Version};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) message: Message,
}

struct Node {
    slot: Slot,
    log: Vec<Entry>,
    synced: usize,
}

/// A few slots moved by hand.
pub(crate) struct Stage {
    rules: Rules,
    nodes: BTreeMap<u64, Node>,
    now: Instant,
    mail: Vec<Letter>,
    /// Every letter that was delivered.
    pub(crate) seen: Vec<Letter>,
    /// The only nodes whose timers go off.
    awake: BTreeSet<u64>,
    /// Nodes whose disks sync nothing.
    pub(crate) stalled: BTreeSet<u64>,
    /// Nodes that can speak to each other; a node in no group is alone.
    groups: Vec<BTreeSet<u64>>,
    /// Letters that get through, beyond what the groups say.
    pub(crate) passes: fn(&Letter) -> bool,
    replies: BTreeMap<u64, Result<Answer, Refusal>>,
    asked: u64,
}

fn settings() -> Settings {
    let millis = Duration::from_millis;
    Settings {
        heartbeat: millis(50),
        sticky: millis(100),
        election: millis(400),
        step_down: millis(3000),
        purge_after: millis(1000),
        retry_after: millis(0),
        abort_after: millis(1000),
        // So narrow that whatever takes a place without need shows.
        transfer_bytes: 1,
        page_bytes: 1,
        audit_after: millis(2000),
        ..Settings::default()
    }
}

impl Stage {
    /// Nodes 1 to `count`, of which the first `founders` keep the slot.
    pub(crate) fn new(rules: Rules, founders: u64, count: u64) -> Self {
        let founding = Entry::Config { config: Config::founding((1..=founders).map(NodeId::from)), chosen: true };
        let now = Instant::from_micros(1);
        let start = |id: u64| {
            let log: Vec<Entry> = (id <= founders).then(|| founding.clone()).into_iter().collect();
            let slot = Slot::new(NodeId::from(id), settings(), rules, Random::seeded(id), now, log.iter().cloned());
            (id, Node { slot, synced: log.len(), log })
        };
        Self {
            rules,
            nodes: (1..=count).map(start).collect(),
            now,
            mail: Vec::new(),
            seen: Vec::new(),
            awake: BTreeSet::new(),
            stalled: BTreeSet::new(),
            groups: vec![(1..=count).collect()],
            passes: |_| true,
            replies: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Only the nodes of one group can speak to each other.
    pub(crate) fn reach(&mut self, groups: &[&[u64]]) {
        self.groups = groups.iter().map(|group| group.iter().copied().collect()).collect();
    }

    /// Gives a node an input and carries out what it wants.
    pub(crate) fn input(&mut self, id: u64, input: Input) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.slot.handle_input(self.now, input);
        loop {
            match node.slot.poll_output() {
                Output::Transmit { to, message } => self.mail.push(Letter { from: id, to: number(to), message }),
                Output::Append { entry, .. } => node.log.push(entry),
                Output::Reply { id, reply, .. } => {
                    self.replies.insert(id.0, reply);
                }
                Output::Timeout(_) => break,
            }
        }
        if node.synced < node.log.len() && !self.stalled.contains(&id) {
            node.synced = node.log.len();
            let upto = node.synced as u64;
            self.input(id, Input::Persisted { upto });
        }
    }

    /// A node's disk loses a value; says whether it held one.
    pub(crate) fn forget(&mut self, id: u64, key: &str) -> bool {
        let lost = self.nodes.get_mut(&id).is_some_and(|node| node.slot.forget(&Key::from(key)));
        self.input(id, Input::ReadOnly(false));
        lost
    }

    /// Delivers everything that can be delivered; the rest is lost.
    pub(crate) fn deliver(&mut self) {
        for _ in 0..10_000 {
            if self.mail.is_empty() {
                return;
            }
            let letter = self.mail.remove(0);
            let together = |group: &BTreeSet<u64>| group.contains(&letter.from) && group.contains(&letter.to);
            if self.groups.iter().any(together) && (self.passes)(&letter) {
                self.post(letter);
            }
        }
        panic!("the nodes do not stop talking");
    }

    /// Delivers one letter, whoever may speak to whom.
    pub(crate) fn post(&mut self, letter: Letter) {
        self.seen.push(letter.clone());
        self.input(letter.to, Input::Message { from: NodeId::from(letter.from), message: letter.message });
    }

    /// Lets time pass for whoever is awake.
    pub(crate) fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            self.now = self.now + Duration::from_millis(10);
            for id in self.awake.clone() {
                self.input(id, Input::Timeout);
            }
            self.deliver();
        }
    }

    /// Lets only these nodes' timers go off.
    pub(crate) fn wake(&mut self, ids: &[u64]) {
        self.awake = ids.iter().copied().collect();
    }

    /// Makes a node lead; says whether it does.
    pub(crate) fn elect(&mut self, id: u64) -> bool {
        self.wake(&[]);
        self.pass(1000);
        self.wake(&[id]);
        for _ in 0..200 {
            self.pass(50);
            if self.leads(id) {
                return true;
            }
        }
        false
    }

    /// Whether a node leads and answers.
    pub(crate) fn leads(&self, id: u64) -> bool {
        self.nodes[&id].slot.leads().is_some()
    }

    /// Whether a node leads the slot through a change of members.
    pub(crate) fn is_changing(&self, id: u64) -> bool {
        self.nodes[&id].slot.is_changing()
    }

    /// What a node has promised.
    pub(crate) fn ballot(&self, id: u64) -> Ballot {
        self.nodes[&id].slot.state().promise
    }

    /// The members of the configuration a node has accepted, and whether that is stable.
    pub(crate) fn config(&self, id: u64) -> &Config {
        &self.nodes[&id].slot.state().config
    }

    /// What a node holds of a key.
    pub(crate) fn holds(&self, id: u64, key: &str) -> bool {
        self.nodes[&id].slot.state().registers.contains_key(key.as_bytes())
    }

    /// Which value a node holds of a key.
    pub(crate) fn held(&self, id: u64, key: &str) -> Option<Version> {
        self.nodes[&id].slot.state().registers.get(key.as_bytes()).map(|(version, _)| *version)
    }

    /// The newest entry of a node's log.
    pub(crate) fn last_entry(&self, id: u64) -> Option<&Entry> {
        self.nodes[&id].log.last()
    }

    /// How many entries a node's log has.
    pub(crate) fn appended(&self, id: u64) -> usize {
        self.nodes[&id].log.len()
    }

    /// A node loses what its disk has not synced, and starts again.
    pub(crate) fn restart(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.log.truncate(node.synced);
        let random = Random::seeded(id + 100);
        node.slot = Slot::new(NodeId::from(id), settings(), self.rules, random, self.now, node.log.iter().cloned());
    }

    /// Tells all nodes who should keep the slot.
    pub(crate) fn want(&mut self, ids: &[u64]) {
        let nodes: Vec<NodeId> = ids.iter().copied().map(NodeId::from).collect();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.input(id, Input::Wanted { nodes: nodes.clone(), hold_off: Duration::ZERO });
        }
    }

    /// Sends a request and waits for a while; none when there is no answer.
    pub(crate) fn ask(&mut self, id: u64, key: &str, operation: Operation) -> Option<Answer> {
        self.asked += 1;
        let number = self.asked;
        self.send(id, key, operation, number);
        self.pass(200);
        self.replies.get(&number).cloned()?.ok()
    }

    /// Sends a copy of an operation.
    pub(crate) fn send(&mut self, id: u64, key: &str, operation: Operation, number: u64) {
        let op = OpId { client: 1, number };
        let request = Request { key: Key::from(key), op, operation };
        self.input(id, Input::Request { id: RequestId(number), request });
    }

    /// What a copy came to.
    pub(crate) fn reply(&self, number: u64) -> Option<&Result<Answer, Refusal>> {
        self.replies.get(&number)
    }

    /// Writes and expects success.
    pub(crate) fn put(&mut self, id: u64, value: &str) {
        assert_eq!(self.ask(id, "k", write(value)), Some(Answer::Done), "node {id} takes {value:?}");
    }

    /// What a read at a node answers.
    pub(crate) fn get(&mut self, id: u64) -> Option<Option<String>> {
        match self.ask(id, "k", Operation::Get)? {
            Answer::Value(value) => {
                Some(value.map(|bytes| String::from_utf8(bytes).expect("what was written is text")))
            }
            other => panic!("a read is answered with {other:?}"),
        }
    }
}

/// A plain write.
pub(crate) fn write(value: &str) -> Operation {
    Operation::Put { value: value.into(), fence: None }
}

fn number(node: NodeId) -> u64 {
    u64::try_from(node.0).expect("the nodes of a stage have small numbers")
}
