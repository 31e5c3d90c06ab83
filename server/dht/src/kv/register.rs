//! What one key holds, and every operation on it, as a pure function.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::kv::limits::{
    CHILD_MAX, CHILDREN_MAX, FENCES_MAX, KEY_MAX, LEASE_LONGEST, LEASE_SHORTEST, OWNER_MAX, REGISTER_MAX,
    REMEMBERED_MAX, VALUE_MAX,
};

/// The name of a register.
pub type Key = Vec<u8>;

/// The name of one operation of one client, the same however often it is sent. A client has one operation in flight per
/// key and numbers them upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// Who asks.
    pub client: u64,
    /// Which of its operations.
    pub number: u64,
}

/// The exclusive right of an owner, for a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub owner: Vec<u8>,
    /// Which of the owner's attempts got it: the same attempt sent again gets the same token.
    pub nonce: u64,
    /// For how long, from each acquisition or renewal.
    pub ttl: Duration,
    /// The fencing token: grows with every acquisition.
    pub token: u64,
}

/// Proof of a lease, shown with a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The key of the lease.
    pub lease_key: Key,
    /// The token that was granted.
    pub token: u64,
}

/// What a client may ask of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// The value.
    Get,
    /// Sets the value, unless a higher token of the same lease was seen here.
    Put {
        /// The new value.
        value: Vec<u8>,
        /// The lease under which it is written.
        fence: Option<Fence>,
    },
    /// Removes the value and the set; the lease stays.
    Delete,
    /// Sets or removes the value if it is the expected one.
    CompareAndSwap {
        /// What the value must be.
        expected: Option<Vec<u8>>,
        /// What it becomes.
        new: Option<Vec<u8>>,
    },
    /// Adds a child to the set.
    Append(Vec<u8>),
    /// Takes a child from the set.
    Remove(Vec<u8>),
    /// Whether a child is in the set.
    Contains(Vec<u8>),
    /// The whole set.
    List,
    /// Takes the lease if it is free.
    Acquire {
        /// Who wants it.
        owner: Vec<u8>,
        /// Which attempt this is.
        nonce: u64,
        /// For how long.
        ttl: Duration,
    },
    /// Starts the time of a lease anew.
    Renew {
        /// The token that was granted.
        token: u64,
    },
    /// Gives a lease back.
    Release {
        /// The token that was granted.
        token: u64,
    },
}

impl Operation {
    /// Whether it leaves the register as it is.
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Get | Self::Contains(_) | Self::List)
    }

    /// Whether it starts the time of a lease when it succeeds.
    pub(crate) const fn starts_lease(&self) -> bool {
        matches!(self, Self::Acquire { .. } | Self::Renew { .. })
    }
}

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// The value.
    Value(Option<Vec<u8>>),
    /// Whether it was there: of `Contains`, and of a child added or removed.
    Found(bool),
    /// The set, sorted.
    Children(Vec<Vec<u8>>),
    /// The lease was granted under this token.
    Granted(u64),
    /// The value was not the expected one.
    Conflict,
    /// Somebody else holds the lease.
    Held,
    /// The lease is no longer this one.
    Expired,
    /// A newer holder of the lease has written here.
    StaleFence,
}

/// What a write came to: the [`Answer`]s that a register remembers. On the wire and in traces it is no different from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Answer", try_from = "Answer")]
pub(crate) enum Outcome {
    Done,
    Found(bool),
    Granted(u64),
    Conflict,
    Held,
    Expired,
    StaleFence,
}

impl Hash for Outcome {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Answer::from(*self).hash(state);
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Found(found) => Self::Found(found),
            Outcome::Granted(token) => Self::Granted(token),
            Outcome::Conflict => Self::Conflict,
            Outcome::Held => Self::Held,
            Outcome::Expired => Self::Expired,
            Outcome::StaleFence => Self::StaleFence,
        }
    }
}

impl TryFrom<Answer> for Outcome {
    type Error = &'static str;

