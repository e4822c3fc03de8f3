//! The targets of each scenario.

use std::collections::BTreeMap;

use crate::measurements::median as median_of;
use crate::report::CaseReport;
use crate::scenario::Scenario;
use crate::target::Target;

/// The counts of the last commit that changed them on purpose.
const COMMITTED_COUNTS: &str = include_str!("../counts.json");
/// Tolerance: the sizes of batches differ from run to run.
const MAX_COUNT_GROWTH: f64 = 1.1;

/// A megabyte is a million bytes.
const MB_PER_MIB: f64 = 1.048_576;

fn committed_counts() -> impl Iterator<Item = (String, f64)> {
    let counts: BTreeMap<String, f64> = serde_json::from_str(COMMITTED_COUNTS).unwrap_or_default();
    counts.into_iter()
}

impl Scenario {
    /// The targets, by the cases of one worker and, where the scenario has it, of the hand-written loop.
    pub(crate) fn targets(self, cases: &[&CaseReport]) -> Vec<Target> {
        let median = |case: usize, name: &str| cases.get(case)?.median.get(name);
        let ratio = |name: &str, of: usize, to: usize| Some(median(of, name)? / median(to, name)?);
        let cpu = |case: usize| {
            Some(median(case, "sender_cpu_s_per_1000")? + median(case, "postgres_cpu_s_per_1000")?)
        };
        let memory = |limit_mb| {
            let peak = median(0, "peak_memory_mib");
            Target::at_most("MB", peak.map(|mib| mib * MB_PER_MIB), limit_mb)
        };
        let fullest_second = || {
            let runs = cases.iter().flat_map(|case| &case.runs);
            let fullest = runs.filter_map(|run| run.get("fullest_second_calls"));
            let fullest = fullest.reduce(f64::max);
            Target::at_most("calls in the fullest second of any run", fullest, 500.0)
        };
        match self {
            Self::Drain => vec![
                Target::at_least(
                    "messages/s, times the loop's",
                    ratio("messages_per_s", 0, 1),
                    4.0,
                ),
                Target::at_most(
                    "processor time a message, of the loop's",
                    cpu(0).zip(cpu(1)).map(|(own, its)| own / its),
                    0.25,
                ),
            ],
            Self::Delay => vec![
                Target::at_most("median, ms", median(0, "delay_p50_ms"), 2.0),
                Target::at_most("99 %, ms", median(0, "delay_p99_ms"), 5.0),
            ],
            Self::Pace => ["1 process", "4 processes", "8 processes"]
                .into_iter()
                .enumerate()
                .map(|(case, name)| {
                    let share = median(case, "messages_per_s").map(|rate| rate / 500.0);
                    Target::at_least(format!("part of the limit, {name}"), share, 0.98)
                })
                .chain([fullest_second()])
                .collect(),
            Self::Horizon
            | Self::SnapshotDrain
            | Self::SnapshotDelay
            | Self::Backlog
            | Self::History => self.targets_of_growth(cases),
            Self::Producers => vec![
                Target::at_least(
                    "commits/s with a worker, of those without",
                    ratio("commits_per_s", 1, 0),
                    0.9,
                ),
                Target::at_least(
                    "part of the limit that the worker uses",
                    median(1, "messages_per_s").map(|rate| rate / 500.0),
                    0.95,
                ),
            ],
            Self::Memory => vec![memory(100.0)],
            Self::Apps => vec![
                Target::at_least(
                    "part of what the limits allow",
                    median(0, "messages_per_s").map(|rate| rate / (20.0 * 490.0)),
                    0.95,
                ),
                Target::at_least(
                    "calls of the app with the fewest, of the one with the most",
                    median(0, "fewest_of_an_app")
                        .zip(median(0, "most_of_an_app"))
                        .map(|(fewest, most)| fewest / most),
                    0.9,
                ),
                fullest_second(),
            ],
            Self::Idle => vec![
                Target::at_most(
                    "% of a core, worker",
                    median(0, "sender_percent_of_a_core"),
                    0.5,
                ),
                Target::at_most(
                    "% of a core, Postgres",
                    median(0, "postgres_percent_of_a_core"),
                    0.5,
                ),
                memory(40.0),
            ],
            Self::Counts => committed_counts()
                .map(|(name, committed)| {
                    let value = median(0, &name);
                    Target::at_most(name, value, committed * MAX_COUNT_GROWTH)
                })
                .collect(),
        }
    }

