//! Measured values by name. A name ends with its unit.

use std::collections::BTreeMap;

pub(crate) type Measurements = BTreeMap<String, f64>;

pub(crate) fn medians(runs: &[Measurements]) -> Measurements {
    let mut by_name: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.iter().flatten() {
        by_name.entry(name).or_default().push(*value);
    }
    by_name
        .into_iter()
        .map(|(name, values)| (name.clone(), median(values)))
        .collect()
}

/// The middle value, or the mean of the two middle values. 0 of no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = |index: usize| values.get(index).copied().unwrap_or(0.0);
    let upper = values.len() / 2;
    f64::midpoint(middle(values.len().saturating_sub(1) / 2), middle(upper))
}

/// The smallest value that is at least as large as this share of all values. 0 of no values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index is a small number"
)]
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (count(values.len().saturating_sub(1) as u64) * share).ceil();
    values.get(index as usize).copied().unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_measured_value_and_a_median_may_lie_between_two() {
        let is = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-9, "{value}");
        is(median(vec![3.0, 1.0, 2.0]), 2.0);
        is(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        is(median(vec![]), 0.0);
        is(percentile(vec![4.0, 1.0, 2.0, 3.0], 0.99), 4.0);
        is(percentile(vec![4.0, 1.0, 2.0, 3.0], 0.0), 1.0);
        is(percentile(vec![], 0.5), 0.0);
    }
}
