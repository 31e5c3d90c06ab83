//! Bounds of what nodes say to each other about a slot. Whether the sender may say it is for the slot to judge.

use super::{Bounded, check_key, check_number, check_seq, ensure};
use crate::kv::limits::KEYS_MAX;
use crate::kv::{Digest, Message, Report};
use crate::{Ballot, Version};

impl Bounded for Message {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Prepare { ballot, config, instead_of } => {
                ballot.check()?;
                config.check()?;
                instead_of.check()
            }
            Self::Promise { ballot, report } => {
                ballot.check()?;
                report.check()
            }
            Self::Fetch { ballot, after } | Self::List { ballot, after } => {
                ballot.check()?;
                after.as_ref().map_or(Ok(()), check_key)
            }
            Self::Held { ballot, tenure, after, registers, more: _ } => {
                ballot.check()?;
                tenure.check()?;
                after.as_ref().map_or(Ok(()), check_key)?;
                registers.iter().try_for_each(|(key, version, register)| {
                    check_key(key)?;
                    check_written_by(*ballot, *version)?;
                    register.check()
                })
            }
            Self::Nack { ballot, promised, config, chosen: _ } => {
                ballot.check()?;
                promised.check()?;
                config.check()
            }
            Self::Accept { ballot, key, version, register, config } => {
                ballot.check()?;
                check_key(key)?;
                check_written_by(*ballot, *version)?;
                register.check()?;
                check_written_by(*ballot, *config)
            }
            Self::Accepted { ballot, key, version } | Self::Purge { ballot, key, version } => {
                ballot.check()?;
                check_key(key)?;
                check_written_by(*ballot, *version)
            }
            Self::Behind { ballot, key } => {
                ballot.check()?;
                check_key(key)
            }
            Self::AcceptConfig { ballot, config } => {
                ballot.check()?;
                config.check()?;
                check_written_by(*ballot, config.version)
            }
            Self::ConfigAccepted { ballot, version } => {
                ballot.check()?;
                version.check()
            }
            Self::Confirm { ballot, round } => {
                ballot.check()?;
                check_number(*round)
            }
            Self::Confirmed { ballot, round, known, full: _, digest } => {
                ballot.check()?;
                check_number(*round)?;
                known.check()?;
                digest.check()
            }
            Self::Listed { ballot, after, versions, more: _ } => {
                ballot.check()?;
                after.as_ref().map_or(Ok(()), check_key)?;
                versions.iter().try_for_each(|(key, version)| {
                    check_key(key)?;
                    check_written_by(*ballot, *version)
                })
            }
            Self::Full { ballot } | Self::Succeed { ballot } => ballot.check(),
            Self::Learn { config } => config.check(),
        }
    }
}

/// A leader writes nothing that is newer than itself: a member that took it would refuse all that comes after.
fn check_written_by(ballot: Ballot, version: Version) -> Result<(), &'static str> {
    version.check()?;
    ensure(version.ballot <= ballot, "a leader writes in the name of a later one")
}

impl Bounded for Report {
    fn check(&self) -> Result<(), &'static str> {
        let Self { config, chosen: _, tenure, mark, seq, digest } = self;
        config.check()?;
        tenure.check()?;
        mark.check()?;
        check_seq(*seq)?;
        digest.check()
    }
}

impl Bounded for Digest {
    fn check(&self) -> Result<(), &'static str> {
        let Self { keys, hash: _ } = self;
        ensure(*keys <= KEYS_MAX, "a member holds more keys than a slot has")
    }
}
