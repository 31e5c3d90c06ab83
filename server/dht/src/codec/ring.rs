//! Bounds of machines, and of what they say to each other about the ring.

use super::{Bounded, PEERS_MAX, check_number, ensure};
use crate::ring::{Hop, Message, Place};
use crate::{Peer, Point, SEATS_MAX};

impl Bounded for Point {
    fn check(&self) -> Result<(), &'static str> {
        ensure(self.number() < Self::AROUND, "a point lies beyond the end of the ring")
    }
}

impl Bounded for Peer {
    fn check(&self) -> Result<(), &'static str> {
        let Self { id: _, incarnation, address: _, seats, leaving: _ } = self;
        check_number(*incarnation)?;
        ensure((1..=SEATS_MAX).contains(seats), "a machine has no seat on the ring, or too many")
    }
}

impl Bounded for Place {
    fn check(&self) -> Result<(), &'static str> {
        let Self { peer, point } = self;
        peer.check()?;
        ensure(peer.points().any(|own| own == *point), "a machine is said to stand where it does not")
    }
}

impl Bounded for Hop {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Found(peers) => check_peers(peers),
            Self::Nearer { before, beyond } => {
                check_peers(before)?;
                check_peers(beyond)
            }
            Self::Outside => Ok(()),
        }
    }
}

impl Bounded for Message {
    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Ask { from, to, number: _, known: _ } => {
                from.check()?;
                to.check()
            }
            Self::Tell { from, number: _, predecessor, successors } => {
                from.check()?;
                predecessor.check()?;
                successors.as_ref().map_or(Ok(()), |peers| check_peers(peers))
            }
            Self::Introduce { from, peer } => {
                from.check()?;
                peer.check()
            }
            Self::Step { from, number: _, target } => {
                from.check()?;
                target.check()
            }
            Self::Stepped { from, number: _, hop } => {
                from.check()?;
                hop.check()
            }
            Self::Greet { from } | Self::Farewell { from } => from.check(),
            Self::Greeted { from, peers } => {
                from.check()?;
                check_peers(peers)
            }
        }
    }
}

fn check_peers(peers: &[Peer]) -> Result<(), &'static str> {
    ensure(peers.len() <= PEERS_MAX, "a list names too many machines")?;
    peers.iter().try_for_each(Peer::check)
}
