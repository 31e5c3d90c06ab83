//! One file of the log: a header, then records without a gap, then zeros.
//!
//! | bytes | what of the header |
//! |---|---|
//! | 4 | "RLOG" |
//! | 2 | format |
//! | 2 | zero |
//! | 16 | node |
//! | 16 | cluster |
//! | 8 | number of its first record |
//! | 4 | checksum of the record before that |
//! | 4 | seed of the records' checksums |
//! | 4 | start of the node that wrote it |
//! | 4 | CRC-32C of all that |

use std::io;

use crate::{
    disk::{self, Disk, File},
    identity::{self, Identity, Unreadable, array},
    record::{self, ALIGN_BYTES, Decoded, HEAD_BYTES, NoRecord, Record},
};

/// Bytes in front of the first record.
pub const HEADER_BYTES: usize = 64;

/// Where the segments are.
pub(crate) const FOLDER: &str = "log";

/// A segment that is being made.
pub(crate) const NEXT: &str = "log/next.tmp";

const MAGIC: [u8; 4] = *b"RLOG";

/// What a segment says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The node that wrote it.
    pub identity: Identity,
    /// Number of its first record.
    pub first_lsn: u64,
    /// Checksum of the record before that.
    pub chain: u32,
    /// What its records' checksums start from. No peer knows it, so bytes that somebody stores never pass for a record.
    pub seed: u32,
    /// Which start of the node wrote it, counted from 1.
    pub boot: u32,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[8..24].copy_from_slice(&self.identity.node);
        bytes[24..40].copy_from_slice(&self.identity.cluster);
        bytes[40..48].copy_from_slice(&self.first_lsn.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.chain.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.seed.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.boot.to_le_bytes());
        identity::seal(&mut bytes, MAGIC);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes: &[u8; HEADER_BYTES] = identity::unseal(bytes, MAGIC)?;
        Ok(Self {
            identity: Identity { node: array(&bytes[8..24]), cluster: array(&bytes[24..40]) },
            first_lsn: u64::from_le_bytes(array(&bytes[40..48])),
            chain: u32::from_le_bytes(array(&bytes[48..52])),
            seed: u32::from_le_bytes(array(&bytes[52..56])),
            boot: u32::from_le_bytes(array(&bytes[56..60])),
        })
    }
}

/// Makes a segment that nobody sees yet: header, zeros up to its length, all durable. [`publish`] gives it its name.
pub(crate) fn prepare<D: Disk>(disk: &D, header: &Header, size_bytes: u64) -> io::Result<D::File> {
    let mut file = disk.create(NEXT)?;
    disk::write_all(&mut file, 0, &header.encode())?;
    let header_bytes = u64::try_from(HEADER_BYTES).expect("a length fits 64 bits");
    disk::write_zeros(&mut file, header_bytes, size_bytes)?;
    file.sync()?;
    Ok(file)
}

/// Gives the prepared segment its name. A segment is never seen without a whole header.
pub(crate) fn publish(disk: &impl Disk, first_lsn: u64) -> io::Result<()> {
    disk.rename(NEXT, &path(first_lsn))?;
    disk.sync_folder(FOLDER)
}

/// A segment's path: its name is the number of its first record.
pub(crate) fn path(first_lsn: u64) -> String {
    format!("log/{first_lsn:016x}.seg")
}

/// The number in a segment's name; nothing if the name is not exactly one that [`path`] makes.
pub(crate) fn first_lsn(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let first_lsn = u64::from_str_radix(digits, 16).ok()?;
    (digits == format!("{first_lsn:016x}")).then_some(first_lsn)
}

/// Reads the records of a segment in their order. It borrows the file's bytes and allocates nothing.
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    header: Header,
    next_lsn: u64,
    chain: u32,
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step<'a> {
    Record(Record<'a>),
    /// Nothing but zeros from here.
    End,
    /// Something that is not the record that belongs here.
    Bad(NoRecord),
}

impl<'a> Records<'a> {
    /// `bytes` is the whole file, the header included.
    pub(crate) fn new(bytes: &'a [u8], header: Header) -> Self {
        Self { bytes, at: HEADER_BYTES.min(bytes.len()), header, next_lsn: header.first_lsn, chain: header.chain }
    }

