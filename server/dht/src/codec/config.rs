//! Bounds of configurations.

use super::{Bounded, MEMBERS_MAX, ensure};
use crate::kv::{Config, Member};

impl Bounded for Member {
    fn check(&self) -> Result<(), &'static str> {
        let Self { node: _, since } = self;
        since.check()
    }
}

impl Bounded for Config {
    fn check(&self) -> Result<(), &'static str> {
        let Self { version, old, new, leaving } = self;
        version.check()?;
        // A member that has never heard of the slot has no members to tell of.
        check_side(old)?;
        for side in [new, leaving].into_iter().flatten() {
            ensure(!side.is_empty(), "a side of a configuration is empty")?;
            check_side(side)?;
        }
        ensure(new.is_none() || leaving.is_none(), "a configuration both begins and ends a change")
    }
}

fn check_side(members: &[Member]) -> Result<(), &'static str> {
    ensure(members.len() <= MEMBERS_MAX, "a configuration has too many members")?;
    for (index, member) in members.iter().enumerate() {
        member.check()?;
        let before = members.iter().take(index);
        ensure(before.into_iter().all(|other| other.node != member.node), "a configuration names a member twice")?;
    }
    Ok(())
}
