//! What becomes of each packet in one direction, decided by a seed and the packet's number.

use std::time::Duration;
use tokio::time::Instant;

/// How a wire treats what it carries, in each direction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Conditions {
    /// Every packet takes at least this long.
    pub delay: Duration,
    /// And up to this much longer; order is kept.
    pub jitter: Duration,
    /// Packets of a thousand that are lost.
    pub loss_per_mille: u16,
    /// Packets of a thousand that skip the delay, and so overtake others.
    pub reorder_per_mille: u16,
    /// Bytes a second that fit through; any number if none.
    pub bytes_per_s: Option<u64>,
}

/// Longest time that a packet waits for a narrow wire; what would wait longer is lost, as in a full queue.
const QUEUE: Duration = Duration::from_millis(200);

/// One direction of a wire.
#[derive(Debug)]
pub struct Line {
    conditions: Conditions,
    seed: u64,
    packets: u64,
    free_at: Option<Instant>,
    last_due: Option<Instant>,
}

impl Line {
    /// A wire that has carried nothing.
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self { conditions, seed, packets: 0, free_at: None, last_due: None }
    }

    /// Treats what comes from now on in another way.
    pub fn set(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// When the next packet comes out at the other end, or none if it is lost.
    pub fn datagram(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let chance = self.next();
        if per_mille(chance) < self.conditions.loss_per_mille {
            return None;
        }
        let sent = self.through(now, bytes);
        if sent.saturating_duration_since(now) > QUEUE {
            return None;
        }
        self.free_at = Some(sent);
        if per_mille(chance >> 16) < self.conditions.reorder_per_mille {
            return Some(sent);
        }
        Some(self.arrival(sent, chance))
    }

    /// When the next bytes of a stream come out at the other end: nothing is lost or overtaken, whatever it costs.
    pub fn stream(&mut self, now: Instant, bytes: usize) -> Instant {
        let chance = self.next();
        let sent = self.through(now, bytes);
        self.free_at = Some(sent);
        self.arrival(sent, chance)
    }

    fn through(&self, now: Instant, bytes: usize) -> Instant {
        let start = self.free_at.map_or(now, |free_at| free_at.max(now));
        match self.conditions.bytes_per_s {
            Some(rate) => start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64),
            None => start,
        }
    }

    fn arrival(&mut self, sent: Instant, chance: u64) -> Instant {
        let jitter = self.conditions.jitter.mul_f64((chance >> 32) as f64 / f64::from(u32::MAX));
        let due = sent + self.conditions.delay + jitter;
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        due
    }

    /// Splitmix64 of the seed and the packet's number.
    fn next(&mut self) -> u64 {
        self.packets += 1;
        let mut mixed = self.seed.wrapping_add(self.packets.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A number below 1000 of the lowest 16 bits.
fn per_mille(chance: u64) -> u16 {
    (((chance & 0xffff) * 1000) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fates(seed: u64, conditions: Conditions, count: u64) -> Vec<Option<Duration>> {
        let start = Instant::now();
        let mut line = Line::new(seed, conditions);
        let fate = |index| line.datagram(start + MS * index, 1200).map(|due| due - start);
        (0..u32::try_from(count).expect("a small number")).map(fate).collect()
    }

    #[test]
    fn the_same_seed_gives_every_packet_the_same_fate_and_another_seed_does_not() {
        let conditions = Conditions { delay: MS * 20, jitter: MS * 9, loss_per_mille: 100, ..Conditions::default() };
        assert_eq!(fates(7, conditions, 1000), fates(7, conditions, 1000));
        assert_ne!(fates(7, conditions, 1000), fates(8, conditions, 1000));
    }

    #[test]
    fn as_many_packets_are_lost_as_was_said() {
        let conditions = Conditions { loss_per_mille: 20, ..Conditions::default() };
        let lost = fates(1, conditions, 100_000).iter().filter(|fate| fate.is_none()).count();
        assert!((1_700..2_300).contains(&lost), "{lost} of 100,000");
        assert!(fates(1, Conditions::default(), 1000).iter().all(Option::is_some));
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let conditions = Conditions { delay: MS * 20, jitter: MS * 30, ..Conditions::default() };
        let due: Vec<_> = fates(3, conditions, 1000).into_iter().flatten().collect();
        assert!(due.is_sorted());
        assert!((0_u32..).zip(&due).all(|(index, due)| *due >= MS * (20 + index)), "none is early");
        let due: Vec<_> =
            fates(3, Conditions { reorder_per_mille: 50, ..conditions }, 1000).into_iter().flatten().collect();
        assert!(!due.is_sorted());
        assert_eq!(due.len(), 1000, "none is lost");
    }

    #[test]
    fn a_narrow_wire_spreads_packets_and_loses_what_would_wait_too_long() {
        let mut line = Line::new(1, Conditions { bytes_per_s: Some(100_000), ..Conditions::default() });
        let now = Instant::now();
        let due: Vec<_> = (0..30).filter_map(|_| line.datagram(now, 1000)).map(|due| due - now).collect();
        assert_eq!(due.len(), 20, "200 ms of 100 kB/s");
        assert_eq!(due[0], MS * 10);
        assert_eq!(due[19], MS * 200);
        assert_eq!(line.stream(now, 1000) - now, MS * 210, "a stream waits");
    }
}
