//! A leader: what it recovers, and how it writes (rules L2 to L4 and L6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::kv::outbox::Outbox;
use crate::kv::reading::Reads;
use crate::kv::reconfigure::{Drain, Proposal};
use crate::kv::register::Recollection;
use crate::kv::{
    Answer, Config, Key, Message, Output, Refusal, Register, Report, Request, RequestId, Rule, Rules, Settings,
};
use crate::{Ballot, Instant, NodeId, Version};

/// What a leader needs of its node for one input.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) me: NodeId,
    pub(crate) rules: Rules,
    pub(crate) settings: &'a Settings,
    pub(crate) outbox: &'a mut Outbox,
}

impl Context<'_> {
    pub(crate) fn reply(&mut self, id: RequestId, reply: Result<Answer, Refusal>, rests_on: Option<Version>) {
        self.outbox.push(Output::Reply { id, reply, rests_on });
    }
}

/// Something to be done to a key, one at a time.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Task {
    /// What a client asked.
    Request { id: RequestId, request: Request },
    /// Write the same value again, under this leader and this configuration.
    Refresh,
    /// Take a lease away whose time is over.
    Expire { token: u64 },
}

/// A write on its way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Flight {
    pub(crate) version: Version,
    pub(crate) register: Register,
    pub(crate) acks: BTreeSet<NodeId>,
    task: Task,
    answer: Option<Answer>,
}

/// What a leader knows of one key.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Held {
    pub(crate) version: Option<Version>,
    pub(crate) register: Register,
    /// Whether a quorum accepted this value from this leader.
    pub(crate) confirmed: bool,
    /// Who has this value on its disk.
    pub(crate) holders: BTreeSet<NodeId>,
    pub(crate) flight: Option<Flight>,
    pub(crate) queue: VecDeque<Task>,
    /// When a client last wrote it, or this leader began.
    pub(crate) touched: Instant,
    /// When the lease ends, by this leader's clock.
    pub(crate) lease_until: Option<Instant>,
}

impl Held {
    const fn absent(now: Instant) -> Self {
        Self {
            version: None,
            register: Register::EMPTY,
            confirmed: true,
            holders: BTreeSet::new(),
            flight: None,
            queue: VecDeque::new(),
            touched: now,
            lease_until: None,
        }
    }
}

/// A node that leads the slot.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leader {
    pub(crate) ballot: Ballot,
    pub(crate) seq: u64,
    /// The configuration in force.
    pub(crate) config: Config,
    /// A configuration that is not chosen yet; nothing is begun while there is one.
    pub(crate) proposal: Option<Proposal>,
    pub(crate) drain: Option<Drain>,
    pub(crate) keys: BTreeMap<Key, Held>,
    /// The keys with a write on its way.
    pub(crate) flying: BTreeSet<Key>,
    /// The keys with something to begin.
    pub(crate) waiting: BTreeSet<Key>,
    queued: usize,
    pub(crate) reads: Reads,
    pub(crate) heartbeat_at: Instant,
    /// When a quorum last confirmed; in a joint configuration its old side is enough.
    pub(crate) contact_at: Instant,
    /// When both sides of a joint configuration last confirmed.
    pub(crate) joint_at: Instant,
    /// Not before this are the members changed.
    pub(crate) reconfigure_after: Instant,
    /// Set when it must step down.
    pub(crate) over: bool,
}

