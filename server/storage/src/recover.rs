//! Starts a node on what is on its disk.
//!
//! A crash may leave records at the end of which nobody was told; they are cut off, and kept aside. Whatever else is wrong is
//! an error that names the file: nothing is skipped, and nothing is changed.

use std::io;

use thiserror::Error;

use crate::{
    disk::{self, Disk, File as _},
    identity::{self, BOOT, Boot, BootFile, IDENTITY, Identity, Unreadable},
    log::{Author, Log, RESERVE, give_up_reserve},
    record::{NoRecord, Record},
    scan::{Scan, scan},
    segment,
    settings::{Policy, Settings},
};

/// What [`open`] is told.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Whose directory it is. A new one is made his.
    pub identity: Identity,
    /// How to go on.
    pub settings: Settings,
    /// Drawn for this start, from a source that nobody can guess.
    pub random: [u8; 32],
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// This start.
    pub boot: Boot,
    /// The last record.
    pub last_lsn: u64,
    /// How many records came after the snapshot.
    pub records: u64,
    /// What was cut off.
    pub torn: Option<Torn>,
    /// The log was closed: no record can be missing.
    pub was_closed: bool,
    /// Records that were confirmed may be missing: a start ran with [`Policy::EverySecond`] and was not closed, or the
    /// directory is a copy. The node must not vote as the member that it was; once it has begun anew among its peers it says
    /// so by [`Log::begun_anew`].
    pub may_have_forgotten: bool,
}

/// Records that a crash left half-written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    /// The number that the first of them would have had.
    pub lsn: u64,
    /// How many bytes were cut off.
    pub size_bytes: usize,
    /// The file that has them now; nothing if the disk had no room.
    pub kept: Option<String>,
}

/// Why a directory cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The system refuses.
    #[error("{path} in the data directory cannot be {doing}; check the disk and the rights of this user")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// No room for the few blocks of a start.
    #[error("the disk of the data directory is full; free some space, then start the node again")]
    Full(#[source] io::Error),
    /// A whole file cannot be used.
    #[error("{path} in the data directory cannot be used: {reason}; {}", way_out(.reason))]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: Unreadable,
    },
    /// Another node's.
    #[error("{path} belongs to another node of this cluster; give each node a --data-dir of its own")]
    ForeignNode {
        /// The file that says so.
        path: String,
    },
    /// Another cluster's.
    #[error(
        "{path} belongs to another cluster; give this node a --data-dir of its own, or the certificates of that one"
    )]
    ForeignCluster {
        /// The file that says so.
        path: String,
    },
    /// A file that every directory has once it holds anything.
    #[error("{path} is missing although the data directory holds records; {ANEW}")]
    Missing {
        /// The file.
        path: &'static str,
    },
    /// A record that was durable is not there.
    #[error("{path} in the data directory is damaged at byte {offset}, in record {lsn}: {reason}; {ANEW}")]
    Damaged {
        /// The file.
        path: String,
        /// Where.
        offset: usize,
        /// The record that belongs there.
        lsn: u64,
        /// What is wrong with it.
        reason: NoRecord,
    },
    /// A segment is missing, or the end of one.
    #[error("the records from {needed} to {} are missing in the data directory; {ANEW}", .found - 1)]
    Gap {
        /// The record that should come next.
        needed: u64,
        /// The first one after it that is there.
        found: u64,
    },
    /// A segment that does not follow the one before it.
    #[error("{path} in the data directory is of another log than the segment before it; {ANEW}")]
    Chain {
        /// The later one.
        path: String,
    },
    /// The log ends before the snapshot.
    #[error("the log in the data directory ends at record {log}, and its snapshot at record {snapshot}; {ANEW}")]
    Behind {
        /// The snapshot's last record.
        snapshot: u64,
        /// The log's last record.
        log: u64,
    },
    /// The log was closed at another record.
    #[error("the log in the data directory ends at record {found}, and it was closed at record {closed}; {ANEW}")]
    Closed {
        /// Where it was closed.
        closed: u64,
        /// Where it ends.
        found: u64,
    },
    /// `BOOT` and the log are of different times.
    #[error("BOOT in the data directory is from start {boot} of the node, and its log from start {log}; {ANEW}")]
    Boot {
        /// What `BOOT` says.
        boot: u32,
        /// What the last segment says.
        log: u32,
    },
}

pub(crate) const ANEW: &str = "move it away: the node then starts anew and is filled by its peers, which do not take it for the one that it \
                    was; a node without peers takes a backup, or with `specter-server store restore NEW --from OLD \
                    --accept-loss` what can still be read";

