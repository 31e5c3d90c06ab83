//! Packets in a stream of bytes: each behind its length. Pure.

use crate::PACKET_BYTES;
use std::io;

/// Bytes that came, up to the packet that is not whole yet.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbound {
    /// Copies the next whole packet into `buffer`; tells its length.
    ///
    /// # Errors
    /// No packet can be as long as this one says.
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some((prefix, rest)) = self.bytes[self.start..self.end].split_first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length == 0 || length > usize::from(PACKET_BYTES) || length > buffer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(packet) = rest.get(..length) else { return Ok(None) };
        buffer[..length].copy_from_slice(packet);
        self.start += PREFIX_BYTES + length;
        Ok(Some(length))
    }

    /// Where the next bytes go; never nothing once no whole packet is left.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.bytes.resize(READ_BYTES, 0);
        &mut self.bytes[self.end..]
    }

    /// Nothing more has come: an idle link keeps no room for what may come.
    pub(crate) fn rest(&mut self) {
        if self.start == self.end {
            *self = Self::default();
        }
    }

    /// So many bytes came there.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count;
    }
}

/// Packets that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbound {
    /// Adds a packet. One that is too long for the other side is left out, as a network would do.
    pub(crate) fn put(&mut self, packet: &[u8]) {
        if let Ok(length) = u16::try_from(packet.len())
            && (1..=PACKET_BYTES).contains(&length)
        {
            self.bytes.extend_from_slice(&length.to_be_bytes());
            self.bytes.extend_from_slice(packet);
        }
    }

    /// What is to be written next.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// So many bytes of it were written.
    pub(crate) fn written(&mut self, count: usize) {
        self.written += count;
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            // A link that is idle for hours keeps what its keep-alives need.
            self.bytes.shrink_to(IDLE_BYTES);
        } else if self.written >= QUEUE_BYTES {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Whether packets may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.len() - self.written < QUEUE_BYTES
    }
}

const PREFIX_BYTES: usize = 2;

/// Read at once: a whole record of TLS.
const READ_BYTES: usize = 16 << 10;

/// Packets wait here up to so many bytes, and one handful more. Enough for a full write, little enough that a small request
/// does not stand behind a long queue.
const QUEUE_BYTES: usize = 64 << 10;

const IDLE_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(inbound: &mut Inbound, bytes: &[u8]) {
        inbound.room()[..bytes.len()].copy_from_slice(bytes);
        inbound.filled(bytes.len());
    }

    #[test]
    fn packets_come_out_as_they_went_in_however_the_stream_is_cut() {
        let sizes = [1, 2, 1200, 1472, 7];
        let packets: Vec<Vec<u8>> = (0..).zip(sizes).map(|(n, size)| vec![n; size]).collect();
        let mut outbound = Outbound::default();
        packets.iter().for_each(|packet| outbound.put(packet));
        let bytes = outbound.rest().to_vec();
        for step in [1, 2, 3, 1000, bytes.len()] {
            let (mut inbound, mut came, mut buffer) = (Inbound::default(), Vec::new(), [0; 1472]);
            for piece in bytes.chunks(step) {
                fill(&mut inbound, piece);
                while let Some(length) = inbound.take(&mut buffer).expect("a packet") {
                    came.push(buffer[..length].to_vec());
                }
            }
            assert_eq!(came, packets, "{step}");
        }
    }

    #[test]
    fn what_is_idle_holds_nothing_and_half_a_packet_stays() {
        let mut inbound = Inbound::default();
        fill(&mut inbound, &[0, 1, 7, 0]);
        assert_eq!(inbound.take(&mut [0; 9]).expect("a packet"), Some(1));
        inbound.rest();
        fill(&mut inbound, &[1, 8]);
        assert_eq!(inbound.take(&mut [0; 9]).expect("a packet"), Some(1));
        inbound.rest();
        assert_eq!(inbound.bytes.capacity(), 0);
    }

    #[test]
    fn a_length_that_no_packet_has_is_refused_before_its_bytes_come() {
        for length in [0, PACKET_BYTES + 1, u16::MAX] {
            let mut inbound = Inbound::default();
            fill(&mut inbound, &length.to_be_bytes());
            assert!(inbound.take(&mut [0; 2048]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_written_makes_room() {
        let mut outbound = Outbound::default();
        let mut count = 0;
        while outbound.has_room() {
            outbound.put(&[0; 1472]);
            count += 1;
        }
        assert!((QUEUE_BYTES / 1474..=QUEUE_BYTES / 1474 + 1).contains(&count), "{count}");
        outbound.written(1474);
        assert!(outbound.has_room());
        outbound.written(outbound.rest().len());
        assert!(outbound.rest().is_empty() && outbound.bytes.capacity() <= IDLE_BYTES);
        outbound.put(&[0; 1473]);
        assert!(outbound.rest().is_empty());
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let mut outbound = Outbound::default();
        for _ in 0..10_000 {
            outbound.put(&[0; 1472]);
            outbound.put(&[0; 1472]);
            outbound.written(outbound.rest().len() - 1);
        }
        assert!(outbound.bytes.len() <= 2 * QUEUE_BYTES, "{}", outbound.bytes.len());
    }
}
