//! What a client asks next.

use std::time::Duration;

use specter_dht::Random;
use specter_dht::kv::{Answer, Fence, Key, Operation};

/// For how long after its keys were new an age of keys lasts; afterwards they are mostly left alone, so that they can be
/// purged.
const AGE_MICROS: u64 = 3_000_000;

/// What a client knows of the lease it holds.
#[derive(Clone, Debug)]
struct Holding {
    key: Key,
    token: u64,
}

/// The operations of one client, one after the other.
#[derive(Debug)]
pub(crate) struct Workload {
    client: u64,
    /// How many keys are in use at a time.
    keys: u64,
    pub(crate) random: Random,
    number: u64,
    holding: Option<Holding>,
}

impl Workload {
    pub(crate) const fn new(client: u64, keys: u64, random: Random) -> Self {
        Self { client, keys, random, number: 0, holding: None }
    }

    /// The number of the operation drawn last.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Counts one operation that is not drawn.
    pub(crate) const fn count(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Draws the next operation.
    pub(crate) fn draw(&mut self, time: u64) -> (Key, Operation) {
        self.number += 1;
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
        let name = [age, self.random.below(self.keys)].map(u64::to_be_bytes).concat();
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
        let (owner, nonce) = (self.client.to_be_bytes().to_vec(), self.number);
        (
            vec![b'l', b'0' + u8::try_from(self.random.below(2)).unwrap_or_default()],
            Operation::Acquire { owner, nonce, ttl },
        )
    }

    /// A value that nobody else writes.
    pub(crate) fn value(&self) -> Vec<u8> {
        [self.client.to_be_bytes(), self.number.to_be_bytes()].concat()
    }

    /// A value this client may have written not long ago.
    fn older_value(&mut self) -> Vec<u8> {
        let number = self.number.saturating_sub(self.random.between(1, 6));
        [self.client.to_be_bytes(), number.to_be_bytes()].concat()
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
