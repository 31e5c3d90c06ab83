//! A log on a disk: what is written, and how much of it would survive.

use specter_dht::Random;

/// What a crash leaves of the part of a log that was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tail {
    Kept,
    Lost,
    Torn,
}

impl Tail {
    pub(crate) fn draw(random: &mut Random) -> Self {
        [Self::Kept, Self::Lost, Self::Torn][usize::try_from(random.below(3)).unwrap_or_default()]
    }
}

/// The part of a log that is not yet synced, and how long the synced one is: whoever holds the disk folds that up.
#[derive(Debug)]
pub(crate) struct Disk<R> {
    /// How many records are synced.
    synced: u64,
    unsynced: Vec<R>,
    /// Up to where an fsync that is under way will reach.
    syncing: Option<u64>,
}

impl<R> Disk<R> {
    /// A log whose first records are synced.
    pub(crate) const fn new(synced: u64) -> Self {
        Self { synced, unsynced: Vec::new(), syncing: None }
    }

    /// The position of the newest record, counted from one.
    pub(crate) fn position(&self) -> u64 {
        self.synced + self.unsynced.len() as u64
    }

    pub(crate) fn append(&mut self, record: R) {
        self.unsynced.push(record);
    }

    /// Whether everything is synced.
    pub(crate) fn is_clean(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Begins an fsync of everything written, if there is anything and none is under way.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && !self.unsynced.is_empty();
        if begins {
            self.syncing = Some(self.position());
        }
        begins
    }

    /// Ends the fsync under way: up to which position, and what that adds to what survives.
    pub(crate) fn end_sync(&mut self) -> Option<(u64, Vec<R>)> {
        let upto = self.syncing.take()?;
        Some((upto, self.sync(upto)))
    }

    /// A crash: some of what was not synced has survived nevertheless, and is to be added.
    pub(crate) fn crash(&mut self, tail: Tail, random: &mut Random) -> Vec<R> {
        self.syncing = None;
        let unsynced = self.unsynced.len() as u64;
        let kept = match tail {
            Tail::Kept => unsynced,
            Tail::Lost => 0,
            Tail::Torn => random.below(unsynced + 1),
        };
        let survived = self.sync(self.synced + kept);
        self.unsynced.clear();
        survived
    }

    /// How many records are synced.
    pub(crate) const fn synced(&self) -> u64 {
        self.synced
    }

    /// The records that are not synced, up to a position; then there are no others any more.
    pub(crate) fn take_unsynced(&mut self, upto: u64) -> Vec<R> {
        self.syncing = None;
        self.unsynced.truncate(usize::try_from(upto.saturating_sub(self.synced)).unwrap_or_default());
        std::mem::take(&mut self.unsynced)
    }

    fn sync(&mut self, upto: u64) -> Vec<R> {
        let count = usize::try_from(upto - self.synced).unwrap_or_default();
        self.synced = upto;
        self.unsynced.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A log with one synced record and four that are not.
    fn disk() -> Disk<u64> {
        let mut disk = Disk::new(1);
        (2..=5).for_each(|record| disk.append(record));
        disk
    }

    #[test]
    fn a_crash_keeps_loses_or_tears_what_was_not_synced_and_nothing_else() {
        let survives = |tail, seed| {
            let mut disk = disk();
            let survived = disk.crash(tail, &mut Random::seeded(seed));
            assert_eq!(disk.position(), 1 + survived.len() as u64);
            survived.last().copied().unwrap_or(1)
        };
        assert_eq!((survives(Tail::Kept, 0), survives(Tail::Lost, 0)), (5, 1));
        let torn: BTreeSet<u64> = (0..100).map(|seed| survives(Tail::Torn, seed)).collect();
        assert_eq!(torn, (1..=5).collect());
    }

    #[test]
    fn an_fsync_covers_what_was_written_before_it_began() {
        let mut disk = disk();
        assert!(disk.begin_sync());
        disk.append(6);
        assert!(!disk.begin_sync(), "one at a time");
        assert_eq!(disk.end_sync(), Some((5, vec![2, 3, 4, 5])));
        assert!(disk.begin_sync(), "the rest needs another");
        assert_eq!(disk.end_sync(), Some((6, vec![6])));
    }
}
