//! How much nodes say.

use std::collections::BTreeMap;

use specter_dht::Packet;

use super::machine::Name;
use crate::Violation;

/// What one more part may add to a packet that was already as large as packets are meant to be: the report of a whole
/// slot, which is not cut into pieces.
const LARGEST_PART_BYTES: usize = 1024 * 1024;

/// How much was said, by whom.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: BTreeMap<Name, Volume>,
    received: BTreeMap<Name, u64>,
    pub(crate) largest_bytes: usize,
}

/// Packets, and their bytes as they go over the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Volume {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    pub(crate) fn sent(&mut self, name: Name, packet: &Packet, wished_bytes: usize) -> Result<(), Violation> {
        let bytes = size(packet);
        self.largest_bytes = self.largest_bytes.max(bytes);
        let volume = self.sent.entry(name).or_default();
        volume.packets += 1;
        volume.bytes += bytes as u64;
        if bytes > wished_bytes + LARGEST_PART_BYTES {
            return Err(Violation::Unbounded(format!("{name} sent a packet of {bytes} bytes")));
        }
        Ok(())
    }

    pub(crate) fn delivered(&mut self, name: Name) {
        *self.received.entry(name).or_default() += 1;
    }

    pub(crate) fn total(&self) -> Volume {
        self.sent.values().fold(Volume::default(), |sum, volume| Volume {
            packets: sum.packets + volume.packets,
            bytes: sum.bytes + volume.bytes,
        })
    }
}

/// How many bytes a packet has on the wire.
fn size(packet: &Packet) -> usize {
    let flavor = postcard::ser_flavors::Size::default();
    // What cannot be encoded is never sent; a node would notice at once.
    postcard::serialize_with_flavor(packet, flavor).unwrap_or(usize::MAX)
}
