//! What must hold of all members of a ring together: for tests, which see them all at once.

use std::collections::{BTreeMap, BTreeSet};

use super::View;
use crate::{NodeId, Peer, Point};

/// A member that lives, and what it holds for true.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub peer: Peer,
    /// Of each of its virtual nodes.
    pub views: Vec<View>,
}

/// Zave's invariant, as far as it can be seen from outside: every member has a living successor, lists are ordered, and the
/// best successors form one ring in the order of the points.
///
/// # Errors
/// What does not hold, in words.
pub fn check(members: &[Member]) -> Result<(), String> {
    let living: BTreeSet<NodeId> = members.iter().map(|member| member.peer.id).collect();
    let mut next = BTreeMap::new();
    for (member, view) in views(members) {
        ordered(member, view)?;
        let first = view.successors.iter().find(|peer| living.contains(&peer.id));
        if first.is_none() && members.len() > 1 {
            return Err(format!("{} has no living successor at {}", member.peer.id, view.point));
        }
        let own = member.peer.first_after(view.point);
        let other = first.map_or(own, |peer| peer.first_after(view.point));
        next.insert(view.point, own.min(other).1);
    }
    one_ring(&next)
}

/// Whether the ring is ideal: every list has exactly the next distinct machines, and every predecessor is the one before.
///
/// # Errors
/// The first virtual node of which that is not so, in words.
pub fn check_ideal(members: &[Member], bound: usize) -> Result<(), String> {
    let mut points: Vec<(Point, &Peer)> = Vec::new();
    for member in members {
        points.extend(member.peer.points().map(|point| (point, &member.peer)));
    }
    points.sort_unstable_by_key(|(point, _)| *point);
    for (member, view) in views(members) {
        let here = points.partition_point(|(point, _)| *point < view.point);
        let mut wanted: Vec<NodeId> = Vec::with_capacity(bound);
        let after = points[here..].iter().chain(&points[..here]).skip(1).map(|(_, peer)| peer.id);
        for id in after.filter(|id| *id != member.peer.id) {
            if wanted.len() == bound {
                break;
            }
            if !wanted.contains(&id) {
                wanted.push(id);
            }
        }
        let found: Vec<NodeId> = view.successors.iter().map(|peer| peer.id).collect();
        if found != wanted {
            return Err(format!("{} at {}: list {found:?} in place of {wanted:?}", member.peer.id, view.point));
        }
        let before = points[(here + points.len() - 1) % points.len()].0;
        if view.predecessor.as_ref().is_none_or(|place| place.point != before) {
            return Err(format!("{} at {}: {:?} in place of {before}", member.peer.id, view.point, view.predecessor));
        }
    }
    Ok(())
}

fn views(members: &[Member]) -> impl Iterator<Item = (&Member, &View)> {
    members.iter().flat_map(|member| member.views.iter().map(move |view| (member, view)))
}

fn ordered(member: &Member, view: &View) -> Result<(), String> {
    let mut before = 0;
    for peer in &view.successors {
        let distance = peer.first_after(view.point).0;
        if distance <= before || peer.id == member.peer.id {
            return Err(format!("the list of {} at {} is out of order", member.peer.id, view.point));
        }
        before = distance;
    }
    Ok(())
}

/// Exactly one circle of best successors, and once around the points, not more often. Virtual nodes that lead into it
/// without being part of it are on their way in.
fn one_ring(next: &BTreeMap<Point, Point>) -> Result<(), String> {
    let mut has_circle = false;
    let mut done: BTreeSet<Point> = BTreeSet::new();
    for start in next.keys() {
        let mut path = Vec::new();
        let mut here = *start;
        while done.insert(here) {
            path.push(here);
            here = next.get(&here).copied().ok_or_else(|| format!("nobody stands at {here}"))?;
        }
        // A path that ends on itself has gone round a circle; any other one ends on a path from before.
        let Some(begin) = path.iter().position(|point| *point == here) else { continue };
        if has_circle {
            return Err(format!("there is more than one ring: {here} is in another one"));
        }
        has_circle = true;
        let around = path[begin..].iter().map(|point| step_from(*point, next)).fold(0, u64::saturating_add);
        if around != Point::AROUND {
            return Err(format!("the ring of {here} is not in order"));
        }
    }
    Ok(())
}

/// How far it is from a point to the next one; once around when that is itself.
fn step_from(from: Point, next: &BTreeMap<Point, Point>) -> u64 {
    let distance = next.get(&from).map_or(0, |to| from.distance_to(*to));
    if distance == 0 { Point::AROUND } else { distance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Place;

    fn members(count: u64) -> Vec<Member> {
        let mut peers: Vec<Peer> = (1..=count).map(|node| crate::ring::tests::world::peer(node, 1, 1)).collect();
        peers.sort_by_key(|peer| peer.points().next());
        let place = |peer: &Peer| Place { peer: peer.clone(), point: peer.points().next().expect("one seat") };
        let member = |at: usize| {
            let mut successors = peers.clone();
            successors.rotate_left(at + 1);
            let me = successors.pop().expect("this one comes last");
            let view = View { point: place(&me).point, predecessor: successors.last().map(place), successors };
            Member { peer: me, views: vec![view] }
        };
        (0..peers.len()).map(member).collect()
    }

    #[test]
    fn an_ideal_ring_passes() {
        let members = members(6);
        assert_eq!(check(&members), Ok(()));
        assert_eq!(check_ideal(&members, 16), Ok(()));
    }

    #[test]
    fn two_rings_a_gap_a_wrong_order_and_a_lost_member_are_noticed() {
        let broken = |breaks: fn(&mut Vec<Member>)| {
            let mut members = members(6);
            breaks(&mut members);
            check(&members)
        };
        let every_second = |members: &mut Vec<Member>| {
            for member in members {
                member.views[0].successors.remove(0);
            }
        };
        assert!(broken(every_second).is_err(), "two rings");
        assert!(broken(|members| members[2].views[0].successors.swap(0, 1)).is_err(), "a wrong order");
        assert!(broken(|members| members[2].views[0].successors.clear()).is_err(), "nobody comes next");
        let mut skipped = members(6);
        skipped[2].views[0].successors.remove(0);
        assert_eq!(check(&skipped), Ok(()), "the one left out is on its way in");
        assert!(check_ideal(&skipped, 16).is_err());
    }
}
