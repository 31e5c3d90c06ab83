//! A node of one slot with its disk and its clock.

use specter_dht::kv::{Durable, Entry, Input, Rules, Slot};
use specter_dht::{NodeId, Random};

use crate::clock::Clock;
use crate::disk::{Disk, Tail};
use crate::slot::Swarm;

/// A node of one slot with its disk and its clock.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: NodeId,
    /// The running slot; none while the node is down.
    pub(crate) slot: Option<Slot>,
    /// How often it has been started; what was meant for an earlier start is dropped.
    pub(crate) boot: u32,
    /// What is on the disk to stay.
    log: Vec<Entry>,
    disk: Disk<Entry>,
    /// What the synced part of the log comes to, kept by the true rules whatever the node does.
    pub(crate) image: Durable,
    /// Until when it stands still.
    pub(crate) paused_until: u64,
    /// When its slot wants to be woken.
    pub(crate) wake_at: u64,
    pub(crate) clock: Clock,
}

impl Machine {
    pub(crate) fn new(id: NodeId, log: Vec<Entry>) -> Self {
        let mut image = Durable::new(id, Rules::default());
        log.iter().for_each(|entry| image.apply(entry));
        Self {
            id,
            slot: None,
            boot: 0,
            disk: Disk::new(log.len() as u64),
            log,
            image,
            paused_until: 0,
            wake_at: u64::MAX,
            clock: Clock::draw(0, &mut Random::seeded(0)),
        }
    }

    /// Starts the node on what its disk holds; its clock begins anywhere.
    pub(crate) fn start(&mut self, swarm: &Swarm, random: &mut Random, time: u64) {
        self.boot += 1;
        self.clock = Clock::draw(swarm.skew_ppm, random);
        let own = Random::seeded(random.next_u64());
        let (now, log) = (self.clock.local(time), self.log.iter().cloned());
        self.slot = Some(Slot::new(self.id, swarm.settings.clone(), swarm.rules, own, now, log));
    }

    pub(crate) fn crash(&mut self, tail: Tail, random: &mut Random) {
        self.slot = None;
        self.paused_until = 0;
        self.wake_at = u64::MAX;
        let survived = self.disk.crash(tail, random);
        self.keep(survived);
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.disk.append(entry);
    }

    /// Begins an fsync of everything written, if there is anything and none is under way.
    pub(crate) fn begin_sync(&mut self) -> bool {
        self.disk.begin_sync()
    }

    /// Ends the fsync under way; the slot is to be told.
    pub(crate) fn end_sync(&mut self) -> Option<Input> {
        let (upto, entries) = self.disk.end_sync()?;
        self.keep(entries);
        Some(Input::Persisted { upto })
    }

    fn keep(&mut self, entries: Vec<Entry>) {
        entries.iter().for_each(|entry| self.image.apply(entry));
        self.log.extend(entries);
    }
}