    fn try_from(answer: Answer) -> Result<Self, Self::Error> {
        match answer {
            Answer::Done => Ok(Self::Done),
            Answer::Found(found) => Ok(Self::Found(found)),
            Answer::Granted(token) => Ok(Self::Granted(token)),
            Answer::Conflict => Ok(Self::Conflict),
            Answer::Held => Ok(Self::Held),
            Answer::Expired => Ok(Self::Expired),
            Answer::StaleFence => Ok(Self::StaleFence),
            Answer::Value(_) | Answer::Children(_) => Err("a register remembers what was read, which it never does"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) op: OpId,
    pub(crate) outcome: Outcome,
}

/// About how many bytes that takes in a message.
const REMEMBERED_SIZE: usize = 28;

/// What a register knows about an operation that it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Recollection {
    /// It is new.
    New,
    /// It was done, with this answer.
    Done(Answer),
    /// The client has gone on since: a late copy, which nobody waits for.
    Superseded,
}

/// What one key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Register {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) set: BTreeSet<Vec<u8>>,
    pub(crate) lease: Option<Lease>,
    pub(crate) fences: BTreeMap<Key, u64>,
    pub(crate) recent: Vec<Remembered>,
}

impl Register {
    /// A register nobody has written.
    pub const EMPTY: Self =
        Self { value: None, set: BTreeSet::new(), lease: None, fences: BTreeMap::new(), recent: Vec::new() };

    /// Whether nothing is left but the memory of operations: such a register may be purged once that is old.
    pub fn is_tombstone(&self) -> bool {
        self.value.is_none() && self.set.is_empty() && self.lease.is_none() && self.fences.is_empty()
    }

    /// The lease, whoever holds it.
    pub const fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The value, if there is one.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// The set.
    pub const fn children(&self) -> &BTreeSet<Vec<u8>> {
        &self.set
    }

