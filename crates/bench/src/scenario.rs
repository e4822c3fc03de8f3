//! The scenarios: each has cases to compare, and targets for their results.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};
use testkit::postgres::ThrowawayPostgres;

use crate::delay::Delay;
use crate::drain::Drain;
use crate::environment::{Sender, Workload};
use crate::measurements::{Measurements, count, median};
use crate::producers::Alongside;
use crate::report::CaseReport;
use crate::{counts, idle, producers, worker};

/// The counts of the last commit that changed them on purpose.
const COMMITTED_COUNTS: &str = include_str!("../counts.json");
/// Batches have other sizes in each run, so the counts differ a little.
const MAX_COUNT_GROWTH: f64 = 1.1;

pub(crate) const ONLY_CASE: &str = worker::DEFAULT_NAME;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Messages a second without a limit, and the costs of each
    Drain,
    /// Delay from insert to call, at 100 inserts a second
    Delay,
    /// The used part of a limit of 500 calls a second, with 1, 4 and 8 processes
    Pace,
    /// The rate of the last tenth of 150,000 messages under a held snapshot, compared in pairs of runs
    SnapshotDrain,
    /// The delay of the last of ten minutes under a held snapshot, compared with the first minute
    SnapshotDelay,
    /// The rate with a backlog of 2 million messages
    Backlog,
    /// The rate with 10 million finished messages
    History,
    /// Commits of 32 producers, with and without a worker
    Producers,
    /// Memory with 1,024 calls in flight and payloads of 32 KB
    Memory,
    /// 20 apps in one worker
    Apps,
    /// A worker without messages
    Idle,
    /// Statements, transactions, WAL bytes and instructions a message, about equal on any machine
    Counts,
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        formatter.write_str(name.as_ref().map_or("", |name| name.get_name()))
    }
}

impl Serialize for Scenario {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[derive(Debug)]
pub(crate) enum Load {
    Drain(Drain),
    Delay(Delay),
    Producers(Sender, Alongside, Duration),
    Idle(Sender, Duration),
    Counts(Sender),
}

impl Load {
    pub(crate) async fn measure(&self, server: &ThrowawayPostgres) -> anyhow::Result<Measurements> {
        match self {
            Self::Drain(drain) => drain.measure(server).await,
            Self::Delay(delay) => delay.measure(server).await,
            Self::Producers(sender, alongside, measured_for) => {
                producers::measure(server, sender, *alongside, *measured_for).await
            }
            Self::Idle(sender, measured_for) => idle::measure(server, sender, *measured_for).await,
            Self::Counts(sender) => counts::measure(server, sender).await,
        }
    }
}

/// A bound that a measurement should keep.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    /// The measurement with its unit.
    pub(crate) name: String,
    /// A missing value misses the target.
    pub(crate) value: Option<f64>,
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    pub(crate) fn is_met(&self) -> bool {
        self.value.is_some_and(|value| match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        })
    }
}

