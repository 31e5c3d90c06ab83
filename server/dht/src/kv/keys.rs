//! What a leader knows of its keys, with an index for everything that it must find without a search: nothing here walks
//! all keys but [`Keys::move_to`], at a change of members.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::kv::roster::{Nodes, Roster};
use crate::kv::{Digest, Key, Register};
use crate::{Instant, Version};

/// What is settled about a key.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) register: Arc<Register>,
    /// Whether a quorum accepted this value from this leader.
    pub(crate) confirmed: bool,
    /// Who has this value on its disk.
    pub(crate) holders: Nodes,
    /// When a client last wrote it, or this leader began.
    pub(crate) touched: Instant,
    /// When the lease ends, by this leader's clock.
    pub(crate) lease_until: Option<Instant>,
}

impl Held {
    /// About how many bytes it takes in a message.
    pub(crate) fn size(&self, key: &Key) -> usize {
        key.len() + self.register.size()
    }
}

/// What a leader knows of its keys.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Keys {
    table: BTreeMap<Key, Held>,
    /// Keys whose value this leader has not written in this configuration.
    stale: BTreeSet<Key>,
    /// The fresh keys each member lacks, the oldest values first.
    lacking: Vec<BTreeMap<Version, Key>>,
    leases: BTreeSet<(Instant, Key)>,
    tombstones: BTreeSet<(Instant, Key)>,
    members: Nodes,
    joint_since: Option<Version>,
    digest: Digest,
    /// What all keys and values take in messages.
    bytes: usize,
}

impl Keys {
    pub(crate) fn new(roster: &Roster, table: BTreeMap<Key, Held>) -> Self {
        let mut keys = Self {
            table,
            stale: BTreeSet::new(),
            lacking: Vec::new(),
            leases: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            members: Nodes::default(),
            joint_since: None,
            digest: Digest::default(),
            bytes: 0,
        };
        for (key, held) in &keys.table {
            keys.digest.add(key, held.version);
            keys.bytes += held.size(key);
        }
        keys.index_all(roster);
        keys
    }

    pub(crate) fn len(&self) -> u64 {
        self.table.len() as u64
    }

