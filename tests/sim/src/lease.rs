//! What must hold of leases: their tokens grow, no two clients count on one at a time, and writes under them keep order.

use std::collections::BTreeMap;

use specter_dht::kv::{Answer, Key, Operation};

use crate::Violation;

/// Of a lease's time, the share its holder counts on, in percent: clocks run at most five percent fast or slow.
const HOLD_PERCENT: u64 = 88;

#[derive(Debug)]
struct Grant {
    token: u64,
    owner: u64,
    ttl_micros: u64,
    /// Until when the holder counts on it, in true time.
    until: u64,
}

/// The leases that were seen so far.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// The newest grants of each lease, and the highest token of all by the time it was answered.
    grants: BTreeMap<Key, Grant>,
    fences: BTreeMap<Key, (u64, u64)>,
    tokens: BTreeMap<Key, (u64, u64)>,
    /// Whether clocks leap in this world: then a lease may end before its holder thinks so, and only its token counts.
    clocks_leap: bool,
}

impl Leases {
    /// In a world whose clocks leap, or do not.
    pub(crate) fn new(clocks_leap: bool) -> Self {
        Self { clocks_leap, ..Self::default() }
    }

    /// A client gives a lease back: from now on it does not count on it.
    pub(crate) fn releasing(&mut self, key: &Key, token: u64, time: u64) {
        if let Some(grant) = self.grants.get_mut(key).filter(|grant| grant.token == token) {
            grant.until = grant.until.min(time);
        }
    }

    /// A client has an answer about a lease, or about a write under one.
    pub(crate) fn answered(
        &mut self,
        owner: u64,
        key: &Key,
        operation: &Operation,
        answer: &Answer,
        (called, time): (u64, u64),
    ) -> Result<(), Violation> {
        if let (Operation::Acquire { ttl, .. }, Answer::Granted(token)) = (operation, answer) {
            // The operation may have been done by its first copy, so its time counts from the first.
            let ttl_micros = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
            let until = called + ttl_micros * HOLD_PERCENT / 100;
            return self.granted(key, Grant { token: *token, owner, ttl_micros, until }, called, time);
        }
        if let (Operation::Renew { token }, Answer::Done) = (operation, answer)
            && let Some(grant) = self.grants.get_mut(key).filter(|grant| grant.token == *token)
        {
            grant.until = grant.until.max(called + grant.ttl_micros * HOLD_PERCENT / 100);
        }
        if let (Operation::Put { fence: Some(fence), .. }, Answer::Done) = (operation, answer) {
            let (highest, at) = self.fences.entry(key.clone()).or_default();
            if *at < called && fence.token < *highest {
                let text = format!("a write under token {} follows one under {highest}", fence.token);
                return Err(Violation::StaleFence(text));
            }
            if fence.token > *highest {
                (*highest, *at) = (fence.token, time);
            }
        }
        Ok(())
    }

    fn granted(&mut self, key: &Key, grant: Grant, called: u64, time: u64) -> Result<(), Violation> {
        let (token, owner, until) = (grant.token, grant.owner, grant.until);
        if let Some((highest, at)) = self.tokens.get(key)
            && *at < called
            && token <= *highest
        {
            return Err(Violation::TokenFell(format!("token {token} of {key:?} follows {highest}")));
        }
        let other = self.grants.get(key).filter(|other| other.owner != owner && other.until > time);
        if let Some(other) = other.filter(|_| until > time && !self.clocks_leap) {
            let (first, ends) = (other.owner, other.until);
            let text = format!("client {first} holds {key:?} until {ends}, client {owner} from {time}");
            return Err(Violation::TwoHolders(text));
        }
        if self.tokens.get(key).is_none_or(|(highest, _)| token > *highest) {
            self.tokens.insert(key.clone(), (token, time));
            self.grants.insert(key.clone(), grant);
        }
        Ok(())
    }
}
