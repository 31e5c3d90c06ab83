//! Who asks what.

use std::collections::BTreeSet;
use std::time::Duration;

use specter_dht::kv::{Answer, Fence, Key, OpId, Operation, Refusal, Request};
use specter_dht::{NodeId, Random};

use crate::Swarm;
use crate::swarm::CLIENT_BUDGET_MICROS;

/// For how long after its keys were new an age of keys lasts; afterwards they are mostly left alone, so that they can be
/// purged.
const AGE_MICROS: u64 = 3_000_000;

/// What a client knows of the lease it holds.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) key: Key,
    pub(crate) token: u64,
}

/// One operation on its way.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) called: u64,
    /// Copies that reached a node or may yet.
    pub(crate) copies: u64,
    /// Those of which a node said that it did nothing; it may say so twice.
    pub(crate) refused: BTreeSet<u64>,
    /// How often it was sent.
    pub(crate) attempts: u64,
}

/// A client with at most one operation in flight.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    random: Random,
    number: u64,
    pub(crate) pending: Option<Pending>,
    /// Whom to ask next.
    target: NodeId,
    pub(crate) holding: Option<Holding>,
    /// Answers since the faults stopped.
    pub(crate) calm_answers: u64,
}

impl Client {
    pub(crate) fn new(id: u64, random: Random) -> Self {
        Self { id, random, number: 0, pending: None, target: NodeId(0), holding: None, calm_answers: 0 }
    }

    /// Draws the next operation.
    pub(crate) fn begin(&mut self, swarm: &Swarm, time: u64) {
        self.number += 1;
        let (key, operation) = self.draw(swarm, time);
        let request = Request { key, op: OpId { client: self.id, number: self.number }, operation };
        self.pending = Some(Pending { request, called: time, copies: 0, refused: BTreeSet::new(), attempts: 0 });
    }

    fn draw(&mut self, swarm: &Swarm, time: u64) -> (Key, Operation) {
        let kind = self.random.below(100);
        if kind < 15 {
            return self.draw_lease();
        }
        if kind < 18
            && let Some(Holding { key, token }) = &self.holding
        {
            let fence = Some(Fence { lease_key: key.clone(), token: *token });
            return ([b"f", key.as_slice()].concat(), Operation::Put { value: self.value(), fence });
        }
        let age = time / AGE_MICROS;
        let age = if self.random.chance(100) { self.random.below(age + 1) } else { age };
        let name = [age, self.random.below(swarm.keys)].map(u64::to_be_bytes).concat();
        let key = [b"r", name.as_slice()].concat();
        let child = vec![b'a' + u8::try_from(self.random.below(3)).unwrap_or_default()];
        // An age ends with little but deletes, or nothing would ever be purged.
        let dying = time % AGE_MICROS > AGE_MICROS * 3 / 4;
        let operation = match self.random.below(if dying { 60 } else { 100 }) {
            0..30 => Operation::Get,
            30..33 => Operation::List,
            33..36 => Operation::Contains(child),
            36..60 => Operation::Delete,
            60..84 => Operation::Put { value: self.value(), fence: None },
            84..92 => {
                let known = self.random.chance(500);
                let expected = known.then(|| self.older_value());
                Operation::CompareAndSwap { expected, new: Some(self.value()) }
            }
            92..97 => Operation::Append(child),
            _ => Operation::Remove(child),
        };
        (key, operation)
    }

    fn draw_lease(&mut self) -> (Key, Operation) {
        if let Some(Holding { key, token }) = &self.holding {
            let token = *token;
            let operation =
                if self.random.chance(600) { Operation::Renew { token } } else { Operation::Release { token } };
            return (key.clone(), operation);
        }
        let ttl = Duration::from_millis(self.random.between(200, 1500));
        let (owner, nonce) = (self.id.to_be_bytes().to_vec(), self.number);
        (
            vec![b'l', b'0' + u8::try_from(self.random.below(2)).unwrap_or_default()],
            Operation::Acquire { owner, nonce, ttl },
        )
    }

    /// A value that nobody else writes.
    fn value(&self) -> Vec<u8> {
        [self.id.to_be_bytes(), self.number.to_be_bytes()].concat()
    }

    /// A value this client may have written not long ago.
    fn older_value(&mut self) -> Vec<u8> {
        let number = self.number.saturating_sub(self.random.between(1, 6));
        [self.id.to_be_bytes(), number.to_be_bytes()].concat()
    }

    /// Whom to send the next attempt to and how long to wait for its answer; none when the client gives up.
    pub(crate) fn attempt(&mut self, swarm: &Swarm, time: u64) -> Option<(NodeId, Request, u64)> {
        let budget = CLIENT_BUDGET_MICROS - 400_000;
        let pending = self.pending.as_mut()?;
        if time.saturating_sub(pending.called) > budget {
            return None;
        }
        pending.attempts += 1;
        let wait = self.random.between(100_000, 400_000);
        let target = self.target;
        // Most clients stay with the node that answered last, even if that is the wrong one by now.
        if pending.attempts > 1 && self.random.chance(500) {
            self.target = NodeId::from(self.random.below(swarm.nodes));
        }
        Some((target, pending.request.clone(), wait))
    }

    /// Whether the answer is to the operation in flight.
    pub(crate) fn awaits(&self, op: OpId) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.request.op == op)
    }

    /// Takes in that a copy was refused, and whom to ask next.
    pub(crate) fn refused(&mut self, from: NodeId, copy: u64, refusal: &Refusal, swarm: &Swarm) {
        let Some(pending) = &mut self.pending else { return };
        match refusal {
            Refusal::Redirect { leader, members } => {
                pending.refused.insert(copy);
                let any = usize::try_from(self.random.below(members.len() as u64)).unwrap_or_default();
                self.target = leader.or_else(|| members.get(any).copied()).unwrap_or(NodeId(0));
                if self.target == from || self.random.chance(100) {
                    self.target = NodeId::from(self.random.below(swarm.nodes));
                }
            }
            Refusal::Busy | Refusal::Unavailable | Refusal::TooLarge | Refusal::ReadOnly => {
                pending.refused.insert(copy);
            }
            Refusal::Unknown { .. } | Refusal::Superseded => {}
        }
    }

    /// Takes in what the answer says of leases.
    pub(crate) fn note_lease(&mut self, operation: &Operation, key: &Key, answer: Option<&Answer>) {
        if let (Operation::Acquire { .. }, Some(Answer::Granted(token))) = (operation, answer) {
            self.holding = Some(Holding { key: key.clone(), token: *token });
        }
        let released = matches!(operation, Operation::Release { .. });
        if released || matches!(answer, Some(Answer::Expired | Answer::StaleFence)) {
            self.holding = None;
        }
    }
}
