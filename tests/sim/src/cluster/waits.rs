//! For how long a key could not be had that clients kept asking for.

use std::collections::BTreeMap;

use specter_dht::kv::Key;

/// Nobody keeps asking for a key that was not asked for in this time after the last try came to nothing.
const GAP_MICROS: u64 = 2_000_000;

#[derive(Debug)]
struct Wait {
    /// When the first try began that came to nothing.
    since: u64,
    /// When the last such try ended.
    tried: u64,
}

/// The spans in which keys could not be had.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    open: BTreeMap<Key, Wait>,
    /// The longest span since it was last taken.
    longest_micros: u64,
}

impl Waits {
    /// A try came to nothing.
    pub(crate) fn failed(&mut self, key: &Key, called: u64, time: u64) {
        let wait = self.open.entry(key.clone()).or_insert(Wait { since: called, tried: time });
        if called > wait.tried + GAP_MICROS {
            wait.since = called;
        }
        wait.tried = time;
        self.longest_micros = self.longest_micros.max(time.saturating_sub(wait.since));
    }

    /// There was a definite answer.
    pub(crate) fn answered(&mut self, key: &Key, called: u64, time: u64) {
        let open = self.open.remove(key).filter(|wait| called <= wait.tried + GAP_MICROS);
        let since = open.map_or(called, |wait| wait.since);
        self.longest_micros = self.longest_micros.max(time.saturating_sub(since));
    }

    /// The longest span since this was last asked; what is still open counts anew from now.
    pub(crate) fn take(&mut self, time: u64) -> u64 {
        for wait in self.open.values_mut() {
            wait.since = time.max(wait.since);
            wait.tried = time.max(wait.tried);
        }
        std::mem::take(&mut self.longest_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_lasts_from_the_first_try_that_failed_to_the_next_answer() {
        let (mut waits, key) = (Waits::default(), b"k".to_vec());
        waits.answered(&key, 0, 10);
        waits.failed(&key, 100, 200);
        waits.failed(&key, 300, 400);
        waits.answered(&key, 450, 500);
        assert_eq!(waits.take(600), 400);
        waits.failed(&key, 1_000, 1_100);
        waits.answered(&key, 1_100 + GAP_MICROS + 1, 1_100 + GAP_MICROS + 6);
        assert_eq!(waits.take(9_000_000), 100, "nobody asked for it in between");
    }
}