impl Leader {
    /// L2: the newest of each key that a member of this configuration holds, none of it to be trusted yet.
    pub(crate) fn recover(
        now: Instant,
        ballot: Ballot,
        config: Config,
        reports: BTreeMap<NodeId, Report>,
        rules: Rules,
    ) -> Self {
        let mut keys: BTreeMap<Key, Held> = BTreeMap::new();
        let mut seq = 0;
        for (node, report) in reports {
            seq = seq.max(report.mark.seq).max(report.config.version.seq);
            let counts = report.tenure.is_some() && report.tenure == config.since(node);
            for (key, (version, register)) in report.registers {
                seq = seq.max(version.seq);
                let held = keys.get(&key).and_then(|held| held.version);
                if !counts || held > Some(version) {
                    continue;
                }
                let entry = keys.entry(key).or_insert_with(|| Held::absent(now));
                if held < Some(version) {
                    entry.holders.clear();
                }
                entry.holders.insert(node);
                entry.version = Some(version);
                // A lease is never cut short: its whole time starts anew.
                entry.lease_until = register.lease().map(|lease| now + lease.ttl);
                entry.register = register;
                entry.confirmed = !rules.keeps(Rule::RewriteRecovered);
            }
        }
        if !rules.keeps(Rule::SequenceGrows) {
            seq = 0;
        }
        Self {
            ballot,
            seq,
            config,
            proposal: None,
            drain: None,
            keys,
            flying: BTreeSet::new(),
            waiting: BTreeSet::new(),
            queued: 0,
            reads: Reads::default(),
            heartbeat_at: now,
            contact_at: now,
            joint_at: now,
            reconfigure_after: now,
            over: false,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.proposal.is_none()
    }

    pub(crate) const fn next_version(&mut self) -> Version {
        self.seq += 1;
        Version { ballot: self.ballot, seq: self.seq }
    }

    pub(crate) fn request(&mut self, context: &mut Context<'_>, id: RequestId, request: Request) {
        if self.queued + self.reads.len() >= context.settings.queue {
            return context.reply(id, Err(Refusal::Busy), None);
        }
        let held = self.keys.get(&request.key);
        // A read need not wait for a write on its way: whoever sent that has no answer yet.
        if request.operation.is_read() && self.is_open() && held.is_none_or(|held| held.confirmed) {
            return self.read(context, id, request);
        }
        self.enqueue(context.now, request.key.clone(), Task::Request { id, request });
    }

    pub(crate) fn enqueue(&mut self, now: Instant, key: Key, task: Task) {
        self.waiting.insert(key.clone());
        self.queued += 1;
        self.keys.entry(key).or_insert_with(|| Held::absent(now)).queue.push_back(task);
    }

    /// Begins whatever may begin.
    pub(crate) fn start_waiting(&mut self, context: &mut Context<'_>) {
        let startable: Vec<Key> = self.waiting.difference(&self.flying).cloned().collect();
        for key in startable {
            self.start(context, &key);
        }
    }

    /// L4: begins the next thing to be done to a key, unless one is on its way.
    fn start(&mut self, context: &mut Context<'_>, key: &Key) {
        while self.proposal.is_none() && self.drain.is_none() && !self.flying.contains(key) {
            let Some(held) = self.keys.get_mut(key) else { return };
            let Some(task) = held.queue.pop_front() else {
                self.waiting.remove(key);
                if held.version.is_none() {
                    self.keys.remove(key);
                }
                return;
            };
            self.queued -= 1;
            self.begin(context, key, task);
        }
    }

    fn begin(&mut self, context: &mut Context<'_>, key: &Key, task: Task) {
        let version = Version { ballot: self.ballot, seq: self.seq + 1 };
        let fresh = self.is_fresh(key);
        let Some(held) = self.keys.get_mut(key) else { return };
        let mut register = held.register.clone();
        let mut answer = None;
        match &task {
            Task::Refresh if fresh => return,
            Task::Refresh => {}
            Task::Expire { token } => {
                if held.lease_until.is_none_or(|until| until > context.now) {
                    return;
                }
                register.expire(*token);
            }
            Task::Request { id, request } => {
                let (id, request) = (*id, request.clone());
                if request.operation.is_read() {
                    if held.confirmed {
                        return self.read(context, id, request);
                    }
                    answer = register.read(&request.operation);
                } else {
                    let known =
                        if context.rules.keeps(Rule::Dedupe) { register.recall(request.op) } else { Recollection::New };
                    match known {
                        Recollection::Superseded => return context.reply(id, Err(Refusal::Superseded), None),
                        Recollection::Done(known) if held.confirmed => {
                            return context.reply(id, Ok(known), held.version);
                        }
                        Recollection::Done(known) => answer = Some(known),
                        Recollection::New => {
                            let result = register.apply(&request.operation, version.seq);
                            register.remember(request.op, result.clone());
                            answer = Some(result);
                        }
                    }
                }
            }
        }
        self.seq = version.seq;
        held.flight = Some(Flight { version, register, acks: BTreeSet::new(), task, answer });
        self.flying.insert(key.clone());
        for node in self.config.nodes() {
            self.send_accept(context, key, node);
        }
    }

    /// Sends a member the newest value of a key: the one on its way, or else the one that is settled.
    pub(crate) fn send_accept(&self, context: &mut Context<'_>, key: &Key, to: NodeId) {
        let Some(held) = self.keys.get(key) else { return };
        let (version, register) = match &held.flight {
            Some(flight) => (flight.version, flight.register.clone()),
            None => (held.version.unwrap_or_default(), held.register.clone()),
        };
        let (ballot, key, config) = (self.ballot, key.clone(), self.config.clone());
        context.outbox.send(to, Message::Accept { ballot, key, version, register, config });
    }

    pub(crate) fn accepted(&mut self, context: &mut Context<'_>, from: NodeId, key: Key, version: Version) {
        let Some(held) = self.keys.get_mut(&key) else { return };
        match &mut held.flight {
            Some(flight) if flight.version == version => {
                flight.acks.insert(from);
                self.settle(context, &key);
            }
            Some(_) | None => {
                if held.version == Some(version) {
                    held.holders.insert(from);
                }
            }
        }
    }

    /// Ends a write that a quorum has accepted.
    pub(crate) fn settle(&mut self, context: &mut Context<'_>, key: &Key) {
        let Some(held) = self.keys.get_mut(key) else { return };
        let Some(flight) = held.flight.take_if(|flight| self.config.quorum(&flight.acks, context.rules)) else {
            return;
        };
        self.flying.remove(key);
        held.version = Some(flight.version);
        held.register = flight.register;
        held.holders = flight.acks;
        held.confirmed = true;
        let restarts = match &flight.task {
            Task::Request { request, .. } => request.operation.starts_lease(),
            Task::Refresh | Task::Expire { .. } => false,
        };
        held.lease_until = match (held.register.lease(), held.lease_until) {
            (None, _) => None,
            (Some(_), Some(until)) if !restarts => Some(until),
            (Some(lease), _) => Some(context.now + lease.ttl),
        };
        if let (Task::Request { id, .. }, Some(answer)) = (flight.task, flight.answer) {
            held.touched = context.now;
            context.reply(id, Ok(answer), held.version);
        }
        self.start(context, key);
    }

    /// L6: what was begun may or may not come to pass; what was not, does not.
    pub(crate) fn close(self, outbox: &mut Outbox) {
        let mut refuse = |id, refusal| outbox.push(Output::Reply { id, reply: Err(refusal), rests_on: None });
        for held in self.keys.into_values() {
            if let Some(Flight { task: Task::Request { id, request }, .. }) = held.flight {
                let read = request.operation.is_read();
                refuse(id, if read { Refusal::Unavailable } else { Refusal::Unknown { op: request.op } });
            }
            for task in held.queue {
                if let Task::Request { id, .. } = task {
                    refuse(id, Refusal::Unavailable);
                }
            }
        }
        for id in self.reads.into_ids() {
            refuse(id, Refusal::Unavailable);
        }
    }
}
