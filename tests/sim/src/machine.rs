//! A node with its disk and its clock.

use specter_dht::{Durable, Entry, Input, Instant, NodeId, Random, Rules, Slot};

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