    /// Bounds on the slowdown by old row versions or many rows.
    fn targets_of_growth(self, cases: &[&CaseReport]) -> Vec<Target> {
        let median = |case: usize, name: &str| cases.get(case)?.median.get(name);
        let rate = || Some(median(1, "messages_per_s")? / median(0, "messages_per_s")?);
        match self {
            Self::Horizon => vec![Target::at_least(
                "rate, of the rate without the snapshot",
                rate(),
                0.9,
            )],
            Self::SnapshotDrain => vec![Target::at_least(
                "% of the rate without the snapshot, median of the pairs",
                Some(self.pair_percents(cases))
                    .filter(|percents| !percents.is_empty())
                    .map(median_of),
                90.0,
            )],
            Self::SnapshotDelay => vec![Target::at_most(
                "median of the last minute, % of the first minute's",
                median(0, "last_of_first_percent"),
                125.0,
            )],
            Self::Backlog | Self::History => vec![Target::at_least(
                "rate, of the rate with few rows",
                rate(),
                0.9,
            )],
            _ => Vec::new(),
        }
    }

    /// The rate under a held snapshot as a percentage of the rate without, for each pair of runs. A pair is measured in
    /// turn, so that other load on the machine affects both runs alike.
    pub(crate) fn pair_percents(self, cases: &[&CaseReport]) -> Vec<f64> {
        let (Self::SnapshotDrain, [without, with, ..]) = (self, cases) else {
            return Vec::new();
        };
        without
            .runs
            .iter()
            .zip(&with.runs)
            .filter_map(|(without, with)| {
                Some(with.get("messages_per_s")? / without.get("messages_per_s")? * 100.0)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::measurements::Measurements;

    use super::*;

    #[test]
    fn each_committed_count_is_a_target() {
        let names: Vec<_> = committed_counts().map(|(name, _)| name).collect();
        let mut median = Measurements::default();
        for name in [
            "instructions_per_message",
            "statements_per_message",
            "transactions_per_message",
            "wal_bytes_per_message",
        ] {
            assert!(names.iter().any(|other| other == name), "no {name}");
            median.add(name, f64::MAX);
        }
        let case = CaseReport {
            case: "worker".into(),
            worker: Some("worker".into()),
            runs: Vec::new(),
            median,
        };
        let targets = Scenario::Counts.targets(&[&case]);
        assert_eq!(targets.len(), names.len());
        assert!(targets.iter().all(|target| !target.is_met));
    }

    #[test]
    fn pairs_are_compared_run_by_run() {
        let case = |rates: [f64; 3]| {
            let runs = rates.map(|rate| {
                let mut run = Measurements::default();
                run.add("messages_per_s", rate);
                run
            });
            CaseReport {
                case: String::new(),
                worker: Some("worker".into()),
                median: Measurements::medians(&runs),
                runs: runs.into(),
            }
        };
        let cases = [case([100.0, 200.0, 400.0]), case([95.0, 150.0, 320.0])];
        let cases: Vec<_> = cases.iter().collect();
        let percents = Scenario::SnapshotDrain.pair_percents(&cases);
        let rounded: Vec<_> = percents.iter().map(|percent| percent.round()).collect();
        assert_eq!(rounded, [95.0, 75.0, 80.0]);
        let targets = Scenario::SnapshotDrain.targets(&cases);
        assert!(!targets[0].is_met);
        assert_eq!(targets[0].value.map(f64::round), Some(80.0));
        assert_eq!(Scenario::Horizon.pair_percents(&cases), [0.0; 0]);
    }
}
