//! One key's register: a value, a set, a lease. PURE: `now` is an argument, nothing is read or written elsewhere.
//!
//! The store thread (`node/store`) calls [`Register::apply`] and writes what changed to disk before anybody hears of it.
//! Rules: `lease_*` and fences follow compare-and-set semantics on one key; tokens and versions are drawn from one
//! sequence that only grows, so a later holder's token is always the larger one.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Error, Fence, Key, Lease, OpId, Token, Version, Versioned, limits};

/// The state of one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Register {
    head: Head,
    children: BTreeSet<Vec<u8>>,
    /// When the lease runs out. Not stored: after a restart a held lease gets its whole time again.
    lease_deadline: Option<Instant>,
    /// When the register last became empty.
    emptied: Option<Instant>,
}

/// Everything but the children, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    value: Option<Versioned>,
    lease: Option<Held>,
    /// The highest token seen of each lease that guarded a write here.
    fences: Vec<(Key, Token)>,
    /// The last writes and their answers, so that a retry takes effect once.
    recent: VecDeque<(OpId, WriteAnswer)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    owner: Vec<u8>,
    nonce: u64,
    lease: Lease,
}

/// What changes a register.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Put { value: Vec<u8>, fence: Option<Fence> },
    Delete,
    CompareAndSwap { expect: Option<Version>, value: Option<Vec<u8>> },
    Append(Vec<u8>),
    Remove(Vec<u8>),
    Acquire { owner: Vec<u8>, nonce: u64, ttl: Duration },
    Renew(Token),
    Release(Token),
}

impl Write {
    /// The child that is added or removed, if it is about one.
    pub(crate) fn child(&self) -> Option<&Vec<u8>> {
        match self {
            Self::Append(child) | Self::Remove(child) => Some(child),
            Self::Put { .. }
            | Self::Delete
            | Self::CompareAndSwap { .. }
            | Self::Acquire { .. }
            | Self::Renew(_)
            | Self::Release(_) => None,
        }
    }

    /// About how many bytes it makes a transaction longer.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::CompareAndSwap { value, .. } => value.as_ref().map_or(0, Vec::len),
            Self::Append(child) | Self::Remove(child) => child.len(),
            Self::Delete | Self::Acquire { .. } | Self::Renew(_) | Self::Release(_) => 0,
        }
    }
}

/// The answer to a [`Write`] that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum WriteAnswer {
    Written(Version),
    Changed(bool),
    Leased(Lease),
    Released,
}

/// What a write leaves to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that outlives the process.
    Nothing,
    /// The head.
    Head,
    /// The head, and the child of the write was added.
    Added,
    /// The head, and the child of the write was removed.
    Removed,
}

impl Register {
    /// A register as it was stored. A lease that was held is held again for its whole time: it is never shortened.
    pub(crate) fn restore(head: Head, children: BTreeSet<Vec<u8>>, now: Instant) -> Self {
        let lease_deadline = head.lease.as_ref().map(|held| now + held.lease.ttl);
        let mut register = Self { head, children, lease_deadline, emptied: None };
        register.note_emptiness(now);
        register
    }

    /// Does one write, or refuses it and changes nothing. `sequence` must be larger than that of every write before.
    pub(crate) fn apply(
        &mut self,
        now: Instant,
        id: OpId,
        write: Write,
        sequence: u64,
    ) -> (Result<WriteAnswer, Error>, Change) {
        if let Some((_, answer)) = self.head.recent.iter().find(|(known, _)| *known == id) {
            return (Ok(answer.clone()), Change::Nothing);
        }
        let expired = self.expire(now);
        let (answer, change) = match self.change(now, write, sequence) {
            Ok((answer, change)) => (Ok(answer), change),
            Err(error) => (Err(error), Change::Nothing),
        };
        if let Ok(done) = &answer {
            self.remember(id, done, change);
        }
        self.note_emptiness(now);
        let change = if expired && change == Change::Nothing { Change::Head } else { change };
        (answer, change)
    }

