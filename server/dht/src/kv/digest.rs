//! What a member holds, in a few bytes.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Version;
use crate::kv::Key;

/// How many keys a member holds, and the hashes of each key with its version, all combined. Two members with the same
/// digest hold the same values: that two different sets have one is as likely as that a hash of 64 bits is hit by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    /// How many keys.
    pub keys: u64,
    /// The exclusive or of one hash a key.
    pub hash: u64,
}

impl Digest {
    pub(crate) fn add(&mut self, key: &Key, version: Version) {
        self.keys = self.keys.wrapping_add(1);
        self.hash ^= hash(key, version);
    }

    /// The value of a key is another one from now on.
    pub(crate) fn replace(&mut self, key: &Key, old: Version, new: Version) {
        let seed = xxh3_64(key);
        self.hash ^= seeded(old, seed) ^ seeded(new, seed);
    }

    pub(crate) fn remove(&mut self, key: &Key, version: Version) {
        self.keys = self.keys.wrapping_sub(1);
        self.hash ^= hash(key, version);
    }
}

/// The same on every machine and in every release: nodes compare it.
fn hash(key: &Key, version: Version) -> u64 {
    seeded(version, xxh3_64(key))
}

fn seeded(version: Version, seed: u64) -> u64 {
    let Version { ballot, seq } = version;
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&ballot.counter.to_le_bytes());
    bytes[4..20].copy_from_slice(&ballot.node.0.to_le_bytes());
    bytes[20..].copy_from_slice(&seq.to_le_bytes());
    xxh3_64_with_seed(&bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ballot, NodeId};

    fn version(seq: u64) -> Version {
        Version { ballot: Ballot { counter: 7, node: NodeId(9) }, seq }
    }

    fn digest(held: &[(&str, u64)]) -> Digest {
        let mut digest = Digest::default();
        held.iter().for_each(|(key, seq)| digest.add(&key.as_bytes().to_vec(), version(*seq)));
        digest
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_and_forgets_what_is_taken_out() {
        let mut some = digest(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(some, digest(&[("c", 3), ("a", 1), ("b", 2)]));
        some.replace(&b"b".to_vec(), version(2), version(4));
        some.remove(&b"b".to_vec(), version(4));
        assert_eq!(some, digest(&[("a", 1), ("c", 3)]));
    }

    #[test]
    fn another_key_another_version_or_versions_swapped_make_another_digest() {
        let one = digest(&[("a", 1), ("b", 2)]);
        for other in [digest(&[("a", 1), ("c", 2)]), digest(&[("a", 1), ("b", 3)]), digest(&[("a", 2), ("b", 1)])] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_digest_is_the_same_in_every_release() {
        assert_eq!(digest(&[("key", 1)]), Digest { keys: 1, hash: 17_960_396_624_767_856_800 });
    }
}
