//! Every size and count that bounds a slot, and who is held to them: what a client asks beyond them is refused as
//! [`Refusal::TooLarge`](crate::kv::Refusal::TooLarge), what a peer says beyond them is dropped and counted.

use std::time::Duration;

use crate::Version;
use crate::kv::config::Member;
use crate::kv::{Config, Key, Operation, Request};

/// The longest key, in bytes.
pub const KEY_MAX: usize = 512;
/// The longest value, in bytes.
pub const VALUE_MAX: usize = 64 << 10;
/// The longest child of a set, in bytes.
pub const CHILD_MAX: usize = 512;
/// The most children of a set.
pub const CHILDREN_MAX: usize = 4096;
/// The most that one key holds, in bytes as counted in messages.
pub const REGISTER_MAX: usize = 256 << 10;
/// The longest name of a lease's owner, in bytes.
pub const OWNER_MAX: usize = 128;
/// The shortest time of a lease.
pub const LEASE_SHORTEST: Duration = Duration::from_millis(100);
/// The longest time of a lease.
pub const LEASE_LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The most leases under which one key may have been written.
pub const FENCES_MAX: usize = 16;
/// How many clients a register remembers; whoever has been quiet longest is forgotten first.
pub const REMEMBERED_MAX: usize = 64;
/// The most keys of a slot.
pub const KEYS_MAX: u64 = 1 << 20;
/// The most members on one side of a configuration.
pub const MEMBERS_MAX: usize = 9;
/// The most nodes one candidate asks.
pub const ASKED_MAX: usize = 64;
/// How far a ballot's counter may be above the highest one promised.
pub const COUNTER_JUMP_MAX: u32 = 1 << 24;
/// The highest place in a slot's order of writes: a leader that gets there stops.
pub const SEQ_MAX: u64 = 1 << 56;
/// How many bytes may wait for the disk, of entries and of messages that rest on them, before a member takes no more.
pub const BACKLOG_MAX: usize = 64 << 20;

impl Request {
    /// Whether it keeps to the limits as far as that can be said without looking at the key.
    pub(crate) fn fits(&self) -> bool {
        let value = |value: &Option<Vec<u8>>| value.as_ref().is_none_or(|value| value.len() <= VALUE_MAX);
        let operation = match &self.operation {
            Operation::Put { value, fence } => {
                value.len() <= VALUE_MAX && fence.as_ref().is_none_or(|fence| fence.lease_key.len() <= KEY_MAX)
            }
            Operation::CompareAndSwap { expected, new } => value(expected) && value(new),
            Operation::Append(child) | Operation::Remove(child) | Operation::Contains(child) => {
                child.len() <= CHILD_MAX
            }
            Operation::Acquire { owner, ttl, .. } => {
                owner.len() <= OWNER_MAX && (LEASE_SHORTEST..=LEASE_LONGEST).contains(ttl)
            }
            Operation::Get
            | Operation::Delete
            | Operation::List
            | Operation::Renew { .. }
            | Operation::Release { .. } => true,
        };
        self.key.len() <= KEY_MAX && operation
    }
}

impl Config {
    /// Whether it can be one: each side has some members, not too many, and nobody twice.
    pub fn is_sound(&self) -> bool {
        let side = |members: &Vec<Member>| {
            let alone = |member: &Member| members.iter().filter(|other| other.node == member.node).count() == 1;
            (1..=MEMBERS_MAX).contains(&members.len())
                && members.iter().all(|member| alone(member) && member.since <= self.version)
        };
        let sides = std::iter::once(&self.old).chain(&self.new).chain(&self.leaving);
        is_sound(self.version) && sides.into_iter().all(side)
    }

    /// Whether it is what a node has that never heard of the slot.
    pub(crate) fn is_none(&self) -> bool {
        self.old.is_empty() && self.new.is_none() && self.leaving.is_none() && self.version == Version::default()
    }
}

/// Whether a version can be one.
pub(crate) const fn is_sound(version: Version) -> bool {
    version.seq <= SEQ_MAX
}

/// Whether a key can be one.
pub(crate) const fn is_key(key: &Key) -> bool {
    key.len() <= KEY_MAX
}
