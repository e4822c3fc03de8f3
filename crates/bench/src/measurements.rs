//! Measured values by name, and their table. A name ends with its unit.

use std::collections::BTreeMap;

use crate::scenario::{Bound, Scenario};

pub(crate) type Measurements = BTreeMap<String, f64>;

/// A column of the table.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) runs: Vec<Measurements>,
}

impl Case {
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let values = self.runs.iter().filter_map(|run| run.get(name));
        median(values.copied().collect())
    }
}

/// Prints a column for each case, a row for each measurement, and the targets below, which are for the cases from
/// `first` on. Returns whether each target is met.
pub(crate) fn print(scenario: Scenario, cases: &[Case], first: usize) -> bool {
    let width = |case: &Case| case.name.chars().count().max(20);
    let row = |head: &str, cell: &dyn Fn(&Case) -> String| {
        print!("{head:<42}");
        for case in cases {
            print!("  {:>1$}", cell(case), width(case));
        }
        println!();
    };
    println!();
    row(&scenario.to_string(), &|case| case.name.clone());
    let names = cases.first().and_then(|case| case.runs.first());
    for name in names.into_iter().flat_map(BTreeMap::keys) {
        let value = |case: &Case| case.median(name).map_or_else(|| "–".into(), number);
        row(&format!("  {name}"), &value);
    }
    let mut all_are_met = true;
    let cases = cases.get(first..).unwrap_or_default();
    for target in scenario.targets() {
        let value = target.value(cases);
        let (is_met, words, limit) = match target.bound {
            Bound::AtLeast(limit) => (value >= Some(limit), "at least", limit),
            Bound::AtMost(limit) => (value.is_some_and(|value| value <= limit), "at most", limit),
        };
        let verdict = if is_met { "ok    " } else { "MISSED" };
        let (metric, subject) = (target.metric, target.subject(cases));
        let value = value.map_or_else(|| "not measured".into(), number);
        let limit = number(limit);
        println!("  {verdict} {metric}, {subject}: {value} ({words} {limit})");
        all_are_met &= is_met;
    }
    all_are_met
}

/// A number with at least three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The middle value, or the mean of the two middle values.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(lower.midpoint(*upper))
}

/// The smallest value that is at least as large as 99 % of all values. 0 of no values.
pub(crate) fn percentile_99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (values.len().saturating_sub(1) * 99).div_ceil(100);
    values.get(index).copied().unwrap_or(0.0)
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
        is(median(vec![3.0, 1.0, 2.0]).unwrap(), 2.0);
        is(median(vec![4.0, 1.0, 2.0, 3.0]).unwrap(), 2.5);
        assert_eq!(median(vec![]), None);
        is(percentile_99(vec![4.0, 1.0, 2.0, 3.0]), 4.0);
        is(percentile_99((0..=1_000).map(f64::from).collect()), 990.0);
        is(percentile_99(vec![]), 0.0);
    }
}
