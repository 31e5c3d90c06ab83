//! The log while a node runs: records go to the end of the last segment, and a new segment follows a full one.
//!
//! No clock and no thread: [`crate::writer`] has both. [`crate::recover::open`] makes a [`Log`].

mod space;

use std::{collections::VecDeque, io, sync::Arc};

use thiserror::Error;

pub(crate) use space::{RESERVE, give_up_reserve};

use crate::{
    disk::{self, Disk, File},
    identity::{BOOT, Boot, BootFile, Identity},
    record::{self, Entry, PAYLOAD_BYTES_MAX, Place},
    segment::{self, HEADER_BYTES, Header},
    settings::Settings,
    snapshot::Saved,
};

/// Most bytes of one [`Log::append`].
pub const APPEND_BYTES_MAX: usize = 32 << 20;

/// The end of a log that takes records.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    settings: Settings,
    author: Author,
    /// Full segments, oldest first. Everything in them is durable.
    sealed: VecDeque<Sealed>,
    active: Active<D::File>,
    next_lsn: u64,
    durable_lsn: u64,
    /// Checksum of the last record.
    chain: u32,
    state: State,
    may_have_forgotten: bool,
    buffer: Vec<u8>,
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Author {
    pub(crate) identity: Identity,
    pub(crate) boot: Boot,
    /// Known to nobody else; the seeds of the segments come from it.
    pub(crate) salt: [u8; 16],
}

/// Where a log ends that was read.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) next_lsn: u64,
    pub(crate) chain: u32,
    pub(crate) sealed: VecDeque<Sealed>,
}

/// A segment that takes no more records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    pub(crate) first_lsn: u64,
    pub(crate) size_bytes: u64,
}

#[derive(Debug)]
struct Active<F> {
    file: F,
    first_lsn: u64,
    seed: u32,
    /// Where the next record goes.
    at: u64,
    /// Length of the file.
    size_bytes: u64,
}

#[derive(Clone, Debug)]
enum State {
    Open,
    Full,
    Failed(Failure),
}

/// How a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It takes records.
    Open,
    /// The disk is full: it takes only what is [`Need::Essential`].
    Full,
    /// A write or a sync failed. It takes nothing any more; a new start reads what is on the disk.
    Failed,
}

/// Whether a record may wait until there is room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Refused when the disk is full.
    Ordinary,
    /// Small, and written into the reserve when the disk is full.
    Essential,
}

/// Why records were not taken.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// None of them was written.
    #[error("the disk is full; free some space on the disk of the data directory, and the node goes on by itself")]
    Full,
    /// Longer than a record or a batch may be, or empty. None of them was written.
    #[error("a record of {0} bytes does not fit the log: 1 to {PAYLOAD_BYTES_MAX} bytes do")]
    Size(usize),
    /// Whether they are on the disk is not known before the log is opened anew.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A write or a sync that failed. It is final: the system may have dropped what it could not write, so that trying again
/// would succeed without it.
#[derive(Clone, Debug, Error)]
#[error(
    "the log cannot be written ({doing} of {path}); nobody knows what is on the disk now, so the node answers nothing that \
     depends on it: check the disk, then start the node again"
)]
pub struct Failure {
    /// What failed.
    doing: &'static str,
    /// The file, in the data directory.
    path: String,
    /// What the system says.
    source: Arc<io::Error>,
}

impl<D: Disk> Log<D> {
    /// Goes on after the end of a log that was read, in a first segment of this start that is on the disk.
    pub(crate) fn new(
        disk: D,
        settings: Settings,
        author: Author,
        end: End,
        file: D::File,
        may_have_forgotten: bool,
    ) -> Self {
        let (header, size_bytes) = author.first_segment(&settings, &end);
        Self {
            disk,
            settings,
            author,
            sealed: end.sealed,
            active: Active::new(file, &header, size_bytes),
            next_lsn: end.next_lsn,
            durable_lsn: end.next_lsn - 1,
            chain: end.chain,
            state: State::Open,
            may_have_forgotten,
            buffer: Vec::new(),
        }
    }

