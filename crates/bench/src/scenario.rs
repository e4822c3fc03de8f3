//! The scenarios: each has cases to compare, and targets for their results.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use testkit::postgres::ThrowawayPostgres;

use self::Bound::{AtLeast, AtMost};
use crate::environment::{Environment, Sender, Workload};
use crate::measurements::{Case, Measurements, count, median};
use crate::{counts, delay, drain, idle, producers};

/// Batches have other sizes in each run, so the counts differ a little.
const MAX_COUNT_GROWTH: f64 = 1.1;

const MIN_MEASURED_FOR: Duration = Duration::from_secs(2);

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

const RATE: &str = "messages_per_s";
const MEMORY: &str = "peak_memory_mib";
const GROWTH: &str = "last_of_first_percent";

const TARGETS: [Target; 23] = [
    target(Scenario::Drain, RATE, &[0, 1], AtLeast(4.0)),
    target(Scenario::Drain, "cpu_us_per_message", &[0, 1], AtMost(0.25)),
    target(Scenario::Delay, "delay_p50_ms", &[0], AtMost(2.0)),
    target(Scenario::Delay, "delay_p99_ms", &[0], AtMost(5.0)),
    target(Scenario::Pace, RATE, &[0], AtLeast(490.0)),
    target(Scenario::Pace, RATE, &[1], AtLeast(490.0)),
    target(Scenario::Pace, RATE, &[2], AtLeast(490.0)),
    target(Scenario::SnapshotDelay, GROWTH, &[0], AtMost(125.0)),
    target(Scenario::SnapshotDrain, RATE, &[1, 0], AtLeast(0.9)),
    target(Scenario::Backlog, RATE, &[1, 0], AtLeast(0.9)),
    target(Scenario::History, RATE, &[1, 0], AtLeast(0.9)),
    target(Scenario::Producers, "commits_per_s", &[1, 0], AtLeast(0.9)),
    target(Scenario::Producers, RATE, &[1], AtLeast(475.0)),
    // 100 MB, and 40 MB.
    target(Scenario::Memory, MEMORY, &[0], AtMost(95.4)),
    target(Scenario::Idle, MEMORY, &[0], AtMost(38.1)),
    target(
        Scenario::Idle,
        "sender_percent_of_a_core",
        &[0],
        AtMost(0.5),
    ),
    target(
        Scenario::Idle,
        "postgres_percent_of_a_core",
        &[0],
        AtMost(0.5),
    ),
    target(Scenario::Apps, RATE, &[0], AtLeast(0.95 * 20.0 * 490.0)),
    target(Scenario::Apps, "slowest_app_percent", &[0], AtLeast(90.0)),
    counted("statements_per_message", 0.130),
    counted("transactions_per_message", 0.131),
    counted("wal_bytes_per_message", 985.0),
    counted("instructions_per_message", 161_526.0),
];

/// A bound that a measurement should keep. A missing value misses the bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    scenario: Scenario,
    pub(crate) metric: &'static str,
    /// The position of the measured case, and perhaps of a second case that the first is divided by. Positions are among the
    /// cases of the worker and, at the end, of the hand-written loop.
    cases: &'static [usize],
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const fn target(
    scenario: Scenario,
    metric: &'static str,
    cases: &'static [usize],
    bound: Bound,
) -> Target {
    Target {
        scenario,
        metric,
        cases,
        bound,
    }
}

/// A target for a count of a message, with the count of the last commit that changed it on purpose.
const fn counted(metric: &'static str, count: f64) -> Target {
    let bound = AtMost(count * MAX_COUNT_GROWTH);
    target(Scenario::Counts, metric, &[0], bound)
}

impl Target {
    /// The measured case, and the one that it is divided by.
    pub(crate) fn subject(&self, cases: &[Case]) -> String {
        let name = |case: &usize| cases.get(*case).map_or("–", |case| &case.name);
        let names: Vec<_> = self.cases.iter().map(name).collect();
        names.join(" / ")
    }