    /// The next record. After [`Step::End`] and [`Step::Bad`] it stays where it is.
    pub(crate) fn step(&mut self) -> Step<'a> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match record::decode(rest, self.header.seed) {
            Ok(read) if read.place.lsn == self.next_lsn && read.place.chain == self.chain => {
                let record = Record { lsn: self.next_lsn, entry: read.entry };
                self.at = (self.at + read.size_bytes).min(self.bytes.len());
                self.next_lsn = self.next_lsn.saturating_add(1);
                self.chain = read.checksum;
                Step::Record(record)
            }
            Ok(_) => Step::Bad(NoRecord::Other),
            Err(_) if rest.iter().all(|byte| *byte == 0) => Step::End,
            Err(reason) => Step::Bad(reason),
        }
    }

    /// Where the next record would stand.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The number that the next record would have.
    pub(crate) fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Checksum of the last record.
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    /// A later record that was written when the next record was durable: it proves that what is bad here was damaged.
    ///
    /// Without one, whatever stands here was written after the last sync that anybody waited for: a crash may keep any
    /// part of it, later parts without earlier ones too.
    pub(crate) fn proof_of_damage(&self) -> Option<u64> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        // Numbers of records that could stand in the rest.
        let most = u64::try_from(rest.len() / HEAD_BYTES).unwrap_or(u64::MAX);
        let likely = self.next_lsn..=self.next_lsn.saturating_add(most);
        let proves = |read: &Decoded<'_>| likely.contains(&read.place.lsn) && read.place.durable() >= self.next_lsn;
        (0..rest.len())
            .step_by(ALIGN_BYTES)
            .filter_map(|offset| record::decode(&rest[offset..], self.header.seed).ok())
            .find(proves)
            .map(|read| read.place.lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Entry, Place, encode};

    const HEADER: Header = Header {
        identity: Identity { node: [1; 16], cluster: [2; 16] },
        first_lsn: 10,
        chain: 77,
        seed: 0xfeed_5eed,
        boot: 3,
    };

    /// A segment of records that hold their number, in batches of these sizes, with the offsets of the records.
    fn segment(batches: &[u32]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (HEADER.encode().to_vec(), Vec::new());
        let (mut lsn, mut chain) = (HEADER.first_lsn, HEADER.chain);
        for unsynced in batches.iter().flat_map(|size| 0..*size) {
            starts.push(bytes.len());
            let entry = Entry { kind: 1, slot: 2, payload: &lsn.to_le_bytes() };
            chain = encode(&mut bytes, HEADER.seed, Place { lsn, unsynced, chain }, entry);
            lsn += 1;
        }
        (bytes, starts)
    }

    fn read(bytes: &[u8]) -> (u64, Step<'_>, Option<u64>) {
        let mut records = Records::new(bytes, HEADER);
        loop {
            match records.step() {
                Step::Record(record) => assert_eq!(record.entry.payload, record.lsn.to_le_bytes()),
                step @ (Step::End | Step::Bad(_)) => return (records.next_lsn(), step, records.proof_of_damage()),
            }
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
    }

    #[test]
    fn any_changed_bit_of_a_header_is_noticed() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Err(Unreadable::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn another_format_is_told_by_its_number() {
        let mut bytes = HEADER.encode();
        bytes[4] = 9;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(Unreadable::Format(9)));
    }

    #[test]
    fn a_name_is_read_only_as_it_is_written() {
        assert_eq!(path(0xab), "log/00000000000000ab.seg");
        assert_eq!(first_lsn("00000000000000ab.seg"), Some(0xab));
        for other in ["00000000000000AB.seg", "ab.seg", "+0000000000000ab.seg", "torn-00000000000000ab.bin", ".seg"] {
            assert_eq!(first_lsn(other), None, "{other}");
        }
    }

    #[test]
    fn records_are_read_up_to_the_zeros() {
        let (mut bytes, _) = segment(&[1, 3]);
        assert_eq!(read(&bytes), (14, Step::End, None));
        bytes.resize(bytes.len() + 4096, 0);
        assert_eq!(read(&bytes), (14, Step::End, None));
    }

    #[test]
    fn a_hole_in_the_last_batch_is_a_torn_tail() {
        let (mut bytes, starts) = segment(&[2, 3]);
        bytes[starts[2]..starts[3]].fill(0);
        assert_eq!(read(&bytes), (12, Step::Bad(NoRecord::Head), None));
    }

    #[test]
    fn a_hole_before_the_last_batch_is_damage() {
        let (mut bytes, starts) = segment(&[2, 3, 1]);
        bytes[starts[2]] ^= 1;
        assert_eq!(read(&bytes), (12, Step::Bad(NoRecord::Head), Some(15)));
    }

    #[test]
    fn a_record_in_the_place_of_another_is_noticed() {
        let (bytes, starts) = segment(&[1, 1, 1]);
        let mut doubled = bytes.clone();
        doubled.copy_within(starts[0]..starts[1], starts[1]);
        assert_eq!(read(&doubled), (11, Step::Bad(NoRecord::Other), Some(12)));
    }

    #[test]
    fn a_stored_record_does_not_pass_for_one_of_the_log() {
        let mut inner = Vec::new();
        let forged = Place { lsn: 12, unsynced: 0, chain: 0 };
        encode(&mut inner, 0, forged, Entry { kind: 1, slot: 1, payload: b"forged" });
        let mut bytes = HEADER.encode().to_vec();
        encode(
            &mut bytes,
            HEADER.seed,
            Place { lsn: 10, unsynced: 0, chain: 77 },
            Entry { kind: 1, slot: 2, payload: &inner },
        );
        bytes[HEADER_BYTES] ^= 1;
        assert_eq!(read(&bytes), (10, Step::Bad(NoRecord::Head), None));
    }

    #[test]
    fn any_bytes_are_scanned_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(header) = Header::decode(bytes) {
                assert_eq!(header.encode(), bytes[..HEADER_BYTES]);
            }
            let mut records = Records::new(bytes, HEADER);
            while let Step::Record(_) = records.step() {}
            assert!(records.at() <= bytes.len());
            records.proof_of_damage();
        });
    }

    #[test]
    fn a_segment_changed_anywhere_is_scanned_without_a_panic_and_never_read_wrong() {
        let (whole, _) = segment(&[1, 4, 2, 9]);
        bolero::check!().with_type::<Vec<(u16, u8)>>().for_each(|changes| {
            let mut bytes = whole.clone();
            for (at, byte) in changes {
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *byte;
            }
            read(&bytes);
        });
    }
}