    /// Writes records, all or none, and returns the number of the last one. They are durable after [`Self::sync`].
    ///
    /// # Errors
    /// [`AppendError`] tells whether anything may have been written.
    pub fn append(&mut self, entries: &[Entry<'_>], need: Need) -> Result<u64, AppendError> {
        match (&self.state, need) {
            (State::Open, _) | (State::Full, Need::Essential) => {}
            (State::Full, Need::Ordinary) => return Err(AppendError::Full),
            (State::Failed(failure), _) => return Err(failure.clone().into()),
        }
        let was_full = self.health() == Health::Full;
        match self.try_append(entries) {
            // The reserve was just given up: there may be room now.
            Err(AppendError::Full) if need == Need::Essential && !was_full => self.try_append(entries),
            result => result,
        }
    }

    /// Makes everything durable that was appended, and returns the number of the last record.
    ///
    /// # Errors
    /// [`Failure`], which is final.
    pub fn sync(&mut self) -> Result<u64, Failure> {
        if let State::Failed(failure) = &self.state {
            return Err(failure.clone());
        }
        if self.durable_lsn + 1 < self.next_lsn {
            if let Err(error) = self.active.file.sync() {
                return Err(self.fail("sync", segment::path(self.active.first_lsn), error));
            }
            self.durable_lsn = self.next_lsn - 1;
        }
        Ok(self.durable_lsn)
    }

    /// Removes the segments that hold nothing but what a snapshot has.
    ///
    /// # Errors
    /// [`Failure`], which is final.
    pub fn forget(&mut self, saved: Saved) -> Result<(), Failure> {
        if let State::Failed(failure) = &self.state {
            return Err(failure.clone());
        }
        let mut removed = false;
        while let Some(oldest) = self.sealed.front() {
            let next = self.sealed.get(1).map_or(self.active.first_lsn, |segment| segment.first_lsn);
            if next > saved.lsn() + 1 {
                break;
            }
            let path = segment::path(oldest.first_lsn);
            if let Err(error) = disk::remove_if_there(&self.disk, &path) {
                return Err(self.fail("removal", path, error));
            }
            self.sealed.pop_front();
            removed = true;
        }
        if removed && let Err(error) = self.disk.sync_folder(segment::FOLDER) {
            return Err(self.fail("sync", segment::FOLDER.to_owned(), error));
        }
        Ok(())
    }

    /// Makes everything durable and notes that nothing follows, so that the next start may expect every record.
    ///
    /// # Errors
    /// [`Failure`]; the next start then reads the log as after a crash.
    pub fn close(mut self) -> Result<(), Failure> {
        let last = self.sync()?;
        self.write_boot(Some(last))
    }

    /// Notes that the node has begun anew among its peers, after a start that found that it may have forgotten: until then,
    /// every start finds that.
    ///
    /// # Errors
    /// [`Failure`], which is final.
    pub fn begun_anew(&mut self) -> Result<(), Failure> {
        if let State::Failed(failure) = &self.state {
            return Err(failure.clone());
        }
        self.may_have_forgotten = false;
        self.write_boot(None)
    }

    /// How it is.
    pub fn health(&self) -> Health {
        match self.state {
            State::Open => Health::Open,
            State::Full => Health::Full,
            State::Failed(_) => Health::Failed,
        }
    }

    /// The number of the last record that a power cut would leave.
    pub fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    /// The number that the next record will have.
    pub fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// What the log takes on the disk, without the room that is prepared.
    pub fn size_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.size_bytes).sum::<u64>() + self.active.at
    }

    /// What it was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn try_append(&mut self, entries: &[Entry<'_>]) -> Result<u64, AppendError> {
        let mut size_bytes = 0;
        for entry in entries {
            size_bytes += record::size_bytes(entry.payload.len());
            if !(1..=PAYLOAD_BYTES_MAX).contains(&entry.payload.len()) || size_bytes > APPEND_BYTES_MAX {
                return Err(AppendError::Size(entry.payload.len()));
            }
        }
        let size_bytes = u64::try_from(size_bytes).expect("a length fits 64 bits");
        // Records of one call share a segment: no room for a new one then means that none was written.
        if self.active.at + size_bytes > self.active.size_bytes {
            self.rotate(size_bytes)?;
        }
        self.buffer.clear();
        let (mut lsn, mut chain) = (self.next_lsn, self.chain);
        for entry in entries {
            let unsynced = u32::try_from(lsn - self.durable_lsn - 1).unwrap_or(u32::MAX);
            chain = record::encode(&mut self.buffer, self.active.seed, Place { lsn, unsynced, chain }, *entry);
            lsn += 1;
        }
        match disk::write_all(&mut self.active.file, self.active.at, &self.buffer) {
            Ok(()) => {
                self.active.at += size_bytes;
                (self.next_lsn, self.chain) = (lsn, chain);
                Ok(lsn - 1)
            }
            Err(error) if disk::is_full(&error) => {
                self.take_back()?;
                Err(AppendError::Full)
            }
            Err(error) => Err(self.fail("write", segment::path(self.active.first_lsn), error).into()),
        }
    }

    /// Goes on in a new segment, once everything in this one is durable.
    fn rotate(&mut self, needed_bytes: u64) -> Result<(), AppendError> {
        self.sync()?;
        let size_bytes = self.segment_bytes().max(header_bytes() + needed_bytes);
        let header = self.author.header(self.next_lsn, self.chain);
        let file = match segment::prepare(&self.disk, &header, size_bytes) {
            Ok(file) => file,
            Err(error) if disk::is_full(&error) => {
                self.make_room()?;
                return Err(AppendError::Full);
            }
            Err(error) => return Err(self.fail("write", segment::NEXT.to_owned(), error).into()),
        };
        if let Err(error) = segment::publish(&self.disk, self.next_lsn) {
            return Err(self.fail("naming", segment::path(self.next_lsn), error).into());
        }
        // Without a record it was replaced by the one of the same name.
        if self.active.first_lsn < self.next_lsn {
            self.sealed.push_back(Sealed { first_lsn: self.active.first_lsn, size_bytes: self.active.at });
        }
        self.active = Active::new(file, &header, size_bytes);
        Ok(())
    }

    fn write_boot(&mut self, closed_at: Option<u64>) -> Result<(), Failure> {
        let boot = BootFile {
            boot: self.author.boot,
            policy: self.settings.policy,
            closed_at,
            may_have_forgotten: self.may_have_forgotten,
        };
        boot.write(&self.disk).map_err(|error| self.fail("write", BOOT.to_owned(), error))
    }

    fn fail(&mut self, doing: &'static str, path: String, source: io::Error) -> Failure {
        let failure = Failure { doing, path, source: Arc::new(source) };
        self.state = State::Failed(failure.clone());
        failure
    }
}

impl<F> Active<F> {
    fn new(file: F, header: &Header, size_bytes: u64) -> Self {
        Self { file, first_lsn: header.first_lsn, seed: header.seed, at: header_bytes(), size_bytes }
    }
}

impl Author {
    /// The segment that a start begins, and its length: it puts the number of the start on the disk.
    pub(crate) fn first_segment(&self, settings: &Settings, end: &End) -> (Header, u64) {
        (self.header(end.next_lsn, end.chain), settings.segment_bytes.max(header_bytes()))
    }

    fn header(&self, first_lsn: u64, chain: u32) -> Header {
        let seed = crc32c::crc32c_append(crc32c::crc32c(&self.salt), &first_lsn.to_le_bytes());
        Header { identity: self.identity, first_lsn, chain, seed, boot: self.boot.number }
    }
}

fn header_bytes() -> u64 {
    u64::try_from(HEADER_BYTES).expect("a length fits 64 bits")
}

#[cfg(test)]
mod tests;
