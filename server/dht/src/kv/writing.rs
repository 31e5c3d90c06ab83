//! How a leader writes: one value of a key at a time (rule L4).

use std::collections::VecDeque;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::kv::keys::Held;
use crate::kv::leader::{Context, Leader};
use crate::kv::limits::KEYS_MAX;
use crate::kv::register::Recollection;
use crate::kv::roster::Nodes;
use crate::kv::{Answer, Key, Message, OpId, Operation, Refusal, Register, RequestId, Rule};
use crate::{NodeId, Version};

/// Something to be done to a key, one at a time.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Task {
    /// What a client asked.
    Request { id: RequestId, op: OpId, operation: Operation },
    /// Write the same value again, under this leader and this configuration; so many bytes.
    Refresh { size: usize },
    /// Write that there is nothing, where a member has something that nobody knows of.
    Bury,
    /// Take a lease away whose time is over.
    Expire { token: u64 },
}

/// A client that waits for a write.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Waiter {
    id: RequestId,
    op: OpId,
    /// Whether it only reads, what was not known to be settled.
    reads: bool,
    answer: Answer,
}

impl Waiter {
    /// The client's request, and why there is no answer to it although it was begun.
    pub(crate) const fn fate_unknown(&self) -> (RequestId, Refusal) {
        (self.id, if self.reads { Refusal::Unavailable } else { Refusal::Unknown { op: self.op } })
    }
}

/// A write on its way.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Flight {
    pub(crate) version: Version,
    pub(crate) register: Arc<Register>,
    pub(crate) acks: Nodes,
    pub(crate) waiter: Option<Waiter>,
    by_client: bool,
    starts_lease: bool,
    /// The bytes of it that count against the window of transfers.
    transfer: usize,
}

/// What is being done to a key, and what is to be done to it afterwards.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Work {
    pub(crate) flight: Option<Flight>,
    pub(crate) queue: VecDeque<Task>,
}

/// What a task comes to.
enum Plan {
    Nothing,
    Reply(RequestId, Result<Answer, Refusal>, Option<Version>),
    Read(RequestId, Operation),
    Write { register: Arc<Register>, waiter: Option<Waiter>, starts_lease: bool, transfer: usize },
}

impl Plan {
    const fn write(register: Arc<Register>) -> Self {
        Self::Write { register, waiter: None, starts_lease: false, transfer: 0 }
    }
}

impl Leader {
    /// Begins something, or puts it where it waits for its turn.
    pub(crate) fn submit(&mut self, context: &mut Context<'_>, key: Key, task: Task) {
        if self.may_begin() && !self.work.contains_key(&key) {
            return self.begin(context, key, task);
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
            self.start(context, key);
        }
    }

    /// Begins the next thing to be done to a key, unless one is on its way.
    fn start(&mut self, context: &mut Context<'_>, key: Key) {
        let may_begin = self.may_begin();
        while let Some(work) = self.work.get_mut(&key).filter(|work| work.flight.is_none()) {
            if work.queue.is_empty() {
                self.work.remove(&key);
            } else if !may_begin {
                self.ready.insert(key);
                return;
            } else if let Some(task) = work.queue.pop_front() {
                self.queued -= 1;
                self.begin(context, key.clone(), task);
            }
        }
    }

    fn begin(&mut self, context: &mut Context<'_>, key: Key, task: Task) {
        let client = if let Task::Request { id, .. } = &task { Some(*id) } else { None };
        let (register, waiter, starts_lease, transfer) = match self.plan(context, &key, task) {
            Plan::Nothing => return,
            Plan::Reply(id, reply, rests_on) => return context.reply(id, reply, rests_on),
            Plan::Read(id, operation) => return self.read(context, id, key, operation),
            Plan::Write { register, waiter, starts_lease, transfer } => (register, waiter, starts_lease, transfer),
        };
        if !self.is_writable(context.rules) {
            client.into_iter().for_each(|id| context.reply(id, Err(Refusal::ReadOnly), None));
            return;
        }
        let version = self.next_version();
        self.audits.moves += 1;
        self.serving += usize::from(waiter.is_some());
        self.transfer.refreshing += transfer;
        self.flights.insert(version.seq);
        let (acks, by_client) = (Nodes::default(), client.is_some());
        let flight = Flight { version, register, acks, waiter, by_client, starts_lease, transfer };
        self.send_flight(context, &key, &flight);
        self.work.entry(key).or_default().flight = Some(flight);
    }

