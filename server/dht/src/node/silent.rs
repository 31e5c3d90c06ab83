//! Machines that did not answer a request lately, and are asked after all others.
//!
//! A ring knows only of its neighbours who is silent. Without this each request would find out anew, and one that has less time
//! than that takes would never get to somebody who lives.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Instant, NodeId};

/// For how many attempts' time a machine is asked last, unless it speaks.
const ATTEMPTS: u32 = 10;

/// The most machines that are remembered.
const MOST: usize = 256;

/// Who was silent, and until when that counts.
#[derive(Debug)]
pub(super) struct Silent(BTreeMap<NodeId, Instant>);

impl Silent {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// A machine did not answer in time. That may be early for who is far away: its answer, however late, makes it good.
    pub(super) fn note(&mut self, node: NodeId, now: Instant, attempt: Duration) {
        if self.0.len() >= MOST {
            let soonest = self.0.iter().min_by_key(|(_, until)| **until).map(|(node, _)| *node);
            soonest.map(|node| self.0.remove(&node));
        }
        self.0.insert(node, now + attempt * ATTEMPTS);
    }

    pub(super) fn heard(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    pub(super) fn contains(&self, now: Instant, node: NodeId) -> bool {
        self.0.get(&node).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_silent_is_good_again_after_a_while_or_a_word_and_not_everybody_is_remembered() {
        let (attempt, now) = (Duration::from_secs(1), Instant::from_micros(7));
        let mut silent = Silent::new();
        for number in 0..2 * MOST as u64 {
            silent.note(NodeId::from(number), now + Duration::from_micros(number), attempt);
        }
        assert_eq!(silent.0.len(), MOST);
        let (old, young) = (NodeId::from(0), NodeId::from(2 * MOST as u64 - 1));
        assert!(!silent.contains(now, old) && silent.contains(now, young));
        assert!(!silent.contains(now + attempt * (ATTEMPTS + 1), young));
        silent.heard(young);
        assert!(!silent.contains(now, young));
    }
}
