//! What a node knows of another machine.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{NodeId, Point};

/// The most virtual nodes of one machine.
pub const SEATS_MAX: u8 = 8;

/// A machine: who it is, where to reach it, and how many places on the ring it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Who.
    pub id: NodeId,
    /// Which of its lives: grows with every start. What is said of an earlier life is ignored.
    pub incarnation: u64,
    /// Where it listens to other nodes.
    pub address: SocketAddr,
    /// How many virtual nodes it has, from one to [`SEATS_MAX`]; where they stand follows from its identity.
    pub seats: u8,
    /// Whether it is about to go: it still answers, but nothing new is given to it.
    pub leaving: bool,
}

impl Peer {
    /// Where its virtual nodes stand.
    pub fn points(&self) -> impl Iterator<Item = Point> + use<> {
        let id = self.id;
        (0..self.seats.clamp(1, SEATS_MAX)).map(move |seat| Point::of_node(id, seat))
    }

    /// The first of its points clockwise after `from`, and how far that is; its point at `from` itself counts as once
    /// around.
    pub fn first_after(&self, from: Point) -> (u64, Point) {
        let once_around = |distance: u64| if distance == 0 { Point::AROUND } else { distance };
        let ahead = self.points().map(|point| (once_around(from.distance_to(point)), point));
        ahead.min().unwrap_or((Point::AROUND, from))
    }

    /// How far it is clockwise from `target` to the first of its points at it or after it.
    pub fn first_from(&self, target: Point) -> u64 {
        self.points().map(|point| target.distance_to(point)).min().unwrap_or(Point::AROUND)
    }

    /// How far the last of its points before `here` is from there; its point at `here` itself counts as once around.
    pub fn last_before(&self, here: Point) -> u64 {
        let behind = self.points().map(|point| point.distance_to(here)).filter(|distance| *distance != 0);
        behind.min().unwrap_or(Point::AROUND)
    }

    /// How far the last of its points at `target` or before it is from there.
    pub fn last_from(&self, target: Point) -> u64 {
        self.points().map(|point| point.distance_to(target)).min().unwrap_or(Point::AROUND)
    }

    /// Whether one of its virtual nodes stands there.
    pub fn stands_at(&self, here: Point) -> bool {
        self.points().any(|point| point == here)
    }

    /// Whether there can be such a machine at all.
    pub const fn is_sound(&self) -> bool {
        self.seats >= 1 && self.seats <= SEATS_MAX
    }
}