    /// About how many bytes all keys and values take in messages.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Held> {
        self.table.get(key)
    }

    /// Takes in what is settled about a key now, which may follow from what was before.
    pub(crate) fn settle(&mut self, key: &Key, held: impl FnOnce(Option<&Held>) -> Held) {
        let held = if let Some(known) = self.table.get_mut(key) {
            let held = held(Some(known));
            let known = std::mem::replace(known, held.clone());
            self.digest.replace(key, known.version, held.version);
            self.bytes -= known.size(key);
            self.leave_indices(key, &known);
            held
        } else {
            let held = held(None);
            self.table.insert(key.clone(), held.clone());
            self.digest.add(key, held.version);
            held
        };
        self.bytes += held.size(key);
        self.enter_indices(key, &held);
    }

    /// Takes in that a member lacks what it was thought to have.
    pub(crate) fn miss(&mut self, key: &Key, seat: u32) {
        self.change(key, |held| held.holders.remove(seat));
    }

    /// What is settled must be written again before it counts.
    pub(crate) fn distrust(&mut self, key: &Key) {
        self.change(key, |held| held.confirmed = false);
    }

    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Held)) {
        if let Some(mut held) = self.table.get(key).cloned() {
            change(&mut held);
            self.settle(key, |_| held);
        }
    }

    /// Takes in that a member has a value on its disk.
    pub(crate) fn hold(&mut self, key: &Key, version: Version, seat: u32) {
        if let Some(held) = self.table.get_mut(key).filter(|held| held.version == version) {
            held.holders.insert(seat);
            if let Some(lacked) = self.lacking.get_mut(seat as usize) {
                lacked.remove(&version);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Held> {
        let held = self.table.remove(key)?;
        self.digest.remove(key, held.version);
        self.bytes -= held.size(key);
        self.leave_indices(key, &held);
        Some(held)
    }

    /// The members are others from now on.
    pub(crate) fn move_to(&mut self, from: &Roster, to: &Roster) {
        for held in self.table.values_mut() {
            held.holders = from.moved(held.holders, to);
        }
        self.index_all(to);
    }

    /// Whether a settled value was written by this leader in this configuration.
    pub(crate) fn is_fresh(&self, held: &Held) -> bool {
        held.confirmed && self.joint_since.is_none_or(|since| held.version > since)
    }

    /// The first key after this one that is not fresh.
    pub(crate) fn stale_after(&self, key: Option<&Key>) -> Option<&Key> {
        let after = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.stale.range::<Key, _>((after, Bound::Unbounded)).next()
    }

    /// Whether every key is fresh.
    pub(crate) fn all_fresh(&self) -> bool {
        self.stale.is_empty()
    }

    /// What is settled, in a few bytes.
    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }

    /// The keys after the one and up to the other.
    pub(crate) fn between(&self, after: Option<&Key>, last: Option<&Key>) -> impl Iterator<Item = &Key> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.table.range::<Key, _>((after, last.map_or(Bound::Unbounded, Bound::Included))).map(|(key, _)| key)
    }

    /// The oldest value that a member lacks, of those after the one and up to the other version.
    pub(crate) fn lacked_by(&self, seat: u32, after: Option<Version>, until: Version) -> Option<(Version, &Key)> {
        let lacked = self.lacking.get(seat as usize)?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (version, key) = lacked.range((after, Bound::Unbounded)).next()?;
        (*version <= until).then_some((*version, key))
    }

    /// How many fresh keys a member lacks.
    pub(crate) fn lacks(&self, seat: u32) -> usize {
        self.lacking.get(seat as usize).map_or(0, BTreeMap::len)
    }

    /// The oldest value that some member lacks.
    pub(crate) fn oldest_lacked(&self) -> Option<Version> {
        self.lacking.iter().filter_map(|lacked| lacked.first_key_value()).map(|(version, _)| *version).min()
    }

    /// The keys whose lease is over.
    pub(crate) fn leases_over(&self, now: Instant) -> impl Iterator<Item = &Key> {
        self.leases.iter().take_while(move |(until, _)| *until <= now).map(|(_, key)| key)
    }

    /// The fresh tombstones and when each was last touched, the oldest first.
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = &(Instant, Key)> {
        self.tombstones.iter()
    }

    fn index_all(&mut self, roster: &Roster) {
        (self.members, self.joint_since) = (roster.all(), roster.joint_since);
        self.stale.clear();
        self.leases.clear();
        self.tombstones.clear();
        self.lacking = vec![BTreeMap::new(); roster.nodes().len()];
        let table = std::mem::take(&mut self.table);
        for (key, held) in &table {
            self.enter_indices(key, held);
        }
        self.table = table;
    }

    fn enter_indices(&mut self, key: &Key, held: &Held) {
        if let Some(until) = held.lease_until {
            self.leases.insert((until, key.clone()));
        }
        if !self.is_fresh(held) {
            self.stale.insert(key.clone());
            return;
        }
        for seat in self.members.without(held.holders).seats() {
            if let Some(lacked) = self.lacking.get_mut(seat as usize) {
                lacked.insert(held.version, key.clone());
            }
        }
        if held.register.is_tombstone() {
            self.tombstones.insert((held.touched, key.clone()));
        }
    }

    fn leave_indices(&mut self, key: &Key, held: &Held) {
        if let Some(until) = held.lease_until {
            self.leases.remove(&(until, key.clone()));
        }
        if !self.is_fresh(held) {
            self.stale.remove(key);
            return;
        }
        for seat in self.members.without(held.holders).seats() {
            if let Some(lacked) = self.lacking.get_mut(seat as usize) {
                lacked.remove(&held.version);
            }
        }
        if held.register.is_tombstone() {
            self.tombstones.remove(&(held.touched, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Config, Member};
    use crate::{Ballot, NodeId, Random};

    fn version(seq: u64) -> Version {
        Version { ballot: Ballot { counter: 1, node: NodeId(1) }, seq }
    }

    fn roster(nodes: &[u64], joint_at: Option<u64>) -> Roster {
        let member = |node: &u64| Member { node: NodeId::from(*node), since: Version::default() };
        let old: Vec<Member> = nodes.iter().map(member).collect();
        let new = joint_at.map(|_| old.iter().skip(1).copied().collect());
        Roster::new(&Config { version: version(joint_at.unwrap_or_default()), old, new, leaving: None })
    }

    /// What a walk over all keys finds: the stale, the lacking of each seat, the oldest of those.
    fn walk(keys: &Keys, roster: &Roster) -> (Vec<Key>, Vec<Vec<Key>>, Option<Version>) {
        let all = || keys.table.iter();
        let stale = all().filter(|(_, held)| !keys.is_fresh(held)).map(|(key, _)| key.clone()).collect();
        let lacks = |held: &Held, seat: u32| keys.is_fresh(held) && !held.holders.contains(seat);
        let of_seat = |seat: u32| {
            let mut lacked: Vec<_> = all().filter(|(_, held)| lacks(held, seat)).collect();
            lacked.sort_by_key(|(_, held)| held.version);
            lacked
        };
        let seats = || roster.all().seats();
        let oldest = seats().flat_map(of_seat).map(|(_, held)| held.version).min();
        (stale, seats().map(|seat| of_seat(seat).into_iter().map(|(key, _)| key.clone()).collect()).collect(), oldest)
    }

    fn indexed(keys: &Keys, roster: &Roster) -> (Vec<Key>, Vec<Vec<Key>>, Option<Version>) {
        let mut stale: Vec<Key> = Vec::new();
        while let Some(next) = keys.stale_after(stale.last()).cloned() {
            stale.push(next);
        }
        let lacked_by = |seat| {
            let next = |after: &Option<(Version, Key)>| {
                let after = after.as_ref().map(|(version, _)| *version);
                keys.lacked_by(seat, after, version(u64::MAX)).map(|(version, key)| (version, key.clone()))
            };
            std::iter::successors(next(&None), |last| next(&Some(last.clone()))).map(|(_, key)| key).collect()
        };
        (stale, roster.all().seats().map(lacked_by).collect(), keys.oldest_lacked())
    }

    #[test]
    fn the_indices_say_what_a_walk_over_all_keys_would() {
        let mut random = Random::seeded(7);
        let mut here = roster(&[1, 2, 3], None);
        let mut keys = Keys::new(&here, BTreeMap::new());
        for seq in 1..5000 {
            let now = Instant::from_micros(seq);
            let key = random.below(40).to_be_bytes().to_vec();
            match random.below(100) {
                0..50 => {
                    let mut register = Register::EMPTY;
                    register.apply(&crate::kv::Operation::Append(vec![u8::try_from(random.below(2)).unwrap()]), seq);
                    let register = if random.chance(500) { Register::EMPTY } else { register };
                    let lease_until = random.chance(300).then_some(now);
                    let mut holders = Nodes::default();
                    holders.insert(0);
                    let confirmed = random.chance(800);
                    let register = Arc::new(register);
                    let held = Held { version: version(seq), register, confirmed, holders, touched: now, lease_until };
                    keys.settle(&key, |_| held);
                }
                50..90 => {
                    let held = keys.get(&key).map_or(0, |held| held.version.seq);
                    keys.hold(&key, version(held), u32::try_from(random.below(3)).unwrap());
                }
                90..98 => drop(keys.remove(&key)),
                _ => {
                    let joint_at = random.chance(500).then(|| seq.saturating_sub(random.below(50)));
                    let nodes: Vec<u64> = (1..=6).filter(|_| random.chance(600)).chain([9]).collect();
                    let there = roster(&nodes, joint_at);
                    keys.move_to(&here, &there);
                    here = there;
                }
            }
            assert_eq!(indexed(&keys, &here), walk(&keys, &here), "after {seq} steps");
            let leased = keys.table.values().filter(|held| held.lease_until.is_some()).count();
            assert_eq!(keys.leases_over(Instant::FAR).count(), leased);
            let bare = |held: &&Held| keys.is_fresh(held) && held.register.is_tombstone();
            assert_eq!(keys.tombstones().count(), keys.table.values().filter(bare).count());
            assert_eq!(keys.bytes(), keys.table.iter().map(|(key, held)| held.size(key)).sum::<usize>());
        }
    }
}
