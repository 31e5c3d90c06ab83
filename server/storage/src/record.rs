//! One record of the log, as bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32C of the rest of the head, started from the segment's seed |
//! | 4 | length of the payload, 1 to [`PAYLOAD_BYTES_MAX`]; 0 ends the log |
//! | 8 | number of the record (LSN), contiguous from 1 |
//! | 4 | how many records right before it were not yet known to be durable when it was written |
//! | 4 | checksum of the record before it |
//! | 4 | CRC-32C of the payload |
//! | 2 | slot |
//! | 1 | kind |
//! | 1 | zero |
//! | n | payload, then zeros up to a multiple of 8 |
//!
//! Little endian. The head has a checksum of its own, so that a length is believed before the payload is read.

use thiserror::Error;

/// Bytes in front of a payload.
pub const HEAD_BYTES: usize = 32;

/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Records start at multiples of this.
pub const ALIGN_BYTES: usize = 8;

/// What is to be logged. The log does not look into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// What the payload is; the meaning is the caller's.
    pub kind: u8,
    /// The slot it concerns.
    pub slot: u16,
    /// 1 to [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: &'a [u8],
}

/// An entry that the log holds, and its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its number: one more than that of the record before it.
    pub lsn: u64,
    /// What was logged.
    pub entry: Entry<'a>,
}

/// Where a record stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) lsn: u64,
    pub(crate) unsynced: u32,
    /// Checksum of the record before it.
    pub(crate) chain: u32,
}

impl Place {
    /// The last record that was durable when this one was written.
    pub(crate) fn durable(&self) -> u64 {
        self.lsn.saturating_sub(u64::from(self.unsynced)).saturating_sub(1)
    }
}

/// A record that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decoded<'a> {
    pub(crate) place: Place,
    pub(crate) entry: Entry<'a>,
    /// Its checksum, which the next record repeats.
    pub(crate) checksum: u32,
    /// Bytes up to the next record.
    pub(crate) size_bytes: usize,
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum NoRecord {
    /// Fewer bytes than a head has, or than its length says.
    #[error("the file ends inside it")]
    Short,
    /// The head's checksum is wrong, or it says what no writer writes.
    #[error("its head is damaged")]
    Head,
    /// The payload's checksum is wrong.
    #[error("its payload is damaged")]
    Payload,
    /// It is whole, and another record than the one that belongs here.
    #[error("another record stands in its place")]
    Other,
}

/// How many bytes an entry takes in the log.
pub(crate) fn size_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Appends a record to `out` and returns its checksum.
pub(crate) fn encode(out: &mut Vec<u8>, seed: u32, place: Place, entry: Entry<'_>) -> u32 {
    let length = u32::try_from(entry.payload.len()).expect("the writer refuses longer payloads");
    let mut head = [0; HEAD_BYTES];
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..16].copy_from_slice(&place.lsn.to_le_bytes());
    head[16..20].copy_from_slice(&place.unsynced.to_le_bytes());
    head[20..24].copy_from_slice(&place.chain.to_le_bytes());
    head[24..28].copy_from_slice(&crc32c::crc32c(entry.payload).to_le_bytes());
    head[28..30].copy_from_slice(&entry.slot.to_le_bytes());
    head[30] = entry.kind;
    let checksum = crc32c::crc32c_append(seed, &head[4..]);
    head[..4].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(entry.payload);
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
    checksum
}

/// Reads the record at the start of `bytes`.
pub(crate) fn decode(bytes: &[u8], seed: u32) -> Result<Decoded<'_>, NoRecord> {
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(NoRecord::Short)?;
    let checksum = u32_at(head, 0);
    if crc32c::crc32c_append(seed, &head[4..]) != checksum {
        return Err(NoRecord::Head);
    }
    let length = usize::try_from(u32_at(head, 4)).map_err(|_| NoRecord::Head)?;
    if !(1..=PAYLOAD_BYTES_MAX).contains(&length) || head[31] != 0 {
        return Err(NoRecord::Head);
    }
    let payload = bytes.get(HEAD_BYTES..HEAD_BYTES + length).ok_or(NoRecord::Short)?;
    if crc32c::crc32c(payload) != u32_at(head, 24) {
        return Err(NoRecord::Payload);
    }
    let mut lsn = [0; 8];
    lsn.copy_from_slice(&head[8..16]);
    Ok(Decoded {
        place: Place { lsn: u64::from_le_bytes(lsn), unsynced: u32_at(head, 16), chain: u32_at(head, 20) },
        entry: Entry { kind: head[30], slot: u16::from_le_bytes([head[28], head[29]]), payload },
        checksum,
        size_bytes: size_bytes(length),
    })
}

fn u32_at(head: &[u8; HEAD_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    const PLACE: Place = Place { lsn: 7, unsynced: 2, chain: 99 };

    fn encoded(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, 5, PLACE, Entry { kind: 3, slot: 513, payload });
        bytes
    }

    #[test]
    fn the_encoding_is_fixed() {
        let bytes = encoded(b"abc");
        assert_eq!(
            bytes,
            [
                174, 215, 177, 181, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 99, 0, 0, 0, 0xb7, 0x3f, 0x4b,
                0x36, 1, 2, 3, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0
            ]
        );
    }

    #[test]
    fn any_changed_bit_but_padding_is_noticed() {
        let whole = encoded(b"hello");
        for bit in 0..(HEAD_BYTES + 5) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, 5).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_segment_does_not_pass() {
        assert_eq!(decode(&encoded(b"hello"), 6), Err(NoRecord::Head));
    }

    #[test]
    fn a_place_tells_what_was_durable() {
        assert_eq!(PLACE.durable(), 4);
        assert_eq!(Place { lsn: 1, unsynced: 9, chain: 0 }.durable(), 0);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read(
            lsn: u64, unsynced: u32, chain: u32, seed: u32, kind: u8, slot: u16, payload in vec(any::<u8>(), 1..300),
        ) {
            let (place, entry) = (Place { lsn, unsynced, chain }, Entry { kind, slot, payload: &payload });
            let mut bytes = Vec::new();
            let checksum = encode(&mut bytes, seed, place, entry);
            let size_bytes = bytes.len();
            prop_assert_eq!(size_bytes % ALIGN_BYTES, 0);
            prop_assert_eq!(decode(&bytes, seed), Ok(Decoded { place, entry, checksum, size_bytes }));
        }

        #[test]
        fn a_record_cut_short_is_told(payload in vec(any::<u8>(), 1..100), cut in 0_usize..1000) {
            let bytes = encoded(&payload);
            let cut = cut % (HEAD_BYTES + payload.len());
            prop_assert_eq!(decode(&bytes[..cut], 5), Err(NoRecord::Short));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            // With the right checksum put in front, so that the rest of the head is reached.
            let mut bytes = bytes.to_vec();
            for seed in [0, 5] {
                if let Ok(read) = decode(&bytes, seed) {
                    assert!(read.size_bytes <= bytes.len().next_multiple_of(ALIGN_BYTES));
                }
                if bytes.len() >= HEAD_BYTES {
                    let checksum = crc32c::crc32c_append(5, &bytes[4..HEAD_BYTES]);
                    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
                }
            }
        });
    }
}
