//! What becomes of a message.

use std::collections::BTreeSet;

use specter_dht::Random;

/// A copy of a message may come so late, in microseconds.
pub(crate) const LATEST_MICROS: u64 = 8_000_000;

/// How slow and how bad the links are.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Shortest and usual longest delay of a message, in microseconds.
    pub delay_micros: (u64, u64),
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// Messages that arrive twice, of a thousand.
    pub duplicate: u64,
    /// Messages that take ten times as long, of a thousand.
    pub slow: u64,
}

impl Weather {
    /// The same links on a good day: nothing is lost, nothing arrives twice or late.
    pub const fn calm(self) -> Self {
        Self { loss: 0, duplicate: 0, slow: 0, ..self }
    }

    /// The delays after which copies of a message between nodes arrive: none when it is lost, more than one when it is
    /// duplicated. Nothing keeps the order. On a bad day the odd copy is very old.
    pub(crate) fn copies(&self, random: &mut Random) -> Vec<u64> {
        let (low, high) = self.delay_micros;
        let mut delays = Vec::new();
        if !random.chance(self.loss) {
            let times = if random.chance(self.slow) { 10 } else { 1 };
            delays.push(random.between(low, high) * times);
        }
        if random.chance(self.duplicate) {
            delays.push(if random.chance(200) {
                random.between(high, LATEST_MICROS)
            } else {
                random.between(low, high * 4)
            });
        }
        delays
    }

    /// The same for what passes between a client and a slot, where copies never are very old: a client sends an
    /// operation again for so long only as slots remember it.
    pub(crate) fn client_copies(&self, random: &mut Random) -> Vec<u64> {
        let (low, high) = self.delay_micros;
        let mut delays = Vec::new();
        if !random.chance(self.loss / 2) {
            delays.push(random.between(low, high));
        }
        if random.chance(self.duplicate) {
            delays.push(random.between(low, 200_000));
        }
        delays
    }
}

/// Which links carry nothing. A link leads from one machine to another, by whatever machines are called.
#[derive(Debug)]
pub(crate) struct Links<N> {
    blocked: BTreeSet<(N, N)>,
}

impl<N: Copy + Ord> Links<N> {
    pub(crate) const fn new() -> Self {
        Self { blocked: BTreeSet::new() }
    }

    pub(crate) fn block(&mut self, from: N, to: N) {
        self.blocked.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(crate) fn is_open(&self, from: N, to: N) -> bool {
        !self.blocked.contains(&(from, to))
    }

    /// Cuts one machine off from the others: what comes in, what goes out, or both.
    pub(crate) fn isolate(&mut self, one: N, others: &[N], inward: bool, outward: bool) {
        for other in others.iter().copied().filter(|other| *other != one) {
            if outward {
                self.block(one, other);
            }
            if inward {
                self.block(other, one);
            }
        }
    }

    /// Cuts all links between machines of which `apart` says so.
    pub(crate) fn split(&mut self, all: &[N], apart: impl Fn(N, N) -> bool) {
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (*from, *to))) {
            if apart(from, to) {
                self.block(from, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_cut_off_one_way_still_speaks_the_other() {
        let mut links = Links::new();
        links.isolate(1, &[1, 2, 3], true, false);
        assert!(!links.is_open(2, 1) && links.is_open(1, 2) && links.is_open(2, 3));
        links.heal();
        links.split(&[1, 2, 3], |a, b| (a == 1) != (b == 1));
        assert!(!links.is_open(1, 3) && !links.is_open(3, 1) && links.is_open(2, 3));
    }

    #[test]
    fn a_calm_day_loses_nothing() {
        let weather = Weather { delay_micros: (1, 5), loss: 900, duplicate: 500, slow: 10 };
        let mut random = Random::seeded(1);
        assert!((0..100).all(|_| weather.calm().copies(&mut random).len() == 1));
        let copies: usize = (0..1000).map(|_| weather.copies(&mut random).len()).sum();
        assert!((500..700).contains(&copies), "{copies} of 1,000");
    }
}
