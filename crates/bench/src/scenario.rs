//! The scenarios: each has cases to compare, and targets for their results.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use testkit::postgres::ThrowawayPostgres;

use crate::drain::Drain;
use crate::environment::{Sender, Workload};
use crate::measurements::{Case, Measurements, count, median};
use crate::producers::Alongside;
use crate::{counts, delay, idle, producers};

/// The counts of the last commit that changed them on purpose.
const COMMITTED_COUNTS: &str = include_str!("../counts.json");
/// Batches have other sizes in each run, so the counts differ a little.
const MAX_COUNT_GROWTH: f64 = 1.1;

pub(crate) const ONLY_CASE: &str = "worker";

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

#[derive(Debug)]
pub(crate) enum Load {
    Drain(Drain),
    Delay { messages: u64, holds_snapshot: bool },
    Producers(Alongside, Duration),
    Idle(Duration),
    Counts,
}

impl Load {
    pub(crate) async fn measure(
        &self,
        server: &ThrowawayPostgres,
        sender: &Sender,
    ) -> anyhow::Result<Measurements> {
        match *self {
            Self::Drain(ref drain) => drain.measure(server).await,
            Self::Delay {
                messages,
                holds_snapshot,
            } => delay::measure(server, sender, messages, holds_snapshot).await,
            Self::Producers(alongside, measured_for) => {
                producers::measure(server, sender, alongside, measured_for).await
            }
            Self::Idle(measured_for) => idle::measure(server, sender, measured_for).await,
            Self::Counts => counts::measure(server, sender).await,
        }
    }
}

