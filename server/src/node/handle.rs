//! What everyone above the store holds: asynchronous calls to the core, each with a deadline.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use specter_dht::{
    Ask, Freshness,
    kv::{self, Answer, Operation},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Error, Fence, Key, Lease, Token, limits,
    mailbox::{Call, Look, Mailbox},
    status::RingStatus,
};

/// Asks the store. Cheap to clone.
///
/// Every call waits at most [`limits::PATIENCE`], or as long as [`Handle::within`] says. A call is tried again until then,
/// and still takes effect once at most. A call whose future is dropped may still be done.
///
/// # Errors
/// All calls: [`Error::Unavailable`], [`Error::Draining`], and [`Error::TooLarge`] for a key beyond
/// [`limits::KEY_BYTES`]. All calls that change something: [`Error::Unknown`] and [`Error::ReadOnly`].
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: Arc<Mailbox>,
    patience: Duration,
}

/// The core says itself when a call's time is over; only a core that stands still is not waited for beyond this.
const GRACE: Duration = Duration::from_secs(1);

impl Handle {
    pub(super) const fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox, patience: limits::PATIENCE }
    }

    /// The same store, with calls that wait for `patience` at most.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Other nodes may be found there from now on, in place of where they were said to be before; at most
    /// [`limits::SEEDS`] count.
    pub fn seeds_are(&self, mut seeds: Vec<SocketAddr>) {
        seeds.truncate(limits::SEEDS);
        self.mailbox.seeds(seeds);
    }

    /// What the ring and the slots look like from here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when too many ask, or the core has ended.
    pub async fn ring_status(&self) -> Result<RingStatus, Error> {
        self.look(false).await
    }

    /// Goes on alone with the slots that are stranded ([`SlotStatus::stranded`](super::SlotStatus::stranded)), and tells how
    /// all looked before. What was acknowledged without this node is lost, and the members that are gone must never come
    /// back with the directories that they had.
    ///
    /// # Errors
    /// As [`Handle::ring_status`]; whether it was done then shows in the next status.
    pub async fn go_on_alone(&self) -> Result<RingStatus, Error> {
        self.look(true).await
    }

    async fn look(&self, forces: bool) -> Result<RingStatus, Error> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.look(Look { forces, reply });
        match timeout_at(Instant::now() + GRACE, answer).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable),
        }
    }

    /// Returns the value of a key, as of the last acknowledged write.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        valued(self.ask(key, Operation::Get, Freshness::Linearizable).await?)
    }

    /// Returns the value of a key, perhaps an older one, as any one replica has it: for routes, which are checked by using
    /// them. It is to be had when a majority of the replicas is out of reach.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn hint_get(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        valued(self.ask(key, Operation::Get, Freshness::Hint).await?)
    }

    /// Sets the value of a key. With a fence, only while no later holder of that lease has written here.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::StaleFence`], and [`Error::TooLarge`] beyond [`limits::VALUE_BYTES`].
    pub async fn put(&self, key: &Key, value: impl Into<Vec<u8>>, fence: Option<Fence>) -> Result<(), Error> {
        let value = value.into();
        within_limit("a value", value.len(), limits::VALUE_BYTES)?;
        let fence = fence.map(|Fence { lease, token }| kv::Fence { lease_key: lease.0, token: token.0 });
        done(self.write(key, Operation::Put { value, fence }).await?)
    }

    /// Removes the value and the set of a key. Its lease stays.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn delete(&self, key: &Key) -> Result<(), Error> {
        done(self.write(key, Operation::Delete).await?)
    }

    /// Sets (or with `None` removes) the value if it is `expected`; `None` there means it must be absent.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Conflict`], and [`Error::TooLarge`] beyond [`limits::VALUE_BYTES`].
    pub async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        within_limit("a value", new.as_ref().map_or(0, Vec::len), limits::VALUE_BYTES)?;
        done(self.write(key, Operation::CompareAndSwap { expected, new }).await?)
    }

    /// Adds a child to a key's set; `false` means it was there.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::TooLarge`] beyond [`limits::CHILDREN`] or [`limits::CHILD_BYTES`].
    pub async fn set_append(&self, key: &Key, child: impl Into<Vec<u8>>) -> Result<bool, Error> {
        let child = child.into();
        within_limit("a child", child.len(), limits::CHILD_BYTES)?;
        found(self.write(key, Operation::Append(child)).await?).map(|was_there| !was_there)
    }

    /// Removes a child from a key's set; `false` means it was not there.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_remove(&self, key: &Key, child: impl Into<Vec<u8>>) -> Result<bool, Error> {
        found(self.write(key, Operation::Remove(child.into())).await?)
    }

    /// Tells whether a child is in a key's set.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_contains(&self, key: &Key, child: impl Into<Vec<u8>>) -> Result<bool, Error> {
        found(self.ask(key, Operation::Contains(child.into()), Freshness::Linearizable).await?)
    }

    /// Returns a key's set, sorted.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_list(&self, key: &Key) -> Result<Vec<Vec<u8>>, Error> {
        listed(self.ask(key, Operation::List, Freshness::Linearizable).await?)
    }

    /// Returns a key's set, sorted, perhaps an older one, as any one replica has it; see [`Handle::hint_get`].
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn hint_list(&self, key: &Key) -> Result<Vec<Vec<u8>>, Error> {
        listed(self.ask(key, Operation::List, Freshness::Hint).await?)
    }

    /// Takes the lease of a key if it is free. The same owner with the same nonce gets the same token again, with its
    /// time started anew. `ttl` is cut to [`limits::LEASE_TTL_MAX`].
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Conflict`] while somebody else holds it.
    pub async fn lease_acquire(
        &self,
        key: &Key,
        owner: impl Into<Vec<u8>>,
        nonce: u64,
        ttl: Duration,
    ) -> Result<Lease, Error> {
        let (owner, ttl) = (owner.into(), ttl.min(limits::LEASE_TTL_MAX));
        match self.write(key, Operation::Acquire { owner, nonce, ttl }).await? {
            Answer::Granted(token) => Ok(Lease { token: Token(token), ttl }),
            other => Err(refused(other)),
        }
    }

    /// Starts the time of a held lease anew; the token stays.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Expired`].
    pub async fn lease_renew(&self, key: &Key, token: Token) -> Result<(), Error> {
        done(self.write(key, Operation::Renew { token: token.0 }).await?)
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Expired`] if it is no longer held with this token.
    pub async fn lease_release(&self, key: &Key, token: Token) -> Result<(), Error> {
        done(self.write(key, Operation::Release { token: token.0 }).await?)
    }

    async fn write(&self, key: &Key, operation: Operation) -> Result<Answer, Error> {
        self.ask(key, operation, Freshness::Linearizable).await
    }

    async fn ask(&self, key: &Key, operation: Operation, freshness: Freshness) -> Result<Answer, Error> {
        within_limit("a key", key.as_bytes().len(), limits::KEY_BYTES)?;
        let is_read = operation.is_read();
        let (reply, answer) = oneshot::channel();
        let ask = Ask { key: key.as_bytes().to_vec(), operation, freshness, patience: self.patience };
        self.mailbox.call(Call { ask, reply })?;
        match timeout_at(Instant::now() + self.patience + GRACE, answer).await {
            Ok(Ok(reply)) => reply.map(|reply| reply.answer),
            Ok(Err(_)) | Err(_) => Err(if is_read { Error::Unavailable } else { Error::Unknown }),
        }
    }
}

fn within_limit(what: &'static str, size: usize, limit: usize) -> Result<(), Error> {
    if size > limit { Err(Error::TooLarge { what, limit }) } else { Ok(()) }
}

fn valued(answer: Answer) -> Result<Option<Vec<u8>>, Error> {
    match answer {
        Answer::Value(value) => Ok(value),
        other => Err(refused(other)),
    }
}

fn listed(answer: Answer) -> Result<Vec<Vec<u8>>, Error> {
    match answer {
        Answer::Children(children) => Ok(children),
        other => Err(refused(other)),
    }
}

fn found(answer: Answer) -> Result<bool, Error> {
    match answer {
        Answer::Found(found) => Ok(found),
        other => Err(refused(other)),
    }
}

fn done(answer: Answer) -> Result<(), Error> {
    match answer {
        Answer::Done => Ok(()),
        other => Err(refused(other)),
    }
}

/// The error that an answer stands for. The core answers each operation with its own kind, so the last line is for a node
/// of another version.
fn refused(answer: Answer) -> Error {
    match answer {
        Answer::Conflict | Answer::Held => Error::Conflict,
        Answer::Expired => Error::Expired,
        Answer::StaleFence => Error::StaleFence,
        Answer::Done | Answer::Value(_) | Answer::Found(_) | Answer::Children(_) | Answer::Granted(_) => {
            Error::Unavailable
        }
    }
}
