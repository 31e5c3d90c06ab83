//! Bounds of registers and of log records.

use super::{Bounded, check_key, check_seq, ensure};
use crate::kv::register::{Outcome, Remembered};
use crate::kv::{Entry, Meta, Register};

impl Bounded for Register {
    fn check(&self) -> Result<(), &'static str> {
        let Self { value: _, set: _, lease, fences, recent } = self;
        ensure(self.fits(), "a register is too large, or its lease too short or too long")?;
        lease.as_ref().map_or(Ok(()), |lease| check_seq(lease.token))?;
        fences.values().try_for_each(|token| check_seq(*token))?;
        recent.iter().try_for_each(Remembered::check)
    }
}

impl Bounded for Remembered {
    fn check(&self) -> Result<(), &'static str> {
        let Self { op: _, outcome } = self;
        match outcome {
            Outcome::Granted(token) => check_seq(*token),
            Outcome::Done
            | Outcome::Found(_)
            | Outcome::Conflict
            | Outcome::Held
            | Outcome::Expired
            | Outcome::StaleFence => Ok(()),
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
            Self::Purge { key, version } | Self::Lost { key, version } => {
                check_key(key)?;
                version.check()
            }
        }
    }
}

impl Bounded for Meta {
    fn check(&self) -> Result<(), &'static str> {
        let Self { promise, config, chosen: _, tenure, lost, seq, mark } = self;
        promise.check()?;
        config.check()?;
        tenure.check()?;
        lost.iter().try_for_each(|(key, version)| {
            check_key(key)?;
            version.check()
        })?;
        check_seq(*seq)?;
        mark.check()
    }
}
