//! A leader, and how it writes (rules L3, L4 and L6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::kv::audit::Audits;
use crate::kv::keys::{Held, Keys};
use crate::kv::limits::KEYS_MAX;
use crate::kv::outbox::Outbox;
use crate::kv::reading::Reads;
use crate::kv::reconfigure::{Drain, Proposal};
use crate::kv::register::Recollection;
use crate::kv::roster::{Nodes, Roster};
use crate::kv::transfer::Transfer;
use crate::kv::{Answer, Config, Key, Message, Output, Refusal, Register, Request, RequestId, Rule, Rules, Settings};
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

impl Request {
    /// Why there is no answer to it although it was begun.
    const fn fate_unknown(&self) -> Refusal {
        if self.operation.is_read() { Refusal::Unavailable } else { Refusal::Unknown { op: self.op } }
    }
}

/// Something to be done to a key, one at a time.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Task {
    /// What a client asked.
    Request { id: RequestId, request: Request },
    /// Write the same value again, under this leader and this configuration.
    Refresh { size: usize },
    /// Write that there is nothing, where a member has something that nobody knows of.
    Bury,
    /// Take a lease away whose time is over.
    Expire { token: u64 },
}

/// A write on its way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Flight {
    pub(crate) version: Version,
    register: Arc<Register>,
    pub(crate) acks: Nodes,
    task: Task,
    /// Whether the time of a lease begins anew with it. Kept apart from the task, which may be given up while it goes on.
    starts_lease: bool,
    answer: Option<Answer>,
}

/// What is being done to a key, and what is to be done to it afterwards.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Work {
    pub(crate) flight: Option<Flight>,
    queue: VecDeque<Task>,
}

/// A node that leads the slot.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Leader {
    pub(crate) ballot: Ballot,
    pub(crate) seq: u64,
    /// The configuration in force.
    pub(crate) config: Config,
    /// Its members.
    pub(crate) roster: Roster,
    /// A configuration that is not chosen yet; nothing is begun while there is one.
    pub(crate) proposal: Option<Proposal>,
    pub(crate) drain: Option<Drain>,
    /// What is settled.
    pub(crate) keys: Keys,
    /// The keys that something is being done to.
    pub(crate) work: BTreeMap<Key, Work>,
    /// Every write on its way, the oldest first.
    pub(crate) flights: BTreeMap<u64, Key>,
    /// Keys with something to begin that could not be begun at once.
    ready: BTreeSet<Key>,
    queued: usize,
    /// How many of the writes on their way some client waits for.
    serving: usize,
    pub(crate) reads: Reads,
    pub(crate) audits: Audits,
    pub(crate) heartbeat_at: Instant,
    /// When a quorum last confirmed; in a joint configuration its old side is enough.
    pub(crate) contact_at: Instant,
    /// When both sides of a joint configuration last confirmed.
    pub(crate) joint_at: Instant,
    /// Not before this are the members changed.
    pub(crate) reconfigure_after: Instant,
    pub(crate) transfer: Transfer,
    /// The members whose disks have no room.
    pub(crate) full: Nodes,
    /// Whether it has been asked to let another member lead.
    pub(crate) goes: bool,
    /// Whom it has asked to lead instead.
    pub(crate) successor: Option<NodeId>,
    /// Set when it must step down.
    pub(crate) over: bool,
}

