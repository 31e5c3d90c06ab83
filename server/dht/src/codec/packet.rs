//! Bounds of packets between nodes, and of a node's log.

use super::{Bounded, PEERS_MAX, ensure};
use crate::kv::limits::{CHILD_MAX, CHILDREN_MAX, MEMBERS_MAX, VALUE_MAX};
use crate::kv::{Answer, Refusal};
use crate::{Packet, Part, Record, Reply, Terms};

/// The most parts of a packet: a node speaks of each of its slots at most a few times at once.
const PARTS_MAX: usize = 16 * 1024;

impl Bounded for Packet {
    fn check(&self) -> Result<(), &'static str> {
        let Self { cluster: _, terms, peers, parts } = self;
        terms.check()?;
        ensure(peers.len() <= PEERS_MAX, "a packet names too many machines")?;
        peers.iter().try_for_each(Bounded::check)?;
        ensure(parts.len() <= PARTS_MAX, "a packet has too many parts")?;
        parts.iter().try_for_each(Bounded::check)
    }
}

impl Bounded for Terms {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.is_sane(), "a cluster has too many slots or replicas")
    }
}

impl Bounded for Part {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Ring(message) => message.check(),
            Self::Slot { slot: _, message } => message.check(),
            Self::Ask { freshness: _, request } => request.check(),
            Self::Told { op: _, reply: Ok(reply) } => reply.check(),
            Self::Told { op: _, reply: Err(refusal) } => refusal.check(),
            Self::Pointer { slot: _, version, members } => {
                version.check()?;
                ensure(members.len() <= 2 * MEMBERS_MAX, "a slot has too many members")
            }
            Self::Handed { slot: _, config } => config.check(),
            Self::Understood { slot: _, version } => version.check(),
        }
    }
}

impl Bounded for Reply {
    fn check(&self) -> Result<(), &'static str> {
        let Self { answer, version } = self;
        version.check()?;
        answer.check()
    }
}

impl Bounded for Answer {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Value(Some(value)) => ensure(value.len() <= VALUE_MAX, "a value is too long"),
            Self::Children(children) => {
                ensure(children.len() <= CHILDREN_MAX, "a set has too many children")?;
                ensure(children.iter().all(|child| child.len() <= CHILD_MAX), "a child is too long")
            }
            Self::Granted(token) => super::check_number(*token),
            Self::Done
            | Self::Value(None)
            | Self::Found(_)
            | Self::Conflict
            | Self::Held
            | Self::Expired
            | Self::StaleFence => Ok(()),
        }
    }
}

impl Bounded for Refusal {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Redirect { leader: _, members, version } => {
                version.check()?;
                ensure(members.len() <= 2 * MEMBERS_MAX, "a slot has too many members")
            }
            Self::Busy
            | Self::Unavailable
            | Self::Unknown { .. }
            | Self::Superseded
            | Self::ReadOnly
            | Self::TooLarge => Ok(()),
        }
    }
}

impl Bounded for Record {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Cluster { terms, founder: _ } => terms.check(),
            Self::Slot { slot: _, entry } => entry.check(),
            Self::Remember(peer) => peer.check(),
            Self::Forget(_) => Ok(()),
        }
    }
}
