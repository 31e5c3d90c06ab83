//! The ring: who comes after whom, and how to find who stands where (`ring.md` §3).
//!
//! Zave's correct Chord, with a successor list of [`Settings::successors`] distinct machines for each virtual node, so
//! that in a small cluster everybody knows everybody. It decides who *should* keep a slot and finds who does; it never
//! decides who *may* answer. A wrong ring costs time, never data.

mod message;
mod settings;

pub use message::{Hop, Message, Place};
pub use settings::Settings;

use std::net::SocketAddr;

use crate::{NodeId, Peer};

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To a known machine, at this address.
    Node(NodeId, SocketAddr),
    /// To whoever answers at this address.
    Address(SocketAddr),
}

/// What a ring wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message.
    Transmit {
        /// To whom.
        to: Destination,
        /// What.
        message: Message,
    },
    /// A lookup has come to its end.
    Found {
        /// The number it was begun with.
        token: u64,
        /// The first distinct machines clockwise from the target, the owner first, this node among them; nothing when no
        /// one answered in time.
        machines: Option<Vec<Peer>>,
    },
    /// Keep this row of the peer book on the disk, in place of an earlier one of the same machine.
    Remember(Peer),
    /// Drop the row of this machine.
    Forget(NodeId),
    /// This node has become a member of the ring.
    Joined,
    /// The neighbourhood is another one: what was computed from it may be out of date.
    Changed,
}

/// Placeholder until the ring is merged.
#[derive(Debug)]
pub struct Ring;
#[allow(missing_docs, unused_variables)]
impl Ring {
    pub fn new(
        me: Peer,
        create: bool,
        settings: Settings,
        random: crate::Random,
        now: crate::Instant,
        book: impl IntoIterator<Item = Peer>,
        seeds: Vec<SocketAddr>,
    ) -> Self {
        Self
    }
    pub fn receive(&mut self, now: crate::Instant, from: NodeId, message: Message) {}
    pub fn tick(&mut self, now: crate::Instant) {}
    pub fn deadline(&self) -> crate::Instant {
        crate::Instant::FAR
    }
    pub fn poll(&mut self) -> Option<Output> {
        None
    }
    pub fn lookup(&mut self, now: crate::Instant, token: u64, target: crate::Point, until: crate::Instant) {}
    pub fn owners(&self, target: crate::Point, count: usize) -> Option<Vec<Peer>> {
        None
    }
    pub fn contact(&self, node: NodeId) -> Option<&Peer> {
        None
    }
    pub fn introduce(&mut self, now: crate::Instant, peer: Peer) {}
    pub fn unreachable(&mut self, now: crate::Instant, node: NodeId) {}
    pub fn leave(&mut self, now: crate::Instant) {}
    pub fn is_member(&self) -> bool {
        false
    }
    pub fn neighbours(&self) -> impl Iterator<Item = &Peer> {
        std::iter::empty()
    }
}
