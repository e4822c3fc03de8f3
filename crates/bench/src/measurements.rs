//! Measured values by name. A name ends with its unit.

use serde::Serialize;
use serde::ser::SerializeMap as _;

/// Values of one run, or medians of several runs, in the order of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measurements(Vec<(&'static str, f64)>);

impl Measurements {
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    /// Adds a value unless the system does not provide it.
    pub(crate) fn add_some(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().copied()
    }

    /// The medians of several runs.
    pub(crate) fn medians(runs: &[Self]) -> Self {
        let Some(first) = runs.first() else {
            return Self::default();
        };
        let medians = first.iter().map(|(name, _)| {
            let values = runs.iter().filter_map(|run| run.get(name)).collect();
            (name, median(values))
        });
        Self(medians.collect())
    }
}

impl Serialize for Measurements {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The middle value, or the mean of the two middle values. 0 of no values.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    let half = |values| percentile(values, 0.5);
    let negated = values.iter().map(|value| -value).collect();
    f64::midpoint(half(values), -half(negated))
}

/// The smallest value that is at least as large as this share of all values. 0 of no values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank is a small number"
)]
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len().saturating_sub(1) as f64 * share).ceil();
    values.get(rank as usize).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_measured_value_and_a_median_may_lie_between_two() {
        let close = |value: f64, expected: f64| {
            assert!(
                (value - expected).abs() < 1e-9,
                "{value} instead of {expected}"
            );
        };
        close(median(vec![3.0, 1.0, 2.0]), 2.0);
        close(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        close(median(vec![]), 0.0);
        close(percentile(vec![4.0, 1.0, 2.0, 3.0], 0.99), 4.0);
        close(percentile(vec![4.0, 1.0, 2.0, 3.0], 0.0), 1.0);
        close(percentile(vec![7.0], 0.99), 7.0);
        close(percentile(vec![], 0.5), 0.0);
    }

    #[test]
    fn medians_are_taken_by_name() {
        let run = |rate, cpu| {
            let mut measurements = Measurements::default();
            measurements.add("rate", rate);
            measurements.add("cpu", cpu);
            measurements
        };
        let medians = Measurements::medians(&[run(1.0, 30.0), run(3.0, 10.0), run(2.0, 20.0)]);
        assert_eq!(medians.get("rate"), Some(2.0));
        assert_eq!(medians.get("cpu"), Some(20.0));
        assert_eq!(medians.get("none"), None);
    }
}
