//! How clients ask, ask again, give up, and take answers in.

use specter_dht::NodeId;
use specter_dht::kv::{Answer, OpId, Operation, Refusal, Request};

use super::client::{Client, Pending};
use super::world::{Event, World};
use crate::Violation;
use crate::checker::Call;

impl World {
    pub(super) fn client(&mut self, id: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    pub(super) fn pending(&self, op: OpId) -> Option<&Pending> {
        let client = self.clients.iter().find(|client| client.id == op.client && client.awaits(op))?;
        client.pending.as_ref()
    }

    pub(super) fn begin(&mut self, id: u64) {
        let time = self.queue.time();
        let Some(client) = self.client(id) else { return };
        client.begin(time);
        let Some(request) = client.pending.as_ref().map(|pending| pending.request.clone()) else { return };
        if let Operation::Release { token } = request.operation {
            self.leases.releasing(&request.key, token, time);
        }
        self.attempt(request.op);
    }

    pub(super) fn attempt(&mut self, op: OpId) {
        let (swarm, time) = (self.swarm.clone(), self.queue.time());
        let Some(client) = self.client(op.client).filter(|client| client.awaits(op)) else { return };
        let Some((node, request, wait)) = client.attempt(&swarm, time) else {
            return self.give_up(op.client);
        };
        let copies = self.weather.client_copies(&mut self.random);
        let mut sent = 0;
        if let Some(pending) = self.client(op.client).and_then(|client| client.pending.as_mut()) {
            sent = pending.copies;
            pending.copies += copies.len() as u64;
            let after = pending.attempts;
            self.queue.push(wait, Event::Attempt { op, after });
        }
        for (copy, delay) in (sent..).zip(copies) {
            let request = request.clone();
            self.queue.push(delay, Event::Ask { node, copy, request });
        }
    }

    fn give_up(&mut self, id: u64) {
        let Some(client) = self.client(id) else { return };
        let Some(pending) = client.pending.take() else { return };
        client.workload.note_lease(&pending.request.operation, &pending.request.key, None);
        // Refused for sure: then it must have left no trace, and it is left out of the history.
        let refused = pending.copies == pending.refused.len() as u64;
        self.outcome.count(if refused { "operations refused" } else { "operations of unknown fate" });
        if !refused {
            self.record(pending, None);
        }
        self.think(id);
    }

    fn record(&mut self, pending: Pending, returned: Option<(Answer, u64)>) {
        let Pending { request, called, .. } = pending;
        if request.key.starts_with(b"r") {
            self.history.add(&request.key, Call { operation: request.operation, called, returned });
        }
    }

    fn think(&mut self, client: u64) {
        let (low, high) = self.swarm.think_micros;
        let after = self.random.between(low, high);
        self.queue.push(after, Event::Begin { client });
    }

    pub(super) fn replied(
        &mut self,
        from: NodeId,
        op: OpId,
        copy: u64,
        reply: Result<Answer, Refusal>,
    ) -> Result<(), Violation> {
        let (swarm, time, calm) = (self.swarm.clone(), self.queue.time(), self.calm);
        let Some(client) = self.client(op.client).filter(|client| client.awaits(op)) else { return Ok(()) };
        let answer = match reply {
            Ok(answer) => answer,
            Err(refusal) => {
                client.refused(from, copy, &refusal, &swarm);
                let after = client.pending.as_ref().map_or(0, |pending| pending.attempts);
                self.queue.push(5_000, Event::Attempt { op, after });
                return Ok(());
            }
        };
        let Some(pending) = client.pending.take() else { return Ok(()) };
        client.calm_answers += u64::from(calm);
        let Request { key, operation, .. } = &pending.request;
        client.workload.note_lease(operation, key, Some(&answer));
        let times = (pending.called, time);
        self.leases.answered(op.client, key, operation, &answer, times)?;
        self.outcome.count("operations answered");
        self.record(pending, Some((answer, time)));
        self.think(op.client);
        Ok(())
    }
}
