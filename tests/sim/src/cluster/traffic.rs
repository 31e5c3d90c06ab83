//! How much nodes say, byte for byte as it goes over the wire.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use serde::Serialize;
use serde::de::DeserializeOwned;
use specter_dht::Packet;
use specter_dht::codec::{self, Bounded};

use super::machine::Name;
use crate::Violation;
use crate::tally::Trace;

/// How much larger than it is meant to be a packet may become by its last part and by what stands around the parts.
const BEYOND_BYTES: usize = 512 * 1024;

/// One in so many is read again from its bytes.
const READ_AGAIN: u64 = 16;

/// How much was said, by whom.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: BTreeMap<Name, Volume>,
    pub(crate) largest_bytes: usize,
    buffer: Vec<u8>,
    written: u64,
}

/// Packets, and their bytes as they go over the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    /// A node sends a packet: it has bytes, not too many, and they say the same.
    pub(crate) fn sent(&mut self, name: Name, packet: &Packet, wished_bytes: usize) -> Result<(), Violation> {
        let bytes = self.written(name, packet)?;
        self.largest_bytes = self.largest_bytes.max(bytes);
        let volume = self.sent.entry(name).or_default();
        volume.packets += 1;
        volume.bytes += bytes as u64;
        if bytes > wished_bytes + BEYOND_BYTES {
            return Err(Violation::Unbounded(format!("{name} sent a packet of {bytes} bytes")));
        }
        Ok(())
    }

    /// How many bytes something has that a node sends or logs, which must be within its bounds.
    pub(crate) fn written<T>(&mut self, name: Name, thing: &T) -> Result<usize, Violation>
    where
        T: Serialize + DeserializeOwned + Bounded + Hash,
    {
        self.buffer.clear();
        let wrong = |error| Violation::Unbounded(format!("{name} writes what cannot be read: {error}"));
        codec::encode(thing, &mut self.buffer).map_err(wrong)?;
        self.written += 1;
        if self.written.is_multiple_of(READ_AGAIN) {
            let read: T = codec::decode(&self.buffer).map_err(wrong)?;
            if hash_of(&read) != hash_of(thing) {
                return Err(Violation::Unbounded(format!("{name} writes what reads differently")));
            }
        }
        Ok(self.buffer.len())
    }

    pub(crate) fn total(&self) -> Volume {
        self.sent.values().fold(Volume::default(), |sum, volume| Volume {
            packets: sum.packets + volume.packets,
            bytes: sum.bytes + volume.bytes,
        })
    }
}

fn hash_of(thing: &impl Hash) -> u64 {
    let mut hash = Trace::default();
    hash.feed(thing);
    hash.finish()
}
