//! Bounds of configurations.

use super::{Bounded, ensure};
use crate::kv::Config;

impl Bounded for Config {
    fn check(&self) -> Result<(), &'static str> {
        self.version.check()?;
        // A node that has never heard of the slot has no members to tell of.
        ensure(self.is_none() || self.is_sound(), "no slot has such members")?;
        let members = [Some(&self.old), self.new.as_ref(), self.leaving.as_ref()];
        members.into_iter().flatten().flatten().try_for_each(|member| member.since.check())?;
        ensure(self.new.is_none() || self.leaving.is_none(), "a configuration both begins and ends a change")
    }
}
