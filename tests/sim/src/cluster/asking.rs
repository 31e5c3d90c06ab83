//! How clients ask, take replies in, give up, and go to another node.

use specter_dht::kv::{Answer, Key, Operation, RequestId};
use specter_dht::{Ask, Failure, Freshness, Input, Random, Reply};

use super::client::{Client, Kind, Pending};
use super::ending::Phase;
use super::machine::{Duty, Name};
use super::watch::readable;
use super::world::{Event, World};
use crate::Violation;
use crate::checker::Call;

/// How much longer than its patience a client waits for the reply that must come, in microseconds: its node's clock may
/// be slow.
const GRACE_MICROS: u64 = 400_000;

impl World {
    pub(super) fn client(&mut self, id: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    pub(super) fn add_client(&mut self, kind: Kind) -> u64 {
        let id = self.clients.len() as u64 + 1;
        let random = Random::seeded(self.random.next_u64());
        self.clients.push(Client::new(id, kind, self.swarm.keys, random));
        id
    }

    /// The time of a client has come to ask something.
    pub(super) fn begin(&mut self, id: u64) -> Result<(), Violation> {
        let (time, asks) = (self.queue.time(), self.phase.clients_ask());
        let stays = self.client(id).map(|client| client.machine).filter(|name| self.serves(*name));
        let Some(machine) = stays.or_else(|| self.any_machine()) else {
            self.think(id);
            return Ok(());
        };
        let Some(index) = self.clients.iter().position(|client| client.id == id && client.pending.is_none()) else {
            return Ok(());
        };
        let drawn = match self.clients[index].kind {
            Kind::Told => self.agenda.pop_front(),
            Kind::Busy | Kind::Probe(_) => asks.then(|| self.clients[index].draw(time)),
        };
        let Some((key, operation, freshness)) = drawn else { return Ok(()) };
        let (low, high) = self.swarm.patience_micros;
        let patience = self.random.between(low, high);
        let patience = if self.phase.is_calm() { patience.max(self.swarm.answer_micros()) } else { patience };
        self.ask(id, machine, (key, operation, freshness), patience)
    }

    /// A client asks a node.
    pub(super) fn ask(
        &mut self,
        id: u64,
        name: Name,
        (key, operation, freshness): (Key, Operation, Freshness),
        patience_micros: u64,
    ) -> Result<(), Violation> {
        let time = self.queue.time();
        let boot = self.machines.get(&name).map_or(0, |machine| machine.boot);
        if let Operation::Put { value, .. } | Operation::CompareAndSwap { new: Some(value), .. } = &operation {
            self.watch.writes(&key, value);
        }
        if let Operation::Release { token } = operation {
            self.leases.releasing(&key, token, time);
        }
        let Some(client) = self.client(id) else { return Ok(()) };
        let number = if matches!(client.kind, Kind::Told) { client.workload.count() } else { client.workload.number() };
        client.machine = name;
        client.reply = None;
        client.pending = Some(Pending {
            number,
            key: key.clone(),
            operation: operation.clone(),
            freshness,
            called: time,
            patience_micros,
            machine: name,
            boot,
        });
        self.tell(|| format!("client {id} asks {name}: {} {operation:?} {freshness:?}", readable(&key)));
        self.queue.push(patience_micros * 11 / 10 + GRACE_MICROS, Event::GiveUp { client: id, number });
        let patience = std::time::Duration::from_micros(patience_micros);
        let request = RequestId((id << 32) | number);
        self.input(name, Input::Request { id: request, ask: Ask { key, operation, freshness, patience } })
    }

    /// Whether clients may ask a machine; one that leaves still serves.
    fn serves(&self, name: Name) -> bool {
        self.machines.get(&name).is_some_and(|machine| matches!(machine.duty, Duty::Up | Duty::Leaving))
    }

    pub(super) fn any_machine(&mut self) -> Option<Name> {
        let up: Vec<Name> = self.up().map(|machine| machine.name).collect();
        let index = usize::try_from(self.random.below(up.len() as u64)).unwrap_or_default();
        up.get(index).copied()
    }

    pub(super) fn think(&mut self, client: u64) {
        let (low, high) = self.swarm.think_micros;
        let after = self.random.between(low, high).max(500);
        self.queue.push(after, Event::Begin { client });
    }

    /// A node replies: exactly once to each request, and what it says is on the disks of a quorum.
    pub(super) fn check_reply(
        &mut self,
        id: u64,
        number: u64,
        reply: &Result<Reply, Failure>,
    ) -> Result<(), Violation> {
        let Some(client) = self.client(id) else { return Ok(()) };
        if client.replied == number {
            return Err(Violation::Replies(format!("client {id} has two replies to its operation {number}")));
        }
        client.replied = number;
        let Some(pending) = client.pending.clone().filter(|pending| pending.number == number) else { return Ok(()) };
        let linearizable = pending.freshness == Freshness::Linearizable;
        if let (Ok(Reply { version: Some(version), .. }), true) = (reply, linearizable) {
            let slot = self.swarm.terms.slot_of(&pending.key);
            self.watch.answered(&self.machines, &self.names, slot, &pending.key, *version)?;
        }
        Ok(())
    }

    pub(super) fn replied(&mut self, id: u64, number: u64, reply: Result<Reply, Failure>) -> Result<(), Violation> {
        let (time, phase) = (self.queue.time(), self.phase);
        let Some(client) = self.client(id) else { return Ok(()) };
        let Some(pending) = client.pending.take_if(|pending| pending.number == number) else { return Ok(()) };
        client.reply = Some(reply.clone().map(|reply| reply.answer));
        self.tell(|| format!("client {id} is told: {reply:?}"));
        let result = match reply {
            Ok(Reply { answer, .. }) => self.answered(id, pending, answer),
            Err(failure) => {
                if phase.must_answer(pending.called) {
                    let key = readable(&pending.key);
                    return Err(Violation::Stuck(format!(
                        "{key} at {} though nothing fails: {failure}",
                        pending.machine
                    )));
                }
                self.waits.failed(&pending.key, pending.called, time);
                self.failed(id, pending, failure)
            }
        };
        self.think(id);
        result
    }

    fn answered(&mut self, id: u64, pending: Pending, answer: Answer) -> Result<(), Violation> {
        let (time, calm) = (self.queue.time(), self.phase.is_settled());
        let Pending { key, operation, freshness, called, .. } = pending;
        if freshness == Freshness::Hint {
            self.outcome.count("hint reads answered");
            let Answer::Value(value) = &answer else { return Ok(()) };
            return self.watch.hinted(&key, value.as_deref());
        }
        self.outcome.count("operations answered");
        self.waits.answered(&key, called, time);
        if let (Some(client), true) = (self.client(id), calm) {
            client.calm_answers += 1;
        }
        if let (Some(client), true) = (self.client(id), true) {
            client.workload.note_lease(&operation, &key, Some(&answer));
        }
        if let (Answer::Value(value), Phase::Audit { .. }) = (&answer, self.phase) {
            self.watch.last_read.insert(key.clone(), value.clone());
        }
        self.leases.answered(id, &key, &operation, &answer, (called, time))?;
        if is_checked(&key) {
            self.history.add(&key, Call { operation, called, returned: Some((answer, time)) });
        }
        Ok(())
    }

    fn failed(&mut self, id: u64, pending: Pending, failure: Failure) -> Result<(), Violation> {
        let kind = match failure {
            Failure::Unavailable => "operations unavailable",
            Failure::ReadOnly => "operations refused for full disks",
            Failure::Unknown => "operations of unknown fate",
            Failure::Busy => "operations refused as too many",
            Failure::Invalid => {
                return Err(Violation::Replies(format!("{:?} was called invalid", pending.operation)));
            }
        };
        self.outcome.count(kind);
        let other = self.any_machine();
        if let Some(client) = self.client(id) {
            client.workload.note_lease(&pending.operation, &pending.key, None);
            client.machine = other.unwrap_or(client.machine);
        }
        if failure == Failure::Unknown {
            self.leave_open(pending);
        }
        Ok(())
    }

    /// A client has waited for longer than it said that it would.
    pub(super) fn give_up(&mut self, id: u64, number: u64) -> Result<(), Violation> {
        let time = self.queue.time();
        let Some(client) = self.client(id) else { return Ok(()) };
        let Some(pending) = client.pending.take_if(|pending| pending.number == number) else { return Ok(()) };
        client.workload.note_lease(&pending.operation, &pending.key, None);
        let machine = self.machines.get(&pending.machine).filter(|machine| machine.boot == pending.boot);
        if machine.is_some_and(|machine| machine.is_up() && machine.sound_since <= pending.called) {
            let text = format!("{} did not reply to client {id} in {} us", pending.machine, pending.patience_micros);
            return Err(Violation::Replies(text));
        }
        self.outcome.count("operations without a reply");
        self.waits.failed(&pending.key, pending.called, time);
        let other = self.any_machine();
        if let Some(client) = self.client(id) {
            client.machine = other.unwrap_or(client.machine);
        }
        self.leave_open(pending);
        self.think(id);
        Ok(())
    }

    /// An operation may have been done or may still be.
    pub(super) fn leave_open(&mut self, pending: Pending) {
        let Pending { key, operation, freshness, called, .. } = pending;
        if freshness == Freshness::Linearizable && is_checked(&key) {
            self.history.add(&key, Call { operation, called, returned: None });
        }
    }
}

/// Whether the history of a key is checked; leases depend on time and are checked as they are granted.
fn is_checked(key: &Key) -> bool {
    key.starts_with(b"r")
}
