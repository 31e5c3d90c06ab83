//! Reads the log from the disk and changes nothing.

use std::{collections::VecDeque, io};

use crate::{
    disk::{self, Disk},
    identity::{Identity, Unreadable},
    log::{APPEND_BYTES_MAX, End, Sealed},
    record::Record,
    recover::OpenError,
    segment::{self, Header, Records, Step},
};

/// Longest file that can be a segment.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// What the log holds after a snapshot.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) end: End,
    /// How many records were handed out.
    pub(crate) records: u64,
    /// Segments that hold nothing but what the snapshot has, oldest first.
    pub(crate) leftovers: Vec<String>,
    /// Nothing if there is no segment.
    pub(crate) last: Option<Last>,
}

/// The last segment.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) path: String,
    /// Up to the end of its last record.
    pub(crate) bytes: Vec<u8>,
    /// Which start of the node wrote it.
    pub(crate) boot: u32,
    pub(crate) has_records: bool,
    /// What a crash left of records that nobody was told of, without the zeros at the end.
    pub(crate) torn: Vec<u8>,
}

/// Reads all records after `snapshot_lsn`, in order.
pub(crate) fn scan<D: Disk>(
    disk: &D,
    author: Option<&Identity>,
    snapshot_lsn: u64,
    mut each: impl FnMut(Record<'_>),
) -> Result<Scan, OpenError> {
    let after = snapshot_lsn.saturating_add(1);
    let names = match disk.list(segment::FOLDER) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(OpenError::disk("read", segment::FOLDER, error)),
    };
    let mut segments: Vec<u64> = names.iter().filter_map(|name| segment::first_lsn(name)).collect();
    segments.sort_unstable();
    let mut scan = Scan {
        end: End { next_lsn: after, chain: 0, sealed: VecDeque::new() },
        records: 0,
        leftovers: Vec::new(),
        last: None,
    };
    let Some(first) = segments.first() else { return Ok(scan) };
    let Some(start) = segments.iter().rposition(|first_lsn| *first_lsn <= after) else {
        return Err(OpenError::Gap { needed: after, found: *first });
    };
    scan.leftovers = segments[..start].iter().map(|first_lsn| segment::path(*first_lsn)).collect();
    scan.end.next_lsn = segments[start];
    for (index, first_lsn) in segments.iter().enumerate().skip(start) {
        let (mut bytes, header) = read(disk, author, *first_lsn)?;
        if *first_lsn > scan.end.next_lsn {
            return Err(OpenError::Gap { needed: scan.end.next_lsn, found: *first_lsn });
        }
        // What came before the first segment that is read is in the snapshot.
        if *first_lsn < scan.end.next_lsn || (index > start && header.chain != scan.end.chain) {
            return Err(OpenError::Chain { path: segment::path(*first_lsn) });
        }
        let is_last = index + 1 == segments.len();
        let mut records = Records::new(&bytes, header);
        let bad = loop {
            match records.step() {
                Step::Record(record) if record.lsn > snapshot_lsn => {
                    scan.records += 1;
                    each(record);
                }
                Step::Record(_) => {}
                Step::End => break None,
                Step::Bad(reason) => break Some(reason),
            }
        };
        let path = segment::path(*first_lsn);
        if let Some(reason) = bad
            && (!is_last || records.proof_of_damage().is_some())
        {
            return Err(OpenError::Damaged { path, offset: records.at(), lsn: records.next_lsn(), reason });
        }
        let end = records.at();
        let has_records = records.next_lsn() > *first_lsn;
        (scan.end.next_lsn, scan.end.chain) = (records.next_lsn(), records.chain());
        if has_records {
            let size_bytes = u64::try_from(end).expect("a length fits 64 bits");
            scan.end.sealed.push_back(Sealed { first_lsn: *first_lsn, size_bytes });
        }
        if is_last {
            let mut torn = bytes.split_off(end);
            torn.truncate(torn.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            scan.last = Some(Last { path, bytes, boot: header.boot, has_records, torn });
        }
    }
    if scan.end.next_lsn <= snapshot_lsn {
        return Err(OpenError::Behind { snapshot: snapshot_lsn, log: scan.end.next_lsn - 1 });
    }
    Ok(scan)
}

fn read<D: Disk>(disk: &D, author: Option<&Identity>, first_lsn: u64) -> Result<(Vec<u8>, Header), OpenError> {
    // A batch may be longer than a segment.
    const { assert!(APPEND_BYTES_MAX < SEGMENT_BYTES_MAX as usize) }
    let path = segment::path(first_lsn);
    let file = disk.open(&path).map_err(|error| OpenError::disk("read", &path, error))?;
    let bytes = disk::read_all(&file, SEGMENT_BYTES_MAX).map_err(|error| OpenError::disk("read", &path, error))?;
    let header = match Header::decode(&bytes) {
        Ok(header) if header.first_lsn == first_lsn && first_lsn > 0 => header,
        Ok(_) => return Err(OpenError::File { path, reason: Unreadable::Damaged }),
        Err(reason) => return Err(OpenError::File { path, reason }),
    };
    if let Some(author) = author {
        OpenError::check_author(&path, author, &header.identity)?;
    }
    Ok((bytes, header))
}