pub(crate) fn way_out(reason: &Unreadable) -> &'static str {
    match reason {
        Unreadable::Damaged => ANEW,
        Unreadable::Format(_) => "start the version of specter-server that wrote it, or a later one",
    }
}

impl OpenError {
    /// Whether records that were durable are gone; else the directory is another's or out of reach.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::File { reason, .. } => *reason == Unreadable::Damaged,
            Self::Missing { .. }
            | Self::Damaged { .. }
            | Self::Gap { .. }
            | Self::Chain { .. }
            | Self::Behind { .. }
            | Self::Closed { .. }
            | Self::Boot { .. } => true,
            Self::Disk { .. } | Self::Full(_) | Self::ForeignNode { .. } | Self::ForeignCluster { .. } => false,
        }
    }

    pub(crate) fn disk(doing: &'static str, path: &str, source: io::Error) -> Self {
        if disk::is_full(&source) { Self::Full(source) } else { Self::Disk { doing, path: path.to_owned(), source } }
    }

    pub(crate) fn check_author(path: &str, expected: &Identity, found: &Identity) -> Result<(), Self> {
        if expected.cluster != found.cluster {
            Err(Self::ForeignCluster { path: path.to_owned() })
        } else if expected.node != found.node {
            Err(Self::ForeignNode { path: path.to_owned() })
        } else {
            Ok(())
        }
    }
}