    /// Ends a lease whose time is up and tells whether there was one.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let over = self.lease_deadline.is_some_and(|deadline| deadline <= now);
        if over {
            self.head.lease = None;
            self.lease_deadline = None;
            self.note_emptiness(now);
        }
        over
    }

    /// Puts the child back to what it was before `change`.
    pub(crate) fn undo_child(&mut self, child: Vec<u8>, change: Change) {
        match change {
            Change::Added => {
                self.children.remove(&child);
            }
            Change::Removed => {
                self.children.insert(child);
            }
            Change::Nothing | Change::Head => {}
        }
    }

    /// Sets the head back to what it was before a transaction that failed.
    pub(crate) fn undo_head(&mut self, head: Head, now: Instant) {
        if self.head.lease != head.lease {
            self.lease_deadline = head.lease.as_ref().map(|held| now + held.lease.ttl);
        }
        self.head = head;
        self.note_emptiness(now);
    }

    /// The value.
    pub(crate) fn value(&self) -> Option<&Versioned> {
        self.head.value.as_ref()
    }

    /// The set.
    pub(crate) fn children(&self) -> &BTreeSet<Vec<u8>> {
        &self.children
    }

    /// The part that is stored as one row.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// Whether nothing would be lost if the register were dropped.
    pub(crate) fn is_forgettable(&self, now: Instant) -> bool {
        self.emptied.is_some_and(|since| since + limits::RETRY_WINDOW <= now)
    }

    /// When to look at the register again: its lease ends then, or it may be forgotten.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        match (self.lease_deadline, self.emptied) {
            (Some(deadline), _) => Some(deadline),
            (None, Some(since)) => Some(since + limits::RETRY_WINDOW),
            (None, None) => None,
        }
    }

    fn change(&mut self, now: Instant, write: Write, sequence: u64) -> Result<(WriteAnswer, Change), Error> {
        let version = Version(sequence);
        match write {
            Write::Put { value, fence } => {
                check_value(&value)?;
                if let Some(fence) = fence {
                    self.pass(fence)?;
                }
                self.head.value = Some(Versioned { value, version });
                Ok((WriteAnswer::Written(version), Change::Head))
            }
            Write::Delete => match self.head.value.take() {
                Some(_) => Ok((WriteAnswer::Changed(true), Change::Head)),
                None => Ok((WriteAnswer::Changed(false), Change::Nothing)),
            },
            Write::CompareAndSwap { expect, value } => {
                if expect != self.head.value.as_ref().map(|held| held.version) {
                    return Err(Error::Conflict);
                }
                value.as_deref().map_or(Ok(()), check_value)?;
                self.head.value = value.map(|value| Versioned { value, version });
                Ok((WriteAnswer::Written(version), Change::Head))
            }
            Write::Append(child) => {
                if child.len() > limits::CHILD_BYTES {
                    return Err(Error::TooLarge { what: "a child", limit: limits::CHILD_BYTES });
                }
                if self.children.contains(&child) {
                    return Ok((WriteAnswer::Changed(false), Change::Nothing));
                }
                if self.children.len() >= limits::CHILDREN {
                    return Err(Error::TooLarge { what: "the set", limit: limits::CHILDREN });
                }
                self.children.insert(child);
                Ok((WriteAnswer::Changed(true), Change::Added))
            }
            Write::Remove(child) => match self.children.remove(&child) {
                true => Ok((WriteAnswer::Changed(true), Change::Removed)),
                false => Ok((WriteAnswer::Changed(false), Change::Nothing)),
            },
            Write::Acquire { owner, nonce, ttl } => self.acquire(now, owner, nonce, ttl, Token(sequence)),
            Write::Renew(token) => {
                let lease = self.held(token)?;
                self.lease_deadline = Some(now + lease.ttl);
                // A restart gives the whole time again anyway, so a renewal needs no disk.
                Ok((WriteAnswer::Leased(lease), Change::Nothing))
            }
            Write::Release(token) => {
                self.held(token)?;
                self.head.lease = None;
                self.lease_deadline = None;
                Ok((WriteAnswer::Released, Change::Head))
            }
        }
    }

    fn acquire(
        &mut self,
        now: Instant,
        owner: Vec<u8>,
        nonce: u64,
        ttl: Duration,
        token: Token,
    ) -> Result<(WriteAnswer, Change), Error> {
        if owner.len() > limits::KEY_BYTES {
            return Err(Error::TooLarge { what: "a lease's owner", limit: limits::KEY_BYTES });
        }
        let ttl = ttl.min(limits::LEASE_TTL_MAX);
        let (token, stored) = match &self.head.lease {
            Some(held) if held.owner == owner && held.nonce == nonce => (held.lease.token, held.lease.ttl == ttl),
            Some(_) => return Err(Error::Conflict),
            None => (token, false),
        };
        // The holder counts from before it sent this, so the time starts anew for a repeated call, too.
        self.lease_deadline = Some(now + ttl);
        let lease = Lease { token, ttl };
        self.head.lease = Some(Held { owner, nonce, lease });
        Ok((WriteAnswer::Leased(lease), if stored { Change::Nothing } else { Change::Head }))
    }

    fn held(&self, token: Token) -> Result<Lease, Error> {
        match &self.head.lease {
            Some(held) if held.lease.token == token => Ok(held.lease),
            Some(_) | None => Err(Error::Expired),
        }
    }

    /// Lets a write with this fence through unless a later holder of the same lease wrote here before.
    fn pass(&mut self, fence: Fence) -> Result<(), Error> {
        let fences = &mut self.head.fences;
        let full = fences.len() >= limits::FENCES;
        match fences.iter_mut().find(|(lease, _)| *lease == fence.lease) {
            Some((_, highest)) if *highest > fence.token => return Err(Error::StaleFence),
            Some((_, highest)) => *highest = fence.token,
            None if full => {
                return Err(Error::TooLarge { what: "the number of leases that guard one key", limit: limits::FENCES });
            }
            None => fences.push((fence.lease, fence.token)),
        }
        Ok(())
    }

    fn remember(&mut self, id: OpId, answer: &WriteAnswer, change: Change) {
        match (answer, change) {
            // Repeating these gives the same answer by itself, and a repeated acquisition must restart the time.
            (WriteAnswer::Leased(_), _) | (_, Change::Nothing) => {}
            (WriteAnswer::Written(_) | WriteAnswer::Changed(_) | WriteAnswer::Released, _) => {
                if self.head.recent.len() >= limits::RECENT {
                    self.head.recent.pop_front();
                }
                self.head.recent.push_back((id, answer.clone()));
            }
        }
    }

    fn note_emptiness(&mut self, now: Instant) {
        let Head { value, lease, fences, recent: _ } = &self.head;
        let empty = value.is_none() && lease.is_none() && fences.is_empty() && self.children.is_empty();
        self.emptied = if empty { self.emptied.or(Some(now)) } else { None };
    }
}

fn check_value(value: &[u8]) -> Result<(), Error> {
    if value.len() > limits::VALUE_BYTES {
        return Err(Error::TooLarge { what: "a value", limit: limits::VALUE_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
