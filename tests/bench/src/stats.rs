//! Pure: medians, percentiles and the choice of the rounds that were disturbed least.

/// The median, or 0 of nothing. Of an even number, the mean of the middle two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// The smallest of `sorted` that at least `share` (0 to 1) of them do not exceed, or 0 of nothing.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0)
}

/// Indices of the rounds to keep, given how much each was disturbed: three in five, at least one, least disturbed first.
pub(crate) fn calmest(disturbance: &[f64]) -> Vec<usize> {
    let mut rounds: Vec<usize> = (0..disturbance.len()).collect();
    rounds.sort_by(|a, b| disturbance[*a].total_cmp(&disturbance[*b]));
    rounds.truncate((disturbance.len() * 3).div_ceil(5));
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn a_percentile_is_one_of_the_values_and_never_outside_them() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.5), 50);
        assert_eq!(percentile(&values, 0.99), 99);
        assert_eq!(percentile(&values, 1.0), 100);
        assert_eq!(percentile(&values, 0.0), 1);
        assert_eq!(percentile(&[7], 0.99), 7);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn three_of_five_rounds_are_kept_and_the_noisiest_go() {
        assert_eq!(calmest(&[0.5, 0.1, 0.9, 0.2, 0.3]), [1, 3, 4]);
        assert_eq!(calmest(&[0.5, 0.1, 0.2]), [1, 2]);
        assert_eq!(calmest(&[0.5]), [0]);
        assert!(calmest(&[]).is_empty());
    }
}