/// A bound that a measurement should keep. A missing value misses the bound.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) metric: String,
    /// The position of the measured case among those of the worker and, at the end, of the hand-written loop.
    case: usize,
    /// The case that the measured one is divided by.
    divisor: Option<usize>,
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn of(metric: &str, case: usize, bound: Bound) -> Self {
        Self {
            metric: metric.to_owned(),
            case,
            divisor: None,
            bound,
        }
    }

    /// A target for the ratio of two cases.
    fn ratio(metric: &str, case: usize, divisor: usize, bound: Bound) -> Self {
        Self {
            divisor: Some(divisor),
            ..Self::of(metric, case, bound)
        }
    }

    /// The measured case, and the one that it is divided by.
    pub(crate) fn subject(&self, cases: &[Case]) -> String {
        let name = |case: usize| cases.get(case).map_or("–", |case| &case.name);
        match self.divisor {
            None => name(self.case).to_owned(),
            Some(divisor) => format!("{} / {}", name(self.case), name(divisor)),
        }
    }

    /// The median of the case, or the median ratio of two cases, run by run. The two runs follow each other, so that other
    /// load on the machine affects both.
    pub(crate) fn value(&self, cases: &[Case]) -> Option<f64> {
        let case = cases.get(self.case)?;
        let Some(divisor) = self.divisor else {
            return case.median(&self.metric);
        };
        let pairs = case.runs.iter().zip(&cases.get(divisor)?.runs);
        let ratios: Vec<f64> = pairs
            .filter_map(|(run, by)| Some(run.get(&self.metric)? / by.get(&self.metric)?))
            .collect();
        (!ratios.is_empty()).then(|| median(ratios))
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
        let delay = |messages, holds_snapshot| Load::Delay {
            messages,
            holds_snapshot,
        };
        match self {
            Self::Drain => vec![(
                ONLY_CASE,
                Load::Drain(Drain::of(workload(messages(100_000)))),
            )],
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
                    (name, Load::Drain(drain))
                })
                .into(),
            Self::SnapshotDrain => [("no snapshot", false), ("held snapshot", true)]
                .map(|(name, holds_snapshot)| {
                    let mut drain = Drain::of(workload(messages(150_000)));
                    drain.measured /= 10;
                    drain.skipped = drain.workload.backlog - drain.measured;
                    drain.holds_snapshot = holds_snapshot;
                    (name, Load::Drain(drain))
                })
                .into(),
            Self::Backlog => {
                let few = Drain::of(workload(messages(20_000)));
                let mut many = Drain::of(workload(messages(2_000_000)));
                // A worker counts its backlog for a fiftieth of the time. The run is long enough to include that.
                many.measured = messages(500_000);
                vec![
                    ("backlog of 20,000", Load::Drain(few)),
                    ("backlog of 2 million", Load::Drain(many)),
                ]
            }
            Self::History => [("no history", 0), ("10 million finished", 10_000_000)]
                .map(|(name, history)| {
                    let mut drain = Drain::of(workload(messages(100_000)));
                    drain.workload.history = messages(history);
                    (name, Load::Drain(drain))
                })
                .into(),
            Self::Producers => [
                ("no worker", Alongside::NoWorker),
                ("busy worker", Alongside::BusyWorker),
                ("notify each commit", Alongside::Notifications),
            ]
            .map(|(name, alongside)| {
                let measured_for = scaled_time(10, scale);
                (name, Load::Producers(alongside, measured_for))
            })
            .into(),
            Self::Memory => {
                let mut drain = Drain::of(workload(messages(20_000)));
                drain.workload.payload_bytes = 32_768;
                drain.workload.latency_ms = 500;
                vec![("1,024 calls of 32 KB", Load::Drain(drain))]
            }
            Self::Apps => {
                let (skipped, measured) = (messages(10_000), messages(60_000));
                // The backlog of each app outlasts the measurement.
                let mut drain = Drain::of(workload(2 * (skipped + measured)));
                drain.workload.apps = 20;
                drain.workload.limit = Some(500);
                (drain.skipped, drain.measured) = (skipped, measured);
                vec![("20 apps", Load::Drain(drain))]
            }
            Self::Idle => {
                let measured_for = scaled_time(20, scale);
                vec![(ONLY_CASE, Load::Idle(measured_for))]
            }
            Self::Counts => vec![(ONLY_CASE, Load::Counts)],
        }
    }

    pub(crate) fn targets(self) -> Vec<Target> {
        use Bound::{AtLeast, AtMost};
        const RATE: &str = "messages_per_s";
        const MEMORY: &str = "peak_memory_mib";
        let (of, ratio) = (Target::of, Target::ratio);
        match self {
            Self::Drain => vec![
                ratio(RATE, 0, 1, AtLeast(4.0)),
                ratio("cpu_us_per_message", 0, 1, AtMost(0.25)),
            ],
            Self::Delay => vec![
                of("delay_p50_ms", 0, AtMost(2.0)),
                of("delay_p99_ms", 0, AtMost(5.0)),
            ],
            Self::Pace => [0, 1, 2].map(|case| of(RATE, case, AtLeast(490.0))).into(),
            Self::SnapshotDelay => vec![of("last_of_first_percent", 0, AtMost(125.0))],
            Self::SnapshotDrain | Self::Backlog | Self::History => {
                vec![ratio(RATE, 1, 0, AtLeast(0.9))]
            }
            Self::Producers => vec![
                ratio("commits_per_s", 1, 0, AtLeast(0.9)),
                of(RATE, 1, AtLeast(475.0)),
            ],
            // 100 MB, and 40 MB.
            Self::Memory => vec![of(MEMORY, 0, AtMost(95.4))],
            Self::Idle => vec![
                of(MEMORY, 0, AtMost(38.1)),
                of("sender_percent_of_a_core", 0, AtMost(0.5)),
                of("postgres_percent_of_a_core", 0, AtMost(0.5)),
            ],
            Self::Apps => vec![
                of(RATE, 0, AtLeast(0.95 * 20.0 * 490.0)),
                of("slowest_app_percent", 0, AtLeast(90.0)),
            ],
            Self::Counts => committed_counts()
                .into_iter()
                .map(|(metric, count)| of(&metric, 0, AtMost(count * MAX_COUNT_GROWTH)))
                .collect(),
        }
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

    #[test]
    fn each_committed_count_is_a_target() {
        let counts = ["instructions", "statements", "transactions", "wal_bytes"];
        let names = counts.map(|count| format!("{count}_per_message"));
        let targets = Scenario::Counts.targets();
        let measured: Vec<_> = targets.iter().map(|target| &target.metric).collect();
        assert_eq!(measured, names.each_ref());
    }

    #[test]
    fn pairs_are_compared_run_by_run() {
        let case = |rates: [f64; 3]| Case {
            name: "worker".into(),
            runs: rates
                .map(|rate| Measurements::from([("messages_per_s".into(), rate)]))
                .into(),
        };
        let cases = [case([100.0, 200.0, 400.0]), case([95.0, 150.0, 320.0])];
        let target = &Scenario::SnapshotDrain.targets()[0];
        assert_eq!(target.value(&cases), Some(0.8));
        assert_eq!(target.value(&cases[..1]), None);
    }
}
