//! Points of the ring, and what lies between them.

use std::fmt;

use serde::{Deserialize, Serialize};
use specter_wire::point;

use crate::NodeId;

/// A point of the ring: 48 bits, clockwise from zero, and after the last zero again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point(u64);

impl Point {
    /// Bits of its number.
    pub const BITS: u32 = point::BITS;
    /// Once around the ring.
    pub const AROUND: u64 = 1 << point::BITS;

    /// The point with this number, modulo 2^48.
    pub const fn new(number: u64) -> Self {
        Self(number & point::LAST)
    }

    /// Where a key stands.
    pub fn of_key(key: &[u8]) -> Self {
        Self(point::of_key(key))
    }

    /// Where a virtual node stands.
    pub fn of_node(node: NodeId, seat: u8) -> Self {
        Self(point::of_node(node.0, seat))
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// How far it is clockwise to the other point: zero to itself.
    pub const fn distance_to(self, other: Self) -> u64 {
        other.0.wrapping_sub(self.0) & point::LAST
    }

    /// The point so far clockwise.
    pub const fn plus(self, distance: u64) -> Self {
        Self::new(self.0.wrapping_add(distance))
    }

    /// Whether it lies clockwise after `from` and before `to`. From a point to itself is once around: everything else
    /// lies between.
    pub const fn is_between(self, from: Self, to: Self) -> bool {
        let here = from.distance_to(self);
        let end = from.distance_to(to);
        here != 0 && (end == 0 || here < end)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_goes_clockwise_and_around_zero() {
        let point = Point::new;
        assert!(point(5).is_between(point(1), point(9)));
        assert!(!point(1).is_between(point(1), point(9)));
        assert!(!point(9).is_between(point(1), point(9)));
        assert!(point(2).is_between(point(9), point(5)), "around zero");
        assert!(!point(7).is_between(point(9), point(5)));
        assert!(point(7).is_between(point(5), point(5)), "once around");
        assert!(!point(5).is_between(point(5), point(5)));
    }

    #[test]
    fn distances_add_up_to_once_around() {
        let (a, b) = (Point::new(3), Point::new(u64::MAX));
        assert_eq!(a.distance_to(b) + b.distance_to(a), 1 << point::BITS);
        assert_eq!(a.plus(a.distance_to(b)), b);
    }
}