    /// The median of the case, or the median ratio of two cases, run by run. The two runs follow each other, so that other
    /// load on the machine affects both.
    pub(crate) fn value(&self, cases: &[Case]) -> Option<f64> {
        let values = |case: usize| {
            let runs = cases.get(case).into_iter().flat_map(|case| &case.runs);
            runs.map(|run| run.get(self.metric))
        };
        match *self.cases {
            [case, divisor] => {
                let pairs = values(case).zip(values(divisor));
                median(pairs.filter_map(|(value, by)| Some(value? / by?)).collect())
            }
            _ => cases.get(self.cases[0])?.median(self.metric),
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

    pub(crate) fn cases(self) -> &'static [&'static str] {
        match self {
            Self::Pace => &["1 process", "4 processes", "8 processes"],
            Self::SnapshotDrain => &["no snapshot", "held snapshot"],
            Self::Backlog => &["backlog of 20,000", "backlog of 2 million"],
            Self::History => &["no history", "10 million finished"],
            Self::Producers => &["no worker", "busy worker", "notify each commit"],
            Self::Memory => &["1,024 calls of 32 KB"],
            Self::Apps => &["20 apps"],
            _ => &[ONLY_CASE],
        }
    }

    /// The workload of a case at the scale 1.
    fn workload(self, case: usize) -> Workload {
        let mut load = Workload::usual();
        match self {
            Self::Drain => load.measured = 100_000,
            Self::Delay => load.inserted = 3_000,
            Self::SnapshotDelay => (load.inserted, load.holds_snapshot) = (60_000, true),
            Self::Pace => {
                (load.processes, load.limit) = ([1, 4, 8][case], Some(500));
                (load.skipped, load.measured, load.left_over) = (1_000, 9_000, 1_000);
            }
            Self::SnapshotDrain => {
                (load.skipped, load.measured) = (135_000, 15_000);
                load.holds_snapshot = case == 1;
            }
            // A worker counts its backlog for a fiftieth of the time. The run is long enough to include that.
            Self::Backlog => {
                (load.measured, load.left_over) = [(20_000, 0), (500_000, 1_500_000)][case];
            }
            Self::History => (load.measured, load.history) = (100_000, [0, 10_000_000][case]),
            Self::Producers => {
                (load.processes, load.notifies) = [(0, false), (1, false), (0, true)][case];
                (load.limit, load.left_over) = (Some(500), 20_000);
                load.measured_for = Duration::from_secs(10);
            }
            Self::Memory => {
                load.measured = 20_000;
                (load.payload_bytes, load.latency) = (32_768, Duration::from_millis(500));
            }
            Self::Apps => {
                (load.apps, load.limit) = (20, Some(500));
                // The backlog of each app outlasts the measurement.
                (load.skipped, load.measured, load.left_over) = (10_000, 60_000, 70_000);
            }
            Self::Idle => load.measured_for = Duration::from_secs(20),
            Self::Counts => {}
        }
        load
    }

    /// Scales the numbers of messages and seconds of a case, but keeps enough of them to measure.
    pub(crate) fn scaled(self, case: usize, scale: f64) -> Workload {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "far below 2^52, and positive"
        )]
        let messages = |usual: u64| ((count(usual) * scale) as u64).max(1_000.min(usual));
        let usual = self.workload(case);
        Workload {
            history: messages(usual.history),
            skipped: messages(usual.skipped),
            measured: messages(usual.measured),
            left_over: messages(usual.left_over),
            inserted: messages(usual.inserted),
            measured_for: usual.measured_for.mul_f64(scale).max(MIN_MEASURED_FOR),
            ..usual
        }
    }

    pub(crate) async fn measure(
        self,
        server: &ThrowawayPostgres,
        sender: &Sender,
        workload: &Workload,
    ) -> anyhow::Result<Measurements> {
        let environment = || Environment::create(server, sender, workload);
        match self {
            Self::Delay | Self::SnapshotDelay => delay::measure(environment().await?).await,
            Self::Producers => producers::measure(environment().await?).await,
            Self::Idle => idle::measure(environment().await?).await,
            Self::Counts => counts::measure(server, sender).await,
            _ => drain::measure(server, sender, workload).await,
        }
    }

    pub(crate) fn targets(self) -> impl Iterator<Item = Target> {
        let targets = TARGETS.into_iter();
        targets.filter(move |target| target.scenario == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_compared_run_by_run() {
        let case = |rates: [f64; 3]| Case {
            name: "worker".into(),
            runs: rates
                .map(|rate| Measurements::from([("messages_per_s".into(), rate)]))
                .into(),
        };
        let cases = [case([100.0, 200.0, 400.0]), case([95.0, 150.0, 320.0])];
        let target = Scenario::SnapshotDrain.targets().next().unwrap();
        assert_eq!(target.value(&cases), Some(0.8));
        assert_eq!(target.value(&cases[..1]), None);
    }
}