/// A value for a target, calculated from the cases of one worker and, at the end, the case of the hand-written loop.
#[derive(Debug, Clone, Copy)]
enum Value {
    /// The median of a case.
    Of(usize, &'static str),
    /// The median of one case divided by that of another.
    Ratio(usize, usize, &'static str),
    /// The median ratio of the second case to the first, run by run. The two runs follow each other, so that other load
    /// on the machine affects both.
    PairRatio(&'static str),
}

impl Value {
    fn get(self, cases: &[&CaseReport]) -> Option<f64> {
        let of = |case: usize, name| cases.get(case)?.median.get(name).copied();
        match self {
            Self::Of(case, name) => of(case, name),
            Self::Ratio(case, other, name) => Some(of(case, name)? / of(other, name)?),
            Self::PairRatio(name) => {
                let pairs = cases.first()?.runs.iter().zip(&cases.get(1)?.runs);
                let ratios = pairs.filter_map(|(one, two)| Some(two.get(name)? / one.get(name)?));
                let ratios: Vec<_> = ratios.collect();
                (!ratios.is_empty()).then(|| median(ratios))
            }
        }
    }
}

impl Scenario {
    /// The number of runs of each case.
    pub(crate) fn runs(self, runs: u32) -> u32 {
        match self {
            // The ratio of a pair of runs differs more than a rate.
            Self::SnapshotDrain => 3 * runs,
            _ => runs,
        }
    }

    pub(crate) fn compares_with_loop(self) -> bool {
        matches!(self, Self::Drain | Self::Delay)
    }

    /// The cases of a sender. `scale` multiplies the usual numbers of messages and seconds.
    pub(crate) fn cases(self, scale: f64, sender: &Sender) -> Vec<(&'static str, Load)> {
        let messages = |usual: u64| scaled(usual, scale);
        let workload = |backlog| Workload {
            backlog,
            ..Workload::of(sender)
        };
        let delay = |messages, holds_snapshot| {
            let sender = sender.clone();
            Load::Delay(Delay {
                sender,
                messages,
                holds_snapshot,
            })
        };
        match self {
            Self::Drain => vec![(ONLY_CASE, Drain::of(workload(messages(100_000))).into())],
            Self::Delay => vec![(ONLY_CASE, delay(messages(3_000), false))],
            Self::SnapshotDelay => vec![(ONLY_CASE, delay(messages(60_000), true))],
            Self::Pace => [("1 process", 1), ("4 processes", 4), ("8 processes", 8)]
                .map(|(name, processes)| {
                    let (skipped, measured) = (1_000, messages(9_000));
                    // The backlog outlasts the measurement.
                    let mut drain = Drain::of(workload(skipped + measured + 1_000));
                    drain.workload.processes = processes;
                    drain.workload.limit = Some(500);
                    (drain.skipped, drain.measured) = (skipped, measured);
                    (name, drain.into())
                })
                .into(),
            Self::SnapshotDrain => [("no snapshot", false), ("held snapshot", true)]
                .map(|(name, holds_snapshot)| {
                    let mut drain = Drain::of(workload(messages(150_000)));
                    drain.measured /= 10;
                    drain.skipped = drain.workload.backlog - drain.measured;
                    drain.holds_snapshot = holds_snapshot;
                    (name, drain.into())
                })
                .into(),
            Self::Backlog => {
                let few = Drain::of(workload(messages(20_000)));
                let mut many = Drain::of(workload(messages(2_000_000)));
                // A worker counts its backlog for a fiftieth of the time. The run is long enough to include that.
                many.measured = messages(500_000);
                vec![
                    ("backlog of 20,000", few.into()),
                    ("backlog of 2 million", many.into()),
                ]
            }
            Self::History => [("no history", 0), ("10 million finished", 10_000_000)]
                .map(|(name, history)| {
                    let mut drain = Drain::of(workload(messages(100_000)));
                    drain.workload.history = messages(history);
                    (name, drain.into())
                })
                .into(),
            Self::Producers => [
                ("no worker", Alongside::NoWorker),
                ("busy worker", Alongside::BusyWorker),
                ("notify each commit", Alongside::Notifications),
            ]
            .map(|(name, alongside)| {
                let measured_for = scaled_time(10, scale);
                (
                    name,
                    Load::Producers(sender.clone(), alongside, measured_for),
                )
            })
            .into(),
            Self::Memory => {
                let mut drain = Drain::of(workload(messages(20_000)));
                drain.workload.payload_bytes = 32_768;
                drain.workload.latency = Duration::from_millis(500);
                vec![("1,024 calls of 32 KB", drain.into())]
            }
            Self::Apps => {
                let (skipped, measured) = (messages(10_000), messages(60_000));
                // The backlog of each app outlasts the measurement.
                let mut drain = Drain::of(workload(2 * (skipped + measured)));
                drain.workload.apps = 20;
                drain.workload.limit = Some(500);
                (drain.skipped, drain.measured) = (skipped, measured);
                vec![("20 apps", drain.into())]
            }
            Self::Idle => {
                let measured_for = scaled_time(20, scale);
                vec![(ONLY_CASE, Load::Idle(sender.clone(), measured_for))]
            }
            Self::Counts => vec![(ONLY_CASE, Load::Counts(sender.clone()))],
        }
    }

    pub(crate) fn targets(self, cases: &[&CaseReport]) -> Vec<Target> {
        use Bound::{AtLeast, AtMost};
        use Value::{Of, PairRatio, Ratio};
        const RATE: &str = "messages_per_s";
        const MEMORY: Value = Of(0, "peak_memory_mib");
        let targets = match self {
            Self::Drain => vec![
                (
                    "messages/s, times the loop's",
                    Ratio(0, 1, RATE),
                    AtLeast(4.0),
                ),
                (
                    "processor time, of the loop's",
                    Ratio(0, 1, "cpu_us_per_message"),
                    AtMost(0.25),
                ),
            ],
            Self::Delay => vec![
                ("median, ms", Of(0, "delay_p50_ms"), AtMost(2.0)),
                ("99 %, ms", Of(0, "delay_p99_ms"), AtMost(5.0)),
            ],
            Self::Pace => vec![
                ("messages/s, 1 process", Of(0, RATE), AtLeast(490.0)),
                ("messages/s, 4 processes", Of(1, RATE), AtLeast(490.0)),
                ("messages/s, 8 processes", Of(2, RATE), AtLeast(490.0)),
            ],
            Self::SnapshotDrain => {
                vec![(
                    "rate, of that without the snapshot",
                    PairRatio(RATE),
                    AtLeast(0.9),
                )]
            }
            Self::SnapshotDelay => {
                vec![(
                    "% of the first minute",
                    Of(0, "last_of_first_percent"),
                    AtMost(125.0),
                )]
            }
            Self::Backlog | Self::History => {
                vec![(
                    "rate, of that with few rows",
                    Ratio(1, 0, RATE),
                    AtLeast(0.9),
                )]
            }
            Self::Producers => vec![
                (
                    "commits/s, of those without a worker",
                    Ratio(1, 0, "commits_per_s"),
                    AtLeast(0.9),
                ),
                ("messages/s of the worker", Of(1, RATE), AtLeast(475.0)),
            ],
            // 100 MB, and 40 MB.
            Self::Memory => vec![("MiB", MEMORY, AtMost(95.4))],
            Self::Idle => vec![
                ("MiB", MEMORY, AtMost(38.1)),
                (
                    "% of a core, worker",
                    Of(0, "sender_percent_of_a_core"),
                    AtMost(0.5),
                ),
                (
                    "% of a core, Postgres",
                    Of(0, "postgres_percent_of_a_core"),
                    AtMost(0.5),
                ),
            ],
            Self::Apps => vec![
                ("messages/s", Of(0, RATE), AtLeast(0.95 * 20.0 * 490.0)),
                (
                    "slowest app, % of the fastest",
                    Of(0, "slowest_app_percent"),
                    AtLeast(90.0),
                ),
            ],
            Self::Counts => {
                let committed = committed_counts().into_iter();
                let targets = committed.map(|(name, committed)| Target {
                    value: cases
                        .first()
                        .and_then(|case| case.median.get(&name).copied()),
                    bound: AtMost(committed * MAX_COUNT_GROWTH),
                    name,
                });
                return targets.collect();
            }
        };
        let targets = targets.into_iter().map(|(name, value, bound)| Target {
            name: name.to_owned(),
            value: value.get(cases),
            bound,
        });
        targets.collect()
    }
}

impl From<Drain> for Load {
    fn from(drain: Drain) -> Self {
        Self::Drain(drain)
    }
}

fn committed_counts() -> BTreeMap<String, f64> {
    serde_json::from_str(COMMITTED_COUNTS).unwrap_or_default()
}

/// Scales a number of messages, but keeps enough of them to measure.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52, and positive"
)]
fn scaled(usual: u64, scale: f64) -> u64 {
    ((count(usual) * scale) as u64).max(1_000.min(usual))
}

fn scaled_time(usual_s: u64, scale: f64) -> Duration {
    let scaled = Duration::from_secs(usual_s).mul_f64(scale);
    scaled.max(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(runs: Vec<Measurements>, median: Measurements) -> CaseReport {
        CaseReport {
            case: "worker".into(),
            worker: Some("worker".into()),
            runs,
            median,
        }
    }

    #[test]
    fn each_committed_count_is_a_target() {
        let counts = ["instructions", "statements", "transactions", "wal_bytes"];
        let names = counts.map(|count| format!("{count}_per_message"));
        let committed: Vec<_> = committed_counts().into_keys().collect();
        assert_eq!(committed, names);
        let too_many = names.map(|name| (name, f64::MAX)).into();
        let targets = Scenario::Counts.targets(&[&case(Vec::new(), too_many)]);
        assert_eq!(targets.len(), counts.len());
        assert!(targets.iter().all(|target| !target.is_met()));
    }

    #[test]
    fn pairs_are_compared_run_by_run() {
        let case = |rates: [f64; 3]| {
            let runs = rates.map(|rate| Measurements::from([("messages_per_s".into(), rate)]));
            case(runs.into(), Measurements::default())
        };
        let (without, with) = (case([100.0, 200.0, 400.0]), case([95.0, 150.0, 320.0]));
        let targets = Scenario::SnapshotDrain.targets(&[&without, &with]);
        assert!(!targets[0].is_met());
        assert_eq!(targets[0].value, Some(0.8));
    }
}
