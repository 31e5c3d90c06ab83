//! A node's own clock: it starts anywhere, runs fast or slow, and may leap.

use specter_dht::{Instant, Random};

/// A clock that shows `offset + time * rate`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset_micros: u64,
    /// Its speed, in parts of a million.
    rate: u64,
}

impl Clock {
    /// A clock that runs fast or slow by at most so many parts of a million.
    pub(crate) fn draw(skew_ppm: u64, random: &mut Random) -> Self {
        Self {
            offset_micros: random.below(1_000_000_000),
            rate: random.between(1_000_000 - skew_ppm, 1_000_000 + skew_ppm),
        }
    }

    /// What it shows at some time.
    pub(crate) fn local(&self, time: u64) -> Instant {
        let micros = u128::from(time) * u128::from(self.rate) / 1_000_000;
        Instant::from_micros(self.offset_micros + u64::try_from(micros).unwrap_or(u64::MAX / 2))
    }

    /// When it will show this.
    pub(crate) fn global(&self, at: Instant) -> u64 {
        if at == Instant::FAR {
            return u64::MAX;
        }
        let micros = u128::from(at.as_micros().saturating_sub(self.offset_micros)) * 1_000_000;
        u64::try_from(micros.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX)
    }

    /// It leaps ahead, as that of a machine that was put to sleep.
    pub(crate) const fn leap(&mut self, micros: u64) {
        self.offset_micros += micros;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_runs_fast_or_slow_is_never_woken_early() {
        for rate in [950_000, 999_999, 1_000_000, 1_050_000] {
            let clock = Clock { rate, offset_micros: 77 };
            for micros in [78, 1_000, 1_234_567, 98_765_432] {
                let at = Instant::from_micros(micros);
                assert!(clock.local(clock.global(at)) >= at, "rate {rate}, at {micros}");
            }
        }
    }

    #[test]
    fn a_leap_brings_everything_nearer() {
        let mut clock = Clock { rate: 1_000_000, offset_micros: 0 };
        clock.leap(500);
        assert_eq!((clock.local(100), clock.global(Instant::from_micros(700))), (Instant::from_micros(600), 200));
    }
}
