//! Bounds of what nodes say to each other about a slot.

use super::{Bounded, check_key, check_number};
use crate::kv::{Message, Report};

impl Bounded for Message {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Prepare { ballot } => ballot.check(),
            Self::Promise { ballot, report } => {
                ballot.check()?;
                report.check()
            }
            Self::Nack { ballot, promised, config, chosen: _ } => {
                ballot.check()?;
                promised.check()?;
                config.check()
            }
            Self::Accept { ballot, key, version, register, config } => {
                ballot.check()?;
                check_key(key)?;
                version.check()?;
                register.check()?;
                config.check()
            }
            Self::Accepted { ballot, key, version } | Self::Purge { ballot, key, version } => {
                ballot.check()?;
                check_key(key)?;
                version.check()
            }
            Self::AcceptConfig { ballot, config } => {
                ballot.check()?;
                config.check()
            }
            Self::ConfigAccepted { ballot, version } => {
                ballot.check()?;
                version.check()
            }
            Self::Confirm { ballot, round } => {
                ballot.check()?;
                check_number(*round)
            }
            Self::Confirmed { ballot, round, known } => {
                ballot.check()?;
                check_number(*round)?;
                known.check()
            }
            Self::Learn { config } => config.check(),
        }
    }
}

impl Bounded for Report {
    fn check(&self) -> Result<(), &'static str> {
        let Self { config, chosen: _, tenure, mark, registers } = self;
        config.check()?;
        tenure.check()?;
        mark.check()?;
        registers.iter().try_for_each(|(key, (version, register))| {
            check_key(key)?;
            version.check()?;
            register.check()
        })
    }
}