/// Opens a directory, or makes a new one, and hands out every record after `snapshot_lsn` in order.
///
/// What was handed out is durable when this returns, and void if it fails. Only a directory in which nothing is wrong is
/// changed, and opening it again finds the same records.
///
/// # Errors
/// [`OpenError`], with a way out.
pub fn open<D: Disk>(
    disk: D,
    opening: &Opening,
    snapshot_lsn: u64,
    each: impl FnMut(Record<'_>),
) -> Result<(Log<D>, Recovered), OpenError> {
    let Found { owner, left, scan } = look(&disk, Some(&opening.identity), snapshot_lsn, each)?;
    let last_boot = left.map_or(0, |left| left.boot.number).max(scan.last.as_ref().map_or(0, |last| last.boot));
    let boot = Boot { number: last_boot.saturating_add(1), id: identity::array(&opening.random[16..]) };
    let author = Author { identity: opening.identity, boot, salt: identity::array(&opening.random[..16]) };
    let was_closed = left.is_some_and(|left| left.closed_at.is_some());
    let may_have_forgotten = left.is_some_and(|left| {
        left.may_have_forgotten || (left.closed_at.is_none() && left.policy == Policy::EverySecond)
    });
    let start = match settle(&disk, &opening.settings, &author, &scan, may_have_forgotten, owner.is_none()) {
        Err(OpenError::Full(_)) => {
            give_up_reserve(&disk).map_err(|error| OpenError::disk("removed", RESERVE, error))?;
            settle(&disk, &opening.settings, &author, &scan, may_have_forgotten, owner.is_none())?
        }
        settled => settled?,
    };
    let recovered = Recovered {
        boot,
        last_lsn: scan.end.next_lsn - 1,
        records: scan.records,
        torn: start.torn,
        was_closed,
        may_have_forgotten,
    };
    let mut log = Log::new(disk, opening.settings, author, scan.end, start.file, may_have_forgotten);
    log.check_reserve().map_err(|error| OpenError::disk("written", RESERVE, error))?;
    Ok((log, recovered))
}

/// What is on a disk.
pub(crate) struct Found {
    pub(crate) owner: Option<Identity>,
    pub(crate) left: Option<BootFile>,
    pub(crate) scan: Scan,
}

/// Reads a directory and checks that it is whole. Changes nothing.
pub(crate) fn look<D: Disk>(
    disk: &D,
    expected: Option<&Identity>,
    snapshot_lsn: u64,
    each: impl FnMut(Record<'_>),
) -> Result<Found, OpenError> {
    let owner = readable(IDENTITY, Identity::read(disk))?;
    if let (Some(expected), Some(owner)) = (expected, &owner) {
        OpenError::check_author(IDENTITY, expected, owner)?;
    }
    let left = readable(BOOT, BootFile::read(disk))?;
    let scan = scan(disk, expected.or(owner.as_ref()), snapshot_lsn, each)?;
    check_whole(owner.as_ref(), left.as_ref(), &scan, snapshot_lsn)?;
    Ok(Found { owner, left, scan })
}

fn readable<T>(path: &str, read: io::Result<Option<Result<T, Unreadable>>>) -> Result<Option<T>, OpenError> {
    match read {
        Ok(None) => Ok(None),
        Ok(Some(Ok(value))) => Ok(Some(value)),
        Ok(Some(Err(reason))) => Err(OpenError::File { path: path.to_owned(), reason }),
        Err(error) => Err(OpenError::disk("read", path, error)),
    }
}

/// Checks that the files of a directory belong together.
fn check_whole(
    owner: Option<&Identity>,
    left: Option<&BootFile>,
    scan: &Scan,
    snapshot_lsn: u64,
) -> Result<(), OpenError> {
    let missing = |path| Err(OpenError::Missing { path });
    match (owner, left, &scan.last) {
        // IDENTITY is written first, then the first segment, then BOOT.
        (None, None, None) if snapshot_lsn == 0 => Ok(()),
        (None, _, _) => missing(IDENTITY),
        (Some(_), None, None) if snapshot_lsn == 0 => Ok(()),
        // First starts that were cut short, however many of them.
        (Some(_), None, Some(_)) if snapshot_lsn == 0 && scan.end.next_lsn == 1 => Ok(()),
        (Some(_), None, _) => missing(BOOT),
        (Some(_), Some(_), None) => missing(segment::FOLDER),
        (Some(_), Some(left), Some(last)) => {
            let last_lsn = scan.end.next_lsn - 1;
            // A start writes its segment first, then BOOT, then records.
            let is_aborted = left.boot.number < last.boot && !last.has_records;
            if left.boot.number != last.boot && !is_aborted {
                return Err(OpenError::Boot { boot: left.boot.number, log: last.boot });
            }
            match left.closed_at {
                Some(closed) if closed != last_lsn => Err(OpenError::Closed { closed, found: last_lsn }),
                Some(_) | None => Ok(()),
            }
        }
    }
}

/// What a start wrote.
struct Start<F> {
    torn: Option<Torn>,
    /// The new segment.
    file: F,
}

/// Makes durable what was read, and begins a segment after it. Each step may be the last one before a crash.
fn settle<D: Disk>(
    disk: &D,
    settings: &Settings,
    author: &Author,
    scan: &Scan,
    may_have_forgotten: bool,
    is_new: bool,
) -> Result<Start<D::File>, OpenError> {
    if is_new {
        author.identity.write(disk).map_err(|error| OpenError::disk("written", IDENTITY, error))?;
    }
    let mut torn = None;
    if let Some(last) = &scan.last {
        if !last.torn.is_empty() {
            let kept = keep_torn(disk, scan.end.next_lsn, &last.torn)
                .map_err(|error| OpenError::disk("written", segment::FOLDER, error))?;
            torn = Some(Torn { lsn: scan.end.next_lsn, size_bytes: last.torn.len(), kept });
        }
        // Written anew and not only synced: if a sync failed before, the system shows what the disk does not have, and
        // another sync would succeed without it. Without records the next segment takes its place.
        if last.has_records {
            disk::replace(disk, &last.path, &last.bytes)
                .map_err(|error| OpenError::disk("written", &last.path, error))?;
        }
        for path in &scan.leftovers {
            disk::remove_if_there(disk, path).map_err(|error| OpenError::disk("removed", path, error))?;
        }
    } else {
        let made = disk.make_folder(segment::FOLDER).and_then(|()| disk.sync_folder(""));
        made.map_err(|error| OpenError::disk("made", segment::FOLDER, error))?;
    }
    let (header, size_bytes) = author.first_segment(settings, &scan.end);
    let file = segment::prepare(disk, &header, size_bytes)
        .and_then(|file| segment::publish(disk, header.first_lsn).map(|()| file))
        .map_err(|error| OpenError::disk("written", &segment::path(header.first_lsn), error))?;
    let boot = BootFile { boot: author.boot, policy: settings.policy, closed_at: None, may_have_forgotten };
    boot.write(disk).map_err(|error| OpenError::disk("written", BOOT, error))?;
    Ok(Start { torn, file })
}

/// Keeps what is cut off in a file of its own, in place of an earlier one. Without room it is not kept.
fn keep_torn(disk: &impl Disk, lsn: u64, bytes: &[u8]) -> io::Result<Option<String>> {
    for name in disk.list(segment::FOLDER)?.iter().filter(|name| name.starts_with("torn-")) {
        disk::remove_if_there(disk, &format!("{}/{name}", segment::FOLDER))?;
    }
    let path = format!("{}/torn-{lsn:016x}.bin", segment::FOLDER);
    let kept = disk.create(&path).and_then(|mut file| {
        disk::write_all(&mut file, 0, bytes)?;
        file.sync()
    });
    match kept {
        Ok(()) => {
            disk.sync_folder(segment::FOLDER)?;
            Ok(Some(path))
        }
        Err(error) if disk::is_full(&error) => {
            disk::remove_if_there(disk, &path)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
