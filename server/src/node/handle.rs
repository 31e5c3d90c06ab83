//! What everyone above the store holds: asynchronous calls to the store thread, each with a deadline.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    Error, Fence, Key, Lease, OpId, Token, Version, Versioned,
    call::{Call, Request},
    limits,
    register::{Register, Write, WriteAnswer},
};

/// Asks the store. Cheap to clone.
///
/// Every call waits at most [`limits::PATIENCE`], or as long as [`Handle::within`] says. Calls made at the same time are
/// committed together. A call whose future is dropped may still be done.
///
/// # Errors
/// All calls: [`Error::Unavailable`], [`Error::Draining`], and [`Error::TooLarge`] for a key beyond
/// [`limits::KEY_BYTES`]. All calls that change something: [`Error::Unknown`] and [`Error::ReadOnly`].
#[derive(Clone, Debug)]
pub struct Handle {
    calls: mpsc::Sender<Call>,
    patience: Duration,
    repeated: Option<OpId>,
}

impl Handle {
    pub(super) fn new(calls: mpsc::Sender<Call>) -> Self {
        Self { calls, patience: limits::PATIENCE, repeated: None }
    }

    /// The same store, with calls that wait for `patience` at most.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// The same store, to repeat one write that ended with [`Error::Unknown`]: if it was done, its answer comes again
    /// and nothing is changed. Promised for 30 s after the first try.
    #[must_use]
    pub fn repeat(&self, op_id: OpId) -> Self {
        Self { repeated: Some(op_id), ..self.clone() }
    }

    /// Returns the value of a key, as of the last acknowledged write.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn get(&self, key: &Key) -> Result<Option<Versioned>, Error> {
        self.read(key, |register| register.value().cloned()).await
    }

    /// Returns the value of a key, perhaps an older one: for routes, which are checked by using them.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn hint_get(&self, key: &Key) -> Result<Option<Versioned>, Error> {
        self.get(key).await
    }

    /// Sets the value of a key. With a fence, only while no later holder of that lease has written here.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::StaleFence`], and [`Error::TooLarge`] beyond [`limits::VALUE_BYTES`].
    pub async fn put(&self, key: &Key, value: impl Into<Vec<u8>>, fence: Option<Fence>) -> Result<Version, Error> {
        written(self.write(key, Write::Put { value: value.into(), fence }).await?)
    }

    /// Removes the value of a key, and tells whether there was one. Its set and lease stay.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn delete(&self, key: &Key) -> Result<bool, Error> {
        changed(self.write(key, Write::Delete).await?)
    }

    /// Sets (or with `None` removes) the value if it is at version `expect`; `None` there means it must be absent.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Conflict`], and [`Error::TooLarge`] beyond [`limits::VALUE_BYTES`].
    pub async fn compare_and_swap(
        &self,
        key: &Key,
        expect: Option<Version>,
        value: Option<Vec<u8>>,
    ) -> Result<Version, Error> {
        written(self.write(key, Write::CompareAndSwap { expect, value }).await?)
    }

    /// Adds a child to a key's set; `false` means it was there.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::TooLarge`] beyond [`limits::CHILDREN`] or [`limits::CHILD_BYTES`].
    pub async fn set_append(&self, key: &Key, child: impl Into<Vec<u8>>) -> Result<bool, Error> {
        changed(self.write(key, Write::Append(child.into())).await?)
    }

    /// Removes a child from a key's set; `false` means it was not there.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_remove(&self, key: &Key, child: impl Into<Vec<u8>>) -> Result<bool, Error> {
        changed(self.write(key, Write::Remove(child.into())).await?)
    }

    /// Tells whether a child is in a key's set.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_contains(&self, key: &Key, child: impl Into<Vec<u8>>) -> Result<bool, Error> {
        let child = child.into();
        self.read(key, move |register| register.children().contains(&child)).await
    }

    /// Returns a key's set, sorted.
    ///
    /// # Errors
    /// See [`Handle`].
    pub async fn set_list(&self, key: &Key) -> Result<Vec<Vec<u8>>, Error> {
        self.read(key, |register| register.children().iter().cloned().collect()).await
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
        leased(self.write(key, Write::Acquire { owner: owner.into(), nonce, ttl }).await?)
    }

    /// Starts the time of a held lease anew; the token stays.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Expired`].
    pub async fn lease_renew(&self, key: &Key, token: Token) -> Result<Lease, Error> {
        leased(self.write(key, Write::Renew(token)).await?)
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// See [`Handle`]; also [`Error::Expired`] if it is no longer held with this token.
    pub async fn lease_release(&self, key: &Key, token: Token) -> Result<(), Error> {
        match self.write(key, Write::Release(token)).await? {
            WriteAnswer::Released => Ok(()),
            WriteAnswer::Written(_) | WriteAnswer::Changed(_) | WriteAnswer::Leased(_) => Err(Error::Conflict),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        key: &Key,
        question: impl FnOnce(&Register) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + self.patience;
        let (reply, answer) = oneshot::channel();
        let request = Request::Read(Box::new(move |register| {
            // Whoever asked may have given up.
            reply.send(register.map(question)).ok();
        }));
        self.send(key, request, deadline).await?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable),
        }
    }

    async fn write(&self, key: &Key, write: Write) -> Result<WriteAnswer, Error> {
        let deadline = Instant::now() + self.patience;
        let op_id = match self.repeated {
            Some(op_id) => op_id,
            None => OpId::draw()?,
        };
        let (reply, answer) = oneshot::channel();
        self.send(key, Request::Write { op_id, write, reply }, deadline).await?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Error::Unknown { op_id }),
        }
    }

    async fn send(&self, key: &Key, request: Request, deadline: Instant) -> Result<(), Error> {
        if key.as_bytes().len() > limits::KEY_BYTES {
            return Err(Error::TooLarge { what: "a key", limit: limits::KEY_BYTES });
        }
        let call = Call { key: key.clone(), request, deadline: deadline.into_std() };
        match timeout_at(deadline, self.calls.send(call)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::Draining),
            Err(_) => Err(Error::Unavailable),
        }
    }
}

// An answer of another kind means that a repeated id named another write.

fn written(answer: WriteAnswer) -> Result<Version, Error> {
    match answer {
        WriteAnswer::Written(version) => Ok(version),
        WriteAnswer::Changed(_) | WriteAnswer::Leased(_) | WriteAnswer::Released => Err(Error::Conflict),
    }
}

fn changed(answer: WriteAnswer) -> Result<bool, Error> {
    match answer {
        WriteAnswer::Changed(changed) => Ok(changed),
        WriteAnswer::Written(_) | WriteAnswer::Leased(_) | WriteAnswer::Released => Err(Error::Conflict),
    }
}

fn leased(answer: WriteAnswer) -> Result<Lease, Error> {
    match answer {
        WriteAnswer::Leased(lease) => Ok(lease),
        WriteAnswer::Written(_) | WriteAnswer::Changed(_) | WriteAnswer::Released => Err(Error::Conflict),
    }
}
