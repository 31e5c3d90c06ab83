//! Who wrote a directory, and how it was left: the files `IDENTITY` and `BOOT`.

use std::io;

use thiserror::Error;

use crate::{
    disk::{self, Disk},
    settings::Policy,
};

/// Version of every file of this crate. Others are refused by number.
pub const FORMAT: u16 = 1;

/// The file that says whose a directory is.
pub const IDENTITY: &str = "IDENTITY";
pub(crate) const BOOT: &str = "BOOT";

/// The node that a directory belongs to. Every file of it says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The node.
    pub node: [u8; 16],
    /// Its cluster.
    pub cluster: [u8; 16],
}

/// One start of a node on a directory.
///
/// The number grows with every start, so it tells an older copy of a directory; the rest is drawn anew, so it tells two
/// copies from each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boot {
    /// Counted from 1.
    pub number: u32,
    /// Drawn for this start.
    pub id: [u8; 16],
}

/// What `BOOT` says: the last start, and how it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BootFile {
    pub(crate) boot: Boot,
    pub(crate) policy: Policy,
    /// The last record, if the log was closed and nothing may follow.
    pub(crate) closed_at: Option<u64>,
    /// Records that were confirmed may be missing, and the node has not yet begun anew among its peers.
    pub(crate) may_have_forgotten: bool,
}

/// Why a file's bytes cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unreadable {
    /// Too short, another program's, or damaged.
    #[error("it is damaged")]
    Damaged,
    /// Whole, and of another version of this program.
    #[error("it has format {0}, and this version knows format {FORMAT}")]
    Format(u16),
}

const IDENTITY_MAGIC: [u8; 4] = *b"RIDN";
const IDENTITY_BYTES: usize = 44;
const BOOT_MAGIC: [u8; 4] = *b"RBOT";
const BOOT_BYTES: usize = 40;

impl Identity {
    /// The identity of a directory, or nothing if it has none yet.
    ///
    /// # Errors
    /// What the disk says, or [`Unreadable`] inside.
    pub fn read(disk: &impl Disk) -> io::Result<Option<Result<Self, Unreadable>>> {
        Ok(read(disk, IDENTITY)?.map(|bytes| Self::decode(&bytes)))
    }

    pub(crate) fn write(&self, disk: &impl Disk) -> io::Result<()> {
        disk::replace(disk, IDENTITY, &self.encode())
    }

    fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut bytes = [0; IDENTITY_BYTES];
        bytes[8..24].copy_from_slice(&self.node);
        bytes[24..40].copy_from_slice(&self.cluster);
        seal(&mut bytes, IDENTITY_MAGIC);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes: &[u8; IDENTITY_BYTES] = unseal(bytes, IDENTITY_MAGIC)?;
        Ok(Self { node: array(&bytes[8..24]), cluster: array(&bytes[24..40]) })
    }
}

impl BootFile {
    pub(crate) fn read(disk: &impl Disk) -> io::Result<Option<Result<Self, Unreadable>>> {
        Ok(read(disk, BOOT)?.map(|bytes| Self::decode(&bytes)))
    }

    pub(crate) fn write(&self, disk: &impl Disk) -> io::Result<()> {
        disk::replace(disk, BOOT, &self.encode())
    }

    fn encode(&self) -> [u8; BOOT_BYTES] {
        let mut bytes = [0; BOOT_BYTES];
        bytes[6] = match self.policy {
            Policy::Always => 0,
            Policy::EverySecond => 1,
        };
        bytes[7] = u8::from(self.closed_at.is_some()) | u8::from(self.may_have_forgotten) << 1;
        bytes[8..12].copy_from_slice(&self.boot.number.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.boot.id);
        bytes[28..36].copy_from_slice(&self.closed_at.unwrap_or_default().to_le_bytes());
        seal(&mut bytes, BOOT_MAGIC);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes: &[u8; BOOT_BYTES] = unseal(bytes, BOOT_MAGIC)?;
        let policy = match bytes[6] {
            0 => Policy::Always,
            1 => Policy::EverySecond,
            _ => return Err(Unreadable::Damaged),
        };
        let last = u64::from_le_bytes(array(&bytes[28..36]));
        Ok(Self {
            boot: Boot { number: u32::from_le_bytes(array(&bytes[8..12])), id: array(&bytes[12..28]) },
            policy,
            closed_at: (bytes[7] & 1 != 0).then_some(last),
            may_have_forgotten: bytes[7] & 2 != 0,
        })
    }
}

/// Puts magic and format in front, and the checksum of all at the end.
pub(crate) fn seal<const N: usize>(bytes: &mut [u8; N], magic: [u8; 4]) {
    bytes[..4].copy_from_slice(&magic);
    bytes[4..6].copy_from_slice(&FORMAT.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..N - 4]);
    bytes[N - 4..].copy_from_slice(&checksum.to_le_bytes());
}

/// The first bytes of a file, if they were sealed with this magic.
pub(crate) fn unseal<const N: usize>(bytes: &[u8], magic: [u8; 4]) -> Result<&[u8; N], Unreadable> {
    let bytes = bytes.first_chunk::<N>().ok_or(Unreadable::Damaged)?;
    let checksum = u32::from_le_bytes(array(&bytes[N - 4..]));
    if bytes[..4] != magic || crc32c::crc32c(&bytes[..N - 4]) != checksum {
        return Err(Unreadable::Damaged);
    }
    match u16::from_le_bytes([bytes[4], bytes[5]]) {
        FORMAT => Ok(bytes),
        other => Err(Unreadable::Format(other)),
    }
}

/// The first `N` bytes; zeros where there are none.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    let length = N.min(bytes.len());
    array[..length].copy_from_slice(&bytes[..length]);
    array
}

fn read(disk: &impl Disk, path: &str) -> io::Result<Option<Vec<u8>>> {
    match disk.open(path) {
        Ok(file) => disk::read_all(&file, 4096).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultDisk;

    const SELF: Identity = Identity { node: [1; 16], cluster: [2; 16] };
    const LEFT: BootFile = BootFile {
        boot: Boot { number: 7, id: [3; 16] },
        policy: Policy::EverySecond,
        closed_at: Some(12),
        may_have_forgotten: true,
    };

    #[test]
    fn both_files_are_read_as_they_were_written() {
        let disk = FaultDisk::new();
        assert_eq!(Identity::read(&disk).unwrap(), None);
        assert_eq!(BootFile::read(&disk).unwrap(), None);
        SELF.write(&disk).unwrap();
        LEFT.write(&disk).unwrap();
        let disk = disk.after_crash(|| false);
        assert_eq!(Identity::read(&disk).unwrap(), Some(Ok(SELF)));
        assert_eq!(BootFile::read(&disk).unwrap(), Some(Ok(LEFT)));
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        for bit in 0..IDENTITY_BYTES * 8 {
            let mut bytes = SELF.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&bytes), Err(Unreadable::Damaged));
        }
        for bit in 0..BOOT_BYTES * 8 {
            let mut bytes = LEFT.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BootFile::decode(&bytes), Err(Unreadable::Damaged));
        }
    }

    #[test]
    fn one_file_does_not_pass_for_the_other() {
        assert_eq!(BootFile::decode(&SELF.encode()), Err(Unreadable::Damaged));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = (Identity::decode(bytes), BootFile::decode(bytes));
        });
    }
}