    fn plan(&self, context: &Context<'_>, key: &Key, task: Task) -> Plan {
        let held = self.keys.get(key);
        let settled = held.map(|held| held.version);
        let confirmed = held.is_none_or(|held| held.confirmed);
        let register = || held.map_or_else(Arc::default, |held| Arc::clone(&held.register));
        let (id, op, operation) = match task {
            Task::Request { id, op, operation } => (id, op, operation),
            Task::Refresh { .. } if held.is_none_or(|held| self.keys.is_fresh(held)) => return Plan::Nothing,
            Task::Refresh { size: transfer } => {
                return Plan::Write { register: register(), waiter: None, starts_lease: false, transfer };
            }
            Task::Bury if held.is_some() => return Plan::Nothing,
            Task::Bury => return Plan::write(register()),
            Task::Expire { token } => {
                if held.and_then(|held| held.lease_until).is_none_or(|until| until > context.now) {
                    return Plan::Nothing;
                }
                let mut register = register();
                Arc::make_mut(&mut register).expire(token);
                return Plan::write(register);
            }
        };
        let current = held.map_or(const { &Register::EMPTY }, |held| &held.register);
        let write = |register, answer, reads| {
            let waiter = Some(Waiter { id, op, reads, answer });
            Plan::Write { register, waiter, starts_lease: operation.starts_lease(), transfer: 0 }
        };
        if operation.is_read() {
            return match current.read(&operation) {
                Some(answer) if !confirmed => write(register(), answer, true),
                Some(_) | None => Plan::Read(id, operation),
            };
        }
        let dedupe = context.rules.keeps(Rule::Dedupe);
        match if dedupe { current.recall(op) } else { Recollection::New } {
            Recollection::Superseded => Plan::Reply(id, Err(Refusal::Superseded), None),
            Recollection::Done(known) if confirmed => Plan::Reply(id, Ok(known), settled),
            Recollection::Done(known) => write(register(), known, false),
            Recollection::New => {
                let mut changed = current.copy_for(&operation);
                let answer = changed.apply(&operation, self.seq + 1);
                changed.remember(op, &answer);
                if !changed.fits() || (held.is_none() && self.keys.len() >= KEYS_MAX) {
                    return Plan::Reply(id, Err(Refusal::TooLarge), None);
                }
                write(Arc::new(changed), answer, false)
            }
        }
    }

    /// The writes on their way, the oldest first.
    pub(crate) fn flying(&self) -> Vec<(&Key, &Flight)> {
        let flying = self.work.iter().filter_map(|(key, work)| Some((key, work.flight.as_ref()?)));
        let mut flying: Vec<_> = flying.collect();
        flying.sort_unstable_by_key(|(_, flight)| flight.version);
        flying
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

    pub(crate) fn accepted(&mut self, context: &mut Context<'_>, from: NodeId, key: Key, version: Version) {
        let Some(seat) = self.roster.seat(from) else { return };
        self.transfer.answered(seat, version);
        match self.work.entry(key) {
            Entry::Occupied(mut work) => match &mut work.get_mut().flight {
                Some(flight) if flight.version == version => {
                    flight.acks.insert(seat);
                    if self.roster.quorum(flight.acks, context.rules)
                        && let Some(flight) = work.get_mut().flight.take()
                    {
                        if work.get().queue.is_empty() {
                            let key = work.remove_entry().0;
                            self.settle(context, &key, flight);
                        } else {
                            let key = work.key().clone();
                            self.settle(context, &key, flight);
                            self.start(context, key);
                        }
                    }
                }
                Some(_) | None => self.keys.hold(work.key(), version, seat),
            },
            Entry::Vacant(work) => self.keys.hold(work.key(), version, seat),
        }
    }

    /// Ends every write that a quorum has accepted, now that a quorum is something else.
    pub(crate) fn settle_all(&mut self, context: &mut Context<'_>) {
        let accepted = |flight: &mut Flight| self.roster.quorum(flight.acks, context.rules);
        let landed = self.work.iter_mut().filter_map(|(key, work)| Some((key.clone(), work.flight.take_if(accepted)?)));
        let mut landed: Vec<_> = landed.collect();
        landed.sort_unstable_by_key(|(_, flight)| flight.version);
        for (key, flight) in landed {
            self.settle(context, &key, flight);
            self.start(context, key);
        }
    }

    fn settle(&mut self, context: &mut Context<'_>, key: &Key, flight: Flight) {
        let Flight { version, register, acks, waiter, by_client, starts_lease, transfer } = flight;
        self.flights.remove(&version.seq);
        self.audits.moves += 1;
        self.transfer.refreshing -= transfer;
        let now = context.now;
        self.keys.settle(key, |before| {
            let lease_until = match (register.lease(), before.and_then(|held| held.lease_until)) {
                (None, _) => None,
                (Some(_), Some(until)) if !starts_lease => Some(until),
                (Some(lease), _) => Some(now + lease.ttl),
            };
            let touched = before.map(|held| held.touched).filter(|_| !by_client).unwrap_or(now);
            Held { version, register, confirmed: true, holders: acks, touched, lease_until }
        });
        if let Some(Waiter { id, answer, .. }) = waiter {
            self.serving -= 1;
            context.reply(id, Ok(answer), Some(version));
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

    /// Answers whoever waits for a write that may not end for long: it goes on, but nobody waits for it.
    pub(crate) fn answer_writers(&mut self, context: &mut Context<'_>) {
        for work in self.work.values_mut() {
            for task in std::mem::take(&mut work.queue) {
                self.queued -= 1;
                if let Task::Request { id, .. } = task {
                    context.reply(id, Err(Refusal::ReadOnly), None);
                }
            }
            if let Some(waiter) = work.flight.as_mut().and_then(|flight| flight.waiter.take()) {
                self.serving -= 1;
                let (id, refusal) = waiter.fate_unknown();
                context.reply(id, Err(refusal), None);
            }
        }
        self.work.retain(|_, work| work.flight.is_some());
    }
}
