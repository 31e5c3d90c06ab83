//! A node with its disk and its clock.

use specter_dht::kv::{Durable, Entry, Input, Rules, Slot};
use specter_dht::{Instant, NodeId, Random};

use crate::Swarm;

/// What a crash leaves of the part of a log that was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tail {
    Kept,
    Lost,
    Torn,
}

/// A node with its disk and its clock.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    /// The running slot; none while the node is down.
    pub(crate) slot: Option<Slot>,
    /// How often it has been started; what was meant for an earlier start is dropped.
    pub(crate) boot: u32,
    log: Vec<Entry>,
    synced: usize,
    /// Up to where an fsync that is under way will reach.
    pub(crate) syncing: Option<usize>,
    /// What the synced part of the log comes to, kept by the true rules whatever the node does.
    pub(crate) image: Durable,
    /// Until when it stands still.
    pub(crate) paused_until: u64,
    /// Whether its disk has no room.
    pub(crate) full: bool,
    /// When its slot wants to be woken.
    pub(crate) wake_at: u64,
    offset_micros: u64,
    /// Speed of the clock, in parts of a million.
    rate: u64,
}

impl Machine {
    pub(crate) fn new(id: NodeId, log: Vec<Entry>) -> Self {
        let mut image = Durable::new(id, Rules::default());
        log.iter().for_each(|entry| image.apply(entry));
        Self {
            id,
            slot: None,
            boot: 0,
            synced: log.len(),
            log,
            syncing: None,
            image,
            paused_until: 0,
            full: false,
            wake_at: u64::MAX,
            offset_micros: 0,
            rate: 1_000_000,
        }
    }

    pub(crate) fn local(&self, time: u64) -> Instant {
        let micros = u128::from(time) * u128::from(self.rate) / 1_000_000;
        Instant::from_micros(self.offset_micros + u64::try_from(micros).unwrap_or(u64::MAX / 2))
    }

    /// When the node's clock will show this.
    pub(crate) fn global(&self, at: Instant) -> u64 {
        if at == Instant::FAR {
            return u64::MAX;
        }
        let micros = u128::from(at.as_micros().saturating_sub(self.offset_micros)) * 1_000_000;
        u64::try_from(micros.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX)
    }

    /// Starts the node on what its disk holds; its clock begins anywhere.
    pub(crate) fn start(&mut self, swarm: &Swarm, random: &mut Random, time: u64) {
        self.boot += 1;
        self.offset_micros = random.below(1_000_000_000);
        self.rate = random.between(1_000_000 - swarm.skew_ppm, 1_000_000 + swarm.skew_ppm);
        let own = Random::seeded(random.next_u64());
        let (now, log) = (self.local(time), self.log.iter().cloned());
        self.slot = Some(Slot::new(self.id, swarm.settings.clone(), swarm.rules, own, now, log));
    }

    pub(crate) fn crash(&mut self, tail: Tail, random: &mut Random) {
        let unsynced = (self.log.len() - self.synced) as u64;
        let kept = match tail {
            Tail::Kept => unsynced,
            Tail::Lost => 0,
            Tail::Torn => random.below(unsynced + 1),
        };
        self.log.truncate(self.synced + usize::try_from(kept).unwrap_or_default());
        self.slot = None;
        self.syncing = None;
        self.paused_until = 0;
        self.wake_at = u64::MAX;
        // What is on the disk when it starts again has survived.
        self.sync(self.log.len());
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.log.push(entry);
    }

    /// Begins an fsync of everything written, if there is anything and none is under way.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && self.log.len() > self.synced;
        if begins {
            self.syncing = Some(self.log.len());
        }
        begins
    }

    /// Ends the fsync under way; the slot is to be told.
    pub(crate) fn end_sync(&mut self) -> Option<Input> {
        let upto = self.syncing.take()?;
        self.sync(upto);
        Some(Input::Persisted { upto: upto as u64 })
    }

    fn sync(&mut self, upto: usize) {
        for entry in &self.log[self.synced..upto] {
            self.image.apply(entry);
        }
        self.synced = upto;
    }
}

#[cfg(test)]
mod tests {
    use specter_dht::Ballot;

    use super::*;

    fn promise(counter: u32) -> Entry {
        Entry::Promise(Ballot { counter, node: NodeId(1) })
    }

    /// A node with one entry on its disk and four that are not synced.
    fn machine() -> Machine {
        let mut machine = Machine::new(NodeId(1), vec![promise(1)]);
        (2..=5).for_each(|counter| machine.append(promise(counter)));
        machine
    }

    #[test]
    fn a_crash_keeps_loses_or_tears_what_was_not_synced_and_nothing_else() {
        let survives = |tail, seed| {
            let mut machine = machine();
            machine.crash(tail, &mut Random::seeded(seed));
            machine.image.promise.counter
        };
        assert_eq!((survives(Tail::Kept, 0), survives(Tail::Lost, 0)), (5, 1));
        let torn: std::collections::BTreeSet<u32> = (0..100).map(|seed| survives(Tail::Torn, seed)).collect();
        assert_eq!(torn, (1..=5).collect());
    }

    #[test]
    fn an_fsync_covers_what_was_written_before_it_began() {
        let mut machine = machine();
        assert!(machine.begin_sync());
        machine.append(promise(6));
        assert!(!machine.begin_sync(), "one at a time");
        assert!(matches!(machine.end_sync(), Some(Input::Persisted { upto: 5 })));
        assert_eq!(machine.image.promise.counter, 5);
        assert!(machine.begin_sync(), "the rest needs another");
    }

    #[test]
    fn a_clock_that_runs_fast_or_slow_is_never_woken_early() {
        for rate in [950_000, 999_999, 1_000_000, 1_050_000] {
            let machine = Machine { rate, offset_micros: 77, ..machine() };
            for micros in [78, 1_000, 1_234_567, 98_765_432] {
                let at = Instant::from_micros(micros);
                assert!(machine.local(machine.global(at)) >= at, "rate {rate}, at {micros}");
            }
        }
    }
}
