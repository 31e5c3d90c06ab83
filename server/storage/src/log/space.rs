//! A full disk: what was begun is taken back, a reserve is given up, and room is noticed when it is there again.

use super::{Failure, Health, Log, State};
use crate::{
    disk::{self, Disk, File},
    segment,
};

pub(crate) const RESERVE: &str = "RESERVE";
const RESERVE_NEW: &str = "RESERVE.tmp";

/// Length of a segment while the disk is full, so that the reserve lasts.
const SMALL_SEGMENT_BYTES: u64 = 1 << 20;

impl<D: Disk> Log<D> {
    /// Takes the reserve back if it fits the disk again together with a segment, and with it all records.
    ///
    /// Call it now and then while the log is [`Health::Full`]; otherwise it does nothing.
    ///
    /// # Errors
    /// [`Failure`], which is final.
    pub fn reclaim(&mut self) -> Result<Health, Failure> {
        if self.health() == Health::Full {
            match make_reserve(&self.disk, self.settings.reserve_bytes, self.settings.segment_bytes) {
                Ok(true) => self.state = State::Open,
                Ok(false) => {}
                Err(error) => return Err(self.fail("write", RESERVE.to_owned(), error)),
            }
        }
        match &self.state {
            State::Failed(failure) => Err(failure.clone()),
            State::Open | State::Full => Ok(self.health()),
        }
    }

    /// Makes sure that there is a reserve; without one the log is full.
    pub(crate) fn check_reserve(&mut self) -> std::io::Result<()> {
        if !self.disk.list("")?.iter().any(|name| name == RESERVE)
            && !make_reserve(&self.disk, self.settings.reserve_bytes, 0)?
        {
            self.state = State::Full;
        }
        Ok(())
    }

    /// Length of the next segment.
    pub(super) fn segment_bytes(&self) -> u64 {
        match self.state {
            State::Open => self.settings.segment_bytes,
            State::Full | State::Failed(_) => self.settings.segment_bytes.min(SMALL_SEGMENT_BYTES),
        }
    }

    /// Cuts off what a failed write left of records that are refused now, so that no start finds them.
    pub(super) fn take_back(&mut self) -> Result<(), Failure> {
        let cut = self.active.file.set_size(self.active.at).and_then(|()| self.active.file.sync());
        if let Err(error) = cut {
            return Err(self.fail("cut", segment::path(self.active.first_lsn), error));
        }
        self.active.size_bytes = self.active.at;
        self.durable_lsn = self.next_lsn - 1;
        self.make_room()
    }

    /// Gives up the reserve. From now on only what is essential is taken.
    pub(super) fn make_room(&mut self) -> Result<(), Failure> {
        self.state = State::Full;
        let given_up = disk::remove_if_there(&self.disk, segment::NEXT).and_then(|_| give_up_reserve(&self.disk));
        given_up.map_err(|error| self.fail("removal", RESERVE.to_owned(), error))
    }
}

/// Removes the reserve. The sync lets the file system free its room at once.
pub(crate) fn give_up_reserve(disk: &impl Disk) -> std::io::Result<()> {
    if disk::remove_if_there(disk, RESERVE)? {
        disk.sync_folder("")?;
    }
    Ok(())
}

/// Tells whether the disk had room for it and for some more, which stays free.
fn make_reserve(disk: &impl Disk, size_bytes: u64, more_bytes: u64) -> std::io::Result<bool> {
    let made = disk.create(RESERVE_NEW).and_then(|mut file| {
        disk::write_zeros(&mut file, 0, size_bytes + more_bytes)?;
        file.set_size(size_bytes)?;
        file.sync()
    });
    match made {
        Ok(()) => {
            disk.rename(RESERVE_NEW, RESERVE)?;
            disk.sync_folder("")?;
            Ok(true)
        }
        Err(error) if disk::is_full(&error) => {
            disk::remove_if_there(disk, RESERVE_NEW)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
