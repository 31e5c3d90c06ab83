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
    let mut circle: Option<BTreeSet<Point>> = None;
    let mut done: BTreeSet<Point> = BTreeSet::new();
    for start in next.keys() {
        let mut path = Vec::new();
        let mut here = *start;
        let mut on_path = BTreeSet::new();
        while !done.contains(&here) && on_path.insert(here) {
            path.push(here);
            here = next.get(&here).copied().ok_or_else(|| format!("nobody stands at {here}"))?;
        }
        if on_path.contains(&here) {
            let begin = path.iter().position(|point| *point == here).unwrap_or(0);
            let found = &path[begin..];
            if circle.is_some() {
                return Err(format!("there is more than one ring: {here} is in another one"));
            }
            let around: u64 = found.iter().map(|point| point_distance(*point, next)).fold(0, u64::saturating_add);
            if around != Point::AROUND {
                return Err(format!("the ring of {here} is not in order"));
            }
            circle = Some(found.iter().copied().collect());
        }
        done.append(&mut on_path);
    }
    Ok(())
}

fn point_distance(from: Point, next: &BTreeMap<Point, Point>) -> u64 {
    let distance = next.get(&from).map_or(0, |to| from.distance_to(*to));
    if distance == 0 { Point::AROUND } else { distance }
}
