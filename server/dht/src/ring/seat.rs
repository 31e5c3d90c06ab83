//! One virtual node: who comes after it, who before it, and who stands further away.

use crate::{Instant, NodeId, Peer, Point};

/// One machine of a successor list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// How far its first point is, clockwise.
    pub(crate) distance: u64,
    /// Who.
    pub(crate) id: NodeId,
}

/// The machine before a virtual node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    /// How far it is from its last point to here, clockwise.
    pub(crate) distance: u64,
    /// Who.
    pub(crate) id: NodeId,
}

/// A machine further away: a hint, which may be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Finger {
    /// It is the first machine from two to this power on.
    pub(crate) reach: u8,
    /// Where it stands.
    pub(crate) point: Point,
    /// Who.
    pub(crate) peer: Peer,
}

/// A virtual node of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Where it stands.
    pub(crate) point: Point,
    /// How far it is to this machine's next virtual node; once around when it has no other.
    pub(crate) gap: u64,
    /// How far it is from this machine's previous virtual node.
    pub(crate) gap_before: u64,
    /// The distinct other machines that come next, in order.
    list: Vec<Next>,
    /// The other machine that comes before, as far as it is known.
    pub(crate) before: Option<Before>,
    /// In order of their reach; only beyond the list.
    pub(crate) fingers: Vec<Finger>,
    /// When it talks to its successor next.
    pub(crate) stabilize_at: Instant,
    /// Which place of the list is checked next.
    pub(crate) turn: usize,
    /// Which finger was refreshed last.
    pub(crate) reach: u8,
    /// A hash of the successor's list that is already in this one, or zero.
    pub(crate) known: u64,
    /// A hash of this list for those that ask, or zero when it is to be computed.
    pub(crate) hash: u64,
}

impl Seat {
    pub(crate) fn new(me: &Peer, point: Point, stabilize_at: Instant) -> Self {
        Self {
            point,
            gap: me.first_after(point).0,
            gap_before: me.last_before(point),
            list: Vec::new(),
            before: None,
            fingers: Vec::new(),
            stabilize_at,
            turn: 0,
            reach: 0,
            known: 0,
            hash: 0,
        }
    }

    pub(crate) fn list(&self) -> &[Next] {
        &self.list
    }

    /// Puts another list in place of this one, sorts it and cuts it; answers whether it differs.
    pub(crate) fn replace(&mut self, mut list: Vec<Next>, bound: usize) -> bool {
        list.sort_unstable_by_key(|next| (next.distance, next.id));
        list.dedup_by_key(|next| next.id);
        list.truncate(bound);
        let differs = list != self.list;
        if differs {
            self.list = list;
            self.hash = 0;
        }
        differs
    }

    pub(crate) fn holds(&self, id: NodeId) -> bool {
        self.list.iter().any(|next| next.id == id)
    }

    /// Whether a machine at that distance belongs into the list, if it is not there.
    fn fits(&self, distance: u64, bound: usize) -> bool {
        self.list.len() < bound || self.list.last().is_some_and(|last| distance < last.distance)
    }

    /// Whether the machine belongs into the list and is not there.
    pub(crate) fn lacks(&self, peer: &Peer, bound: usize) -> bool {
        !self.holds(peer.id) && self.fits(peer.first_after(self.point).0, bound)
    }

    /// Takes a machine into the list; answers with its place.
    pub(crate) fn insert(&mut self, next: Next, bound: usize) -> usize {
        let place = self.list.partition_point(|other| other.distance < next.distance);
        self.list.insert(place, next);
        self.list.truncate(bound);
        self.hash = 0;
        place
    }

    /// Takes a machine out of everything; answers with its place in the list, and whether anything but fingers changed.
    pub(crate) fn remove(&mut self, id: NodeId) -> (Option<usize>, bool) {
        self.fingers.retain(|finger| finger.peer.id != id);
        let was_before = self.before.is_some_and(|before| before.id == id);
        if was_before {
            self.before = None;
        }
        let place = self.list.iter().position(|next| next.id == id);
        if let Some(place) = place {
            self.list.remove(place);
            self.known = 0;
            self.hash = 0;
        }
        (place, was_before || place.is_some())
    }

    /// The first other machine, if no other virtual node of this machine stands before it.
    pub(crate) fn first(&self) -> Option<Next> {
        self.list.first().copied().filter(|first| first.distance < self.gap)
    }

    /// How far the next virtual node of any machine is.
    pub(crate) fn next_distance(&self) -> u64 {
        self.list.first().map_or(self.gap, |first| first.distance.min(self.gap))
    }

    /// How far the list reaches.
    pub(crate) fn horizon(&self) -> u64 {
        self.list.last().map_or(0, |last| last.distance)
    }

    /// Whether the target lies between this seat and the next virtual node, or at that one.
    pub(crate) fn precedes(&self, target: Point) -> bool {
        let distance = self.point.distance_to(target);
        distance != 0 && distance <= self.next_distance()
    }

    /// Whether the target lies after the virtual node `behind` of here, or here.
    pub(crate) const fn owns(&self, target: Point, behind: u64) -> bool {
        target.distance_to(self.point) < behind
    }

    /// How many machines the ring has, judged by how dense the list is.
    pub(crate) fn density(&self) -> u64 {
        let count = u64::try_from(self.list.len()).unwrap_or(u64::MAX);
        count.saturating_mul(Point::AROUND) / self.horizon().max(1)
    }

    /// The next finger to refresh: only those beyond the list, one after the other.
    pub(crate) fn next_reach(&mut self) -> Option<u8> {
        let lowest = u64::BITS - self.horizon().leading_zeros();
        let lowest = u8::try_from(lowest).unwrap_or(u8::MAX);
        self.fingers.retain(|finger| finger.reach >= lowest);
        if lowest >= REACHES {
            return None;
        }
        self.reach = if self.reach + 1 < REACHES { (self.reach + 1).max(lowest) } else { lowest };
        Some(self.reach)
    }

    /// Sets a finger, or takes it away.
    pub(crate) fn point_finger(&mut self, reach: u8, to: Option<Peer>) {
        self.fingers.retain(|finger| finger.reach != reach);
        let Some(peer) = to else { return };
        let target = self.point.plus(1 << reach.min(REACHES - 1));
        let point = target.plus(peer.first_from(target));
        if self.point.distance_to(point) > self.horizon() {
            let place = self.fingers.partition_point(|finger| finger.reach < reach);
            self.fingers.insert(place, Finger { reach, point, peer });
        }
    }
}

/// As many fingers as a point has bits.
pub(crate) const REACHES: u8 = Point::AROUND.trailing_zeros() as u8;
