//! Bounds of registers and of log records.

use std::time::Duration;

use super::{Bounded, CHILDREN_MAX, KEY_MAX, REGISTER_MAX, check_key, check_number, check_value, ensure};
use crate::kv::limits::REMEMBERED_MAX;
use crate::kv::register::Remembered;
use crate::kv::{Answer, Entry, Lease, Meta, Register};

/// The shortest and the longest lease: one that is shorter would end before its owner hears of it, and one that is
/// longer outlives every task that it guards.
const LEASE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));

impl Bounded for Register {
    fn check(&self) -> Result<(), &'static str> {
        let Self { value, set, lease, fences, recent } = self;
        let mut bytes = 0;
        if let Some(value) = value {
            check_value(value)?;
            bytes += value.len();
        }
        ensure(set.len() <= CHILDREN_MAX, "a set has too many children")?;
        for child in set {
            check_value(child)?;
            bytes += child.len();
        }
        if let Some(lease) = lease {
            lease.check()?;
            bytes += lease.owner.len();
        }
        ensure(fences.len() <= CHILDREN_MAX, "a register has too many fences")?;
        for (lease_key, token) in fences {
            check_key(lease_key)?;
            check_number(*token)?;
            bytes += lease_key.len();
        }
        ensure(bytes <= REGISTER_MAX, "a register is too large")?;
        ensure(recent.len() <= REMEMBERED_MAX, "a register remembers too many clients")?;
        recent.iter().try_for_each(Remembered::check)
    }
}

impl Bounded for Lease {
    fn check(&self) -> Result<(), &'static str> {
        let Self { owner, nonce: _, ttl, token } = self;
        check_owner(owner)?;
        check_ttl(*ttl)?;
        check_number(*token)
    }
}

impl Bounded for Remembered {
    fn check(&self) -> Result<(), &'static str> {
        let Self { op: _, answer } = self;
        match answer {
            Answer::Granted(token) => check_number(*token),
            Answer::Value(_) | Answer::Children(_) => Err("a register remembers what was read, which it never does"),
            Answer::Done
            | Answer::Found(_)
            | Answer::Conflict
            | Answer::Held
            | Answer::Expired
            | Answer::StaleFence => Ok(()),
        }
    }
}

impl Bounded for Entry {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Promise(ballot) => ballot.check(),
            Self::Accept { key, version, register } => {
                check_key(key)?;
                version.check()?;
                register.check()
            }
            Self::Config { config, chosen: _ } => config.check(),
            Self::Lost { key, version } | Self::Purge { key, version } => {
                check_key(key)?;
                version.check()
            }
        }
    }
}

impl Bounded for Meta {
    fn check(&self) -> Result<(), &'static str> {
        let Self { promise, config, chosen: _, tenure, lost, seq, mark } = self;
        lost.iter().try_for_each(|(key, version)| {
            check_key(key)?;
            version.check()
        })?;
        promise.check()?;
        config.check()?;
        tenure.check()?;
        check_number(*seq)?;
        mark.check()
    }
}

pub(super) fn check_owner(owner: &[u8]) -> Result<(), &'static str> {
    ensure(owner.len() <= KEY_MAX, "the name of a lease's owner is too long")
}

pub(super) fn check_ttl(ttl: Duration) -> Result<(), &'static str> {
    ensure((LEASE.0..=LEASE.1).contains(&ttl), "a lease is too short or too long")
}
