//! Pure: how many questions may be asked in some time.

use std::time::Duration;

/// So many at once, and so many more in each second. Time is what has passed since some moment.
#[derive(Debug)]
pub(super) struct Budget {
    most: u32,
    per_second: u32,
    left: f64,
    counted: Duration,
}

impl Budget {
    pub(super) fn new(most: u32, per_second: u32) -> Self {
        Self { most, per_second, left: most.into(), counted: Duration::ZERO }
    }

    /// Takes one if there is one left.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.counted);
        self.counted = self.counted.max(now);
        self.left = (self.left + passed.as_secs_f64() * f64::from(self.per_second)).min(self.most.into());
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_comes_back_with_time_up_to_its_bound() {
        let mut budget = Budget::new(3, 2);
        let taken = |budget: &mut Budget, now| (0..9).filter(|_| budget.take(Duration::from_secs(now))).count();
        assert_eq!(taken(&mut budget, 0), 3);
        assert_eq!(taken(&mut budget, 1), 2);
        assert_eq!(taken(&mut budget, 1), 0);
        assert_eq!(taken(&mut budget, 100), 3);
        assert_eq!(taken(&mut budget, 50), 0, "time that runs backwards gives nothing");
    }
}