    /// About how many bytes it takes in a message.
    pub(crate) fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, Vec::len);
        let set: usize = self.set.iter().map(|child| child.len() + 2).sum();
        let lease = self.lease.as_ref().map_or(0, |lease| lease.owner.len() + 32);
        let fences: usize = self.fences.keys().map(|key| key.len() + 8).sum();
        16 + value + set + lease + fences + self.recent.len() * REMEMBERED_SIZE
    }

    /// Whether it keeps to the limits.
    pub(crate) fn fits(&self) -> bool {
        let lease =
            |lease: &Lease| lease.owner.len() <= OWNER_MAX && (LEASE_SHORTEST..=LEASE_LONGEST).contains(&lease.ttl);
        self.value.as_ref().is_none_or(|value| value.len() <= VALUE_MAX)
            && self.set.len() <= CHILDREN_MAX
            && self.set.iter().all(|child| child.len() <= CHILD_MAX)
            && self.lease.as_ref().is_none_or(lease)
            && self.fences.len() <= FENCES_MAX
            && self.fences.keys().all(|key| key.len() <= KEY_MAX)
            && self.recent.len() <= REMEMBERED_MAX
            && self.size() <= REGISTER_MAX
    }

    pub(crate) fn recall(&self, op: OpId) -> Recollection {
        match self.recent.iter().find(|known| known.op.client == op.client) {
            Some(known) if known.op == op => Recollection::Done(known.outcome.into()),
            Some(known) if known.op.number > op.number => Recollection::Superseded,
            Some(_) | None => Recollection::New,
        }
    }

    pub(crate) fn remember(&mut self, op: OpId, answer: &Answer) {
        // An answer that tells what was read is no answer to a write.
        let Ok(outcome) = Outcome::try_from(answer.clone()) else { return };
        self.recent.retain(|known| known.op.client != op.client);
        if self.recent.len() >= REMEMBERED_MAX {
            self.recent.remove(0);
        }
        self.recent.push(Remembered { op, outcome });
    }

    /// Takes a lease away whose time is over, if it is still this one.
    pub(crate) fn expire(&mut self, token: u64) {
        if self.lease.as_ref().is_some_and(|lease| lease.token == token) {
            self.lease = None;
        }
    }

    /// What a read finds; writes find nothing.
    pub(crate) fn read(&self, operation: &Operation) -> Option<Answer> {
        match operation {
            Operation::Get => Some(Answer::Value(self.value.clone())),
            Operation::Contains(child) => Some(Answer::Found(self.set.contains(child))),
            Operation::List => Some(Answer::Children(self.set.iter().cloned().collect())),
            Operation::Put { .. }
            | Operation::Delete
            | Operation::CompareAndSwap { .. }
            | Operation::Append(_)
            | Operation::Remove(_)
            | Operation::Acquire { .. }
            | Operation::Renew { .. }
            | Operation::Release { .. } => None,
        }
    }

    /// A copy to do an operation on: without what the operation replaces whatever it is.
    pub(crate) fn copy_for(&self, operation: &Operation) -> Self {
        let value = match operation {
            Operation::Put { fence: None, .. } => None,
            Operation::Get
            | Operation::Put { fence: Some(_), .. }
            | Operation::Delete
            | Operation::CompareAndSwap { .. }
            | Operation::Append(_)
            | Operation::Remove(_)
            | Operation::Contains(_)
            | Operation::List
            | Operation::Acquire { .. }
            | Operation::Renew { .. }
            | Operation::Release { .. } => self.value.clone(),
        };
        let (set, lease, fences) = (self.set.clone(), self.lease.clone(), self.fences.clone());
        Self { value, set, lease, fences, recent: self.recent.clone() }
    }

    /// Does an operation. `seq` is the place of this write among all writes of the slot: a lease granted by it carries it
    /// as its token.
    pub fn apply(&mut self, operation: &Operation, seq: u64) -> Answer {
        match operation {
            Operation::Get => Answer::Value(self.value.clone()),
            Operation::Contains(child) => Answer::Found(self.set.contains(child)),
            Operation::List => Answer::Children(self.set.iter().cloned().collect()),
            Operation::Put { value, fence } => self.put(value, fence.as_ref()),
            Operation::Delete => {
                self.value = None;
                self.set.clear();
                Answer::Done
            }
            Operation::CompareAndSwap { expected, new } => {
                if self.value != *expected {
                    return Answer::Conflict;
                }
                self.value.clone_from(new);
                Answer::Done
            }
            Operation::Append(child) => Answer::Found(!self.set.insert(child.clone())),
            Operation::Remove(child) => Answer::Found(self.set.remove(child)),
            Operation::Acquire { owner, nonce, ttl } => self.acquire(owner, *nonce, *ttl, seq),
            Operation::Renew { token } => match &self.lease {
                Some(lease) if lease.token == *token => Answer::Done,
                Some(_) | None => Answer::Expired,
            },
            Operation::Release { token } => match &self.lease {
                Some(lease) if lease.token == *token => {
                    self.lease = None;
                    Answer::Done
                }
                Some(_) | None => Answer::Expired,
            },
        }
    }

    fn put(&mut self, value: &[u8], fence: Option<&Fence>) -> Answer {
        if let Some(fence) = fence {
            let highest = self.fences.entry(fence.lease_key.clone()).or_default();
            if fence.token < *highest {
                return Answer::StaleFence;
            }
            *highest = fence.token;
        }
        self.value = Some(value.to_vec());
        Answer::Done
    }

    fn acquire(&mut self, owner: &[u8], nonce: u64, ttl: Duration, seq: u64) -> Answer {
        match &self.lease {
            Some(lease) if lease.owner == owner && lease.nonce == nonce => Answer::Granted(lease.token),
            Some(_) => Answer::Held,
            None => {
                self.lease = Some(Lease { owner: owner.to_vec(), nonce, ttl, token: seq });
                Answer::Granted(seq)
            }
        }
    }
}
