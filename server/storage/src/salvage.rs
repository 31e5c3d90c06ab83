//! What can still be read of a directory in which something is damaged.
//!
//! [`crate::recover`] refuses such a directory, since a node that forgot something must not go on as the one that it was. Here
//! every record whose checksum is right is handed out, and what was passed over is counted; [`crate::sqlite::salvage`] does
//! so with rows. For a node of which
//! there is neither a backup nor a peer, that is better than nothing.

use std::io;

use crate::{
    disk::{Disk, File as _},
    identity::Identity,
    record::{self, ALIGN_BYTES, Record},
    scan::SEGMENT_BYTES_MAX,
    segment::{self, HEADER_BYTES, Header},
};

/// A disk that cannot read a place reads the others: how much is asked for at a time.
const BLOCK_BYTES: usize = 4096;

/// How much of a log can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readable {
    /// Whose it is, if any segment says so.
    pub identity: Option<Identity>,
    /// Records that were handed out.
    pub records: u64,
    /// Records that must have been between the first and the last of those.
    pub missing: u64,
    /// Segments that cannot be read at all.
    pub segments_lost: u64,
}

/// Hands out every record of the log that is whole, in their order.
///
/// # Errors
/// The folder cannot be listed.
pub fn log(disk: &impl Disk, mut each: impl FnMut(Record<'_>)) -> io::Result<Readable> {
    let names = match disk.list(segment::FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut segments: Vec<u64> = names.iter().filter_map(|name| segment::first_lsn(name)).collect();
    segments.sort_unstable();
    let mut readable = Readable::default();
    let mut last = None;
    for first_lsn in segments {
        let bytes = bytes(disk, &segment::path(first_lsn));
        let Ok(header) = Header::decode(&bytes) else {
            readable.segments_lost += 1;
            continue;
        };
        readable.identity.get_or_insert(header.identity);
        let mut at = HEADER_BYTES;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let next =
                record::decode(rest, header.seed).ok().filter(|read| last.is_none_or(|last| last < read.place.lsn));
            let Some(read) = next else {
                at += ALIGN_BYTES;
                continue;
            };
            at += read.size_bytes;
            readable.missing += last.map_or(0, |last| read.place.lsn - last - 1);
            readable.records += 1;
            last = Some(read.place.lsn);
            each(Record { lsn: read.place.lsn, entry: read.entry });
        }
    }
    Ok(readable)
}

/// What a file holds, with zeros where it cannot be read.
fn bytes(disk: &impl Disk, path: &str) -> Vec<u8> {
    let Ok(file) = disk.open(path) else { return Vec::new() };
    let size_bytes = file.size_bytes().unwrap_or_default().min(SEGMENT_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(size_bytes).unwrap_or_default()];
    let mut at = 0;
    for block in bytes.chunks_mut(BLOCK_BYTES) {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(at + filled as u64, rest) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    block.fill(0);
                    break;
                }
            }
        }
        at += block.len() as u64;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::FaultDisk,
        tests::{NODE, filled, segments},
    };

    /// The numbers of the records that can be read.
    fn read(disk: &FaultDisk) -> (Vec<u64>, Readable) {
        let mut lsns = Vec::new();
        let readable = log(disk, |record| {
            assert_eq!(&record.entry.payload[..8], &record.lsn.to_le_bytes());
            lsns.push(record.lsn);
        });
        (lsns, readable.unwrap())
    }

    #[test]
    fn every_record_but_the_damaged_ones_is_read() {
        let disk = FaultDisk::new();
        assert_eq!(read(&disk), (Vec::new(), Readable::default()));
        // Seven records a segment.
        filled(&disk, 20).close().unwrap();
        let whole = Readable { identity: Some(NODE), records: 20, missing: 0, segments_lost: 0 };
        assert_eq!(read(&disk), ((1..=20).collect(), whole));
        let paths = segments(&disk);
        disk.flip(&paths[0], (HEADER_BYTES + 136 + 50) * 8);
        let (lsns, readable) = read(&disk);
        assert!(!lsns.contains(&2) && lsns.len() == 19, "{lsns:?}");
        assert_eq!(readable, Readable { records: 19, missing: 1, ..whole });
        disk.flip(&paths[1], 10);
        let (lsns, readable) = read(&disk);
        assert_eq!((lsns[..6].to_vec(), readable.segments_lost), (vec![1, 3, 4, 5, 6, 7], 1));
        assert_eq!(readable.records + readable.missing, 20);
        disk.remove(&paths[0]).unwrap();
        assert_eq!(read(&disk).0, lsns[6..]);
    }
}