impl Leader {
    /// A leader of what was recovered.
    pub(crate) fn new(
        now: Instant,
        ballot: Ballot,
        seq: u64,
        config: Config,
        roster: Roster,
        table: BTreeMap<Key, Held>,
    ) -> Self {
        Self {
            ballot,
            seq,
            keys: Keys::new(&roster, table),
            config,
            roster,
            proposal: None,
            drain: None,
            work: BTreeMap::new(),
            flights: BTreeMap::new(),
            ready: BTreeSet::new(),
            queued: 0,
            serving: 0,
            reads: Reads::default(),
            audits: Audits::default(),
            heartbeat_at: now,
            contact_at: now,
            joint_at: now,
            reconfigure_after: now,
            transfer: Transfer::default(),
            full: Nodes::default(),
            goes: false,
            successor: None,
            over: false,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.proposal.is_none()
    }

    /// Whether something may be begun.
    const fn may_begin(&self) -> bool {
        self.proposal.is_none() && self.drain.is_none()
    }

    pub(crate) const fn next_version(&mut self) -> Version {
        self.seq += 1;
        Version { ballot: self.ballot, seq: self.seq }
    }

    pub(crate) fn request(&mut self, context: &mut Context<'_>, id: RequestId, request: Request) {
        if self.queued + self.serving + self.reads.len() >= context.settings.queue {
            return context.reply(id, Err(Refusal::Busy), None);
        }
        // A read need not wait for a write on its way: whoever sent that has no answer yet.
        let confirmed = self.keys.get(&request.key).is_none_or(|held| held.confirmed);
        if request.operation.is_read() && self.is_open() && confirmed {
            return self.read(context, id, request);
        }
        self.submit(context, request.key.clone(), Task::Request { id, request });
    }

    /// Begins something, or puts it where it waits for its turn.
    pub(crate) fn submit(&mut self, context: &mut Context<'_>, key: Key, task: Task) {
        if self.may_begin() && !self.work.contains_key(&key) {
            return self.begin(context, &key, task);
        }
        if let Task::Request { id, .. } = task
            && !self.is_writable(context.rules)
        {
            return context.reply(id, Err(Refusal::ReadOnly), None);
        }
        self.queued += 1;
        if !self.may_begin() {
            self.ready.insert(key.clone());
        }
        self.work.entry(key).or_default().queue.push_back(task);
    }

    /// Begins whatever had to wait.
    pub(crate) fn start_ready(&mut self, context: &mut Context<'_>) {
        while self.may_begin()
            && let Some(key) = self.ready.pop_first()
        {
            self.start(context, &key);
        }
    }

    /// L4: begins the next thing to be done to a key, unless one is on its way.
    fn start(&mut self, context: &mut Context<'_>, key: &Key) {
        let may_begin = self.may_begin();
        while let Some(work) = self.work.get_mut(key).filter(|work| work.flight.is_none()) {
            if work.queue.is_empty() {
                self.work.remove(key);
            } else if !may_begin {
                self.ready.insert(key.clone());
                return;
            } else if let Some(task) = work.queue.pop_front() {
                self.queued -= 1;
                self.begin(context, key, task);
            }
        }
    }

    fn begin(&mut self, context: &mut Context<'_>, key: &Key, task: Task) {
        let version = Version { ballot: self.ballot, seq: self.seq + 1 };
        let held = self.keys.get(key);
        let settled = held.map(|held| held.version);
        let confirmed = held.is_none_or(|held| held.confirmed);
        let mut register = held.map_or_else(Arc::default, |held| Arc::clone(&held.register));
        let mut answer = None;
        match &task {
            Task::Refresh { .. } if held.is_none_or(|held| self.keys.is_fresh(held)) => return,
            Task::Bury if held.is_some() => return,
            Task::Refresh { .. } | Task::Bury => {}
            Task::Expire { token } => {
                if held.and_then(|held| held.lease_until).is_none_or(|until| until > context.now) {
                    return;
                }
                Arc::make_mut(&mut register).expire(*token);
            }
            Task::Request { id, request } if request.operation.is_read() => {
                if confirmed {
                    return self.read(context, *id, request.clone());
                }
                answer = register.read(&request.operation);
            }
            Task::Request { id, request } => {
                let dedupe = context.rules.keeps(Rule::Dedupe);
                let known = if dedupe { register.recall(request.op) } else { Recollection::New };
                match known {
                    Recollection::Superseded => return context.reply(*id, Err(Refusal::Superseded), None),
                    Recollection::Done(known) if confirmed => return context.reply(*id, Ok(known), settled),
                    Recollection::Done(known) => answer = Some(known),
                    Recollection::New => {
                        let register = Arc::make_mut(&mut register);
                        let result = register.apply(&request.operation, version.seq);
                        if !register.fits() || (held.is_none() && self.keys.len() >= KEYS_MAX) {
                            return context.reply(*id, Err(Refusal::TooLarge), None);
                        }
                        register.remember(request.op, result.clone());
                        answer = Some(result);
                    }
                }
            }
        }
        if !self.is_writable(context.rules) {
            if let Task::Request { id, .. } = task {
                context.reply(id, Err(Refusal::ReadOnly), None);
            }
            return;
        }
        if let Task::Refresh { size } = task {
            self.transfer.refreshing += size;
        }
        self.seq = version.seq;
        self.audits.moves += 1;
        self.serving += usize::from(matches!(task, Task::Request { .. }));
        let starts_lease = match &task {
            Task::Request { request, .. } => request.operation.starts_lease(),
            Task::Refresh { .. } | Task::Bury | Task::Expire { .. } => false,
        };
        let flight = Flight { version, register, acks: Nodes::default(), task, starts_lease, answer };
        self.flights.insert(version.seq, key.clone());
        self.send_flight(context, key, &flight);
        self.work.entry(key.clone()).or_default().flight = Some(flight);
    }

    /// Sends a write on its way to whoever has not accepted it.
    pub(crate) fn send_flight(&self, context: &mut Context<'_>, key: &Key, flight: &Flight) {
        for seat in self.roster.all().without(flight.acks).seats() {
            if let Some(node) = self.roster.node(seat) {
                self.send_accept(context, node, key, flight.version, &flight.register);
            }
        }
    }

    pub(crate) fn send_accept(
        &self,
        context: &mut Context<'_>,
        to: NodeId,
        key: &Key,
        version: Version,
        register: &Arc<Register>,
    ) {
        let (ballot, key, register, config) = (self.ballot, key.clone(), Arc::clone(register), self.config.version);
        context.outbox.send(to, Message::Accept { ballot, key, version, register, config });
    }

    pub(crate) fn accepted(&mut self, context: &mut Context<'_>, from: NodeId, key: &Key, version: Version) {
        let Some(seat) = self.roster.seat(from) else { return };
        self.transfer.answered(seat, version);
        match self.work.get_mut(key).and_then(|work| work.flight.as_mut()) {
            Some(flight) if flight.version == version => {
                flight.acks.insert(seat);
                self.settle(context, key);
            }
            Some(_) | None => self.keys.hold(key, version, seat),
        }
    }

    /// A member lacks the configuration: it gets that, and the value again.
    pub(crate) fn behind(&mut self, context: &mut Context<'_>, from: NodeId, key: &Key) {
        let Some(seat) = self.roster.seat(from) else { return };
        let flight = self.work.get(key).and_then(|work| work.flight.as_ref());
        let (version, register) = match (flight, self.keys.get(key)) {
            (Some(flight), _) if !flight.acks.contains(seat) => (flight.version, &flight.register),
            (None, Some(held)) if !held.holders.contains(seat) => (held.version, &held.register),
            (Some(_) | None, _) => return,
        };
        context.outbox.send(from, Message::Learn { config: self.config.clone() });
        self.send_accept(context, from, key, version, register);
    }

    /// Whether a quorum has room for writes.
    pub(crate) fn is_writable(&self, rules: Rules) -> bool {
        self.full.is_empty() || self.roster.quorum(self.roster.all().without(self.full), rules)
    }

    /// A member took nothing in for want of room.
    pub(crate) fn refused_for_room(&mut self, context: &mut Context<'_>, from: NodeId) {
        let sent = |seat| !self.flights.is_empty() || self.transfer.waits_for(seat);
        if self.proposal.is_some() || self.roster.seat(from).is_some_and(sent) {
            self.note_room(context, from, true);
        }
    }

    /// A member tells whether its disk has no room.
    pub(crate) fn note_room(&mut self, context: &mut Context<'_>, from: NodeId, full: bool) {
        let Some(seat) = self.roster.seat(from).filter(|seat| self.full.contains(*seat) != full) else { return };
        if full {
            self.full.insert(seat);
        } else {
            self.full.remove(seat);
        }
        if !self.is_writable(context.rules) {
            self.answer_writers(context);
        }
    }

    /// Answers whoever waits for a write that may not end for long.
    fn answer_writers(&mut self, context: &mut Context<'_>) {
        for work in self.work.values_mut() {
            for task in std::mem::take(&mut work.queue) {
                self.queued -= 1;
                if let Task::Request { id, .. } = task {
                    context.reply(id, Err(Refusal::ReadOnly), None);
                }
            }
            let Some(flight) = &mut work.flight else { continue };
            // What was begun goes on, and nobody waits for it.
            let task = std::mem::replace(&mut flight.task, Task::Refresh { size: 0 });
            match task {
                Task::Request { id, request } => {
                    self.serving -= 1;
                    context.reply(id, Err(request.fate_unknown()), None);
                }
                Task::Refresh { .. } | Task::Bury | Task::Expire { .. } => flight.task = task,
            }
        }
        self.work.retain(|_, work| work.flight.is_some());
    }

    /// Ends a write that a quorum has accepted.
    pub(crate) fn settle(&mut self, context: &mut Context<'_>, key: &Key) {
        let Some(work) = self.work.get_mut(key) else { return };
        let accepted = |flight: &mut Flight| self.roster.quorum(flight.acks, context.rules);
        let Some(Flight { version, register, acks, task, starts_lease, answer }) = work.flight.take_if(accepted) else {
            return;
        };
        self.flights.remove(&version.seq);
        self.audits.moves += 1;
        if let Task::Refresh { size } = task {
            self.transfer.refreshing -= size;
        }
        let before = self.keys.get(key);
        let lease_until = match (register.lease(), before.and_then(|held| held.lease_until)) {
            (None, _) => None,
            (Some(_), Some(until)) if !starts_lease => Some(until),
            (Some(lease), _) => Some(context.now + lease.ttl),
        };
        let by_client = matches!(task, Task::Request { .. });
        self.serving -= usize::from(by_client);
        let touched = before.map(|held| held.touched).filter(|_| !by_client).unwrap_or(context.now);
        self.keys.put(key, Held { version, register, confirmed: true, holders: acks, touched, lease_until });
        if let (Task::Request { id, .. }, Some(answer)) = (task, answer) {
            context.reply(id, Ok(answer), Some(version));
        }
        self.start(context, key);
    }

    /// The configuration in force is another one from now on.
    pub(crate) fn adopt(&mut self, config: Config) {
        let roster = Roster::new(&config);
        self.keys.move_to(&self.roster, &roster);
        for flight in self.work.values_mut().filter_map(|work| work.flight.as_mut()) {
            flight.acks = self.roster.moved(flight.acks, &roster);
        }
        self.transfer.start_over(Version { ballot: self.ballot, seq: self.seq });
        self.audits.start_over();
        self.full = self.roster.moved(self.full, &roster);
        (self.config, self.roster) = (config, roster);
    }

    /// L6: what was begun may or may not come to pass; what was not, does not.
    pub(crate) fn close(self, outbox: &mut Outbox) {
        let members: Vec<NodeId> = self.roster.nodes().to_vec();
        let not_begun = match self.successor {
            Some(successor) => Refusal::Redirect { leader: Some(successor), members, version: self.config.version },
            None => Refusal::Unavailable,
        };
        let mut refuse = |id, refusal| outbox.push(Output::Reply { id, reply: Err(refusal), rests_on: None });
        for work in self.work.into_values() {
            if let Some(Flight { task: Task::Request { id, request }, .. }) = work.flight {
                refuse(id, request.fate_unknown());
            }
            for task in work.queue {
                if let Task::Request { id, .. } = task {
                    refuse(id, not_begun.clone());
                }
            }
        }
        for id in self.reads.into_ids() {
            refuse(id, not_begun.clone());
        }
    }
}
