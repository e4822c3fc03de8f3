//! The scenarios: their cases and targets.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::counts::Counts;
use crate::delay::Delay;
use crate::drain::Drain;
use crate::environment::{DatabaseServer, EnvironmentConfig, Sender};
use crate::idle::Idle;
use crate::measurements::Measurements;
use crate::producers::{Alongside, Producers};
use crate::report::CaseReport;
use crate::target::Target;

/// A question that the benchmark answers by comparing cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Messages a second without a limit, and the costs of each
    Drain,
    /// Delay from insert to call, at 100 inserts a second
    Delay,
    /// The used part of a limit of 500 calls a second, with 1, 4 and 8 processes
    Pace,
    /// The rate while another session holds a snapshot
    Horizon,
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

/// One of the cases that a scenario compares.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
}

#[derive(Debug)]
pub(crate) enum Load {
    Drain(Drain),
    Delay(Delay),
    Producers(Producers),
    Idle(Idle),
    Counts(Counts),
}

impl Load {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        match self {
            Self::Drain(drain) => drain.measure(server).await,
            Self::Delay(delay) => delay.measure(server).await,
            Self::Producers(producers) => producers.measure(server).await,
            Self::Idle(idle) => idle.measure(server).await,
            Self::Counts(counts) => counts.measure(server).await,
        }
    }
}

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

const WORKER: &str = "worker";
const HAND_WRITTEN: &str = "hand-written loop";

impl Scenario {
    pub(crate) fn cases(self, scale: f64) -> Vec<Case> {
        let worker = EnvironmentConfig::of(Sender::Worker);
        let hand_written = EnvironmentConfig::of(Sender::HandWritten);
        let case = |name, load| Case { name, load };
        let drain = |name, drain| case(name, Load::Drain(drain));
        match self {
            Self::Drain => [
                (WORKER, worker, 100_000),
                (HAND_WRITTEN, hand_written, 30_000),
            ]
            .map(|(name, config, messages)| {
                let backlog = scaled(messages, scale);
                drain(name, Drain::of(EnvironmentConfig { backlog, ..config }))
            })
            .into(),
            Self::Delay => [
                (WORKER, Sender::Worker),
                (HAND_WRITTEN, Sender::HandWritten),
            ]
            .map(|(name, sender)| {
                let messages = usize::try_from(scaled(3_000, scale)).unwrap_or(usize::MAX);
                let delay = Delay {
                    sender,
                    per_s: 100,
                    messages,
                };
                case(name, Load::Delay(delay))
            })
            .into(),
            Self::Pace => [("1 process", 1), ("4 processes", 4), ("8 processes", 8)]
                .map(|(name, processes)| {
                    let (skipped, measured) = (1_000, scaled(9_000, scale));
                    let config = EnvironmentConfig {
                        processes,
                        limit: Some(500),
                        // The backlog outlasts the measurement.
                        backlog: skipped + measured + 1_000,
                        ..worker.clone()
                    };
                    let pace = Drain {
                        skipped,
                        measured,
                        ..Drain::of(config)
                    };
                    drain(name, pace)
                })
                .into(),
            Self::Horizon | Self::Backlog | Self::History => self.growing(scale),
            Self::Producers => [
                ("no worker", Alongside::NoWorker),
                ("busy worker", Alongside::BusyWorker),
                ("notify each commit", Alongside::Notifications),
            ]
            .map(|(name, alongside)| {
                let measured_for = scaled_time(Duration::from_secs(10), scale);
                let producers = Producers {
                    alongside,
                    measured_for,
                };
                case(name, Load::Producers(producers))
            })
            .into(),
            Self::Memory => {
                let config = EnvironmentConfig {
                    backlog: scaled(20_000, scale),
                    payload_bytes: 32_768,
                    latency: Duration::from_millis(500),
                    ..worker
                };
                vec![drain("1,024 calls of 32 KB", Drain::of(config))]
            }
            Self::Apps => {
                let (skipped, measured) = (scaled(10_000, scale), scaled(60_000, scale));
                let config = EnvironmentConfig {
                    apps: 20,
                    limit: Some(500),
                    // The backlog of each app outlasts the measurement.
                    backlog: 2 * (skipped + measured),
                    ..worker
                };
                let apps = Drain {
                    skipped,
                    measured,
                    ..Drain::of(config)
                };
                vec![drain("20 apps", apps)]
            }
            Self::Idle => {
                let idle = Idle {
                    sender: Sender::Worker,
                    measured_for: scaled_time(Duration::from_secs(20), scale),
                };
                vec![case(WORKER, Load::Idle(idle))]
            }
            Self::Counts => vec![case(WORKER, Load::Counts(Counts::COMMITTED))],
        }
    }

    /// Cases that differ in the number of old row versions or rows.
    fn growing(self, scale: f64) -> Vec<Case> {
        let worker = EnvironmentConfig::of(Sender::Worker);
        let drain = |name, drain| Case {
            name,
            load: Load::Drain(drain),
        };
        match self {
            Self::Horizon => [("no snapshot", false), ("held snapshot", true)]
                .map(|(name, held_snapshot)| {
                    let (skipped, measured) = (scaled(500_000, scale), scaled(150_000, scale));
                    let config = EnvironmentConfig {
                        // The last messages are not measured, because claims get smaller at the end.
                        backlog: skipped + measured + measured / 3,
                        ..worker.clone()
                    };
                    let horizon = Drain {
                        skipped,
                        measured,
                        held_snapshot,
                        ..Drain::of(config)
                    };
                    drain(name, horizon)
                })
                .into(),
            // The worker counts the backlog again and again, for half of the first second and then a fiftieth of the
            // time. The large case is measured for long enough to include such a count.
            Self::Backlog => [
                ("backlog of 20,000", 20_000, 20_000),
                ("backlog of 2 million", 2_000_000, 500_000),
            ]
            .map(|(name, messages, measured)| {
                let config = EnvironmentConfig {
                    backlog: scaled(messages, scale),
                    ..worker.clone()
                };
                let backlog = Drain {
                    measured: scaled(measured, scale),
                    ..Drain::of(config)
                };
                drain(name, backlog)
            })
            .into(),
            Self::History => [("no history", 0), ("10 million finished", 10_000_000)]
                .map(|(name, history)| {
                    let config = EnvironmentConfig {
                        history: scaled(history, scale),
                        backlog: scaled(100_000, scale),
                        ..worker.clone()
                    };
                    drain(name, Drain::of(config))
                })
                .into(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn targets(self, cases: &[CaseReport]) -> Vec<Target> {
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
            Self::Horizon => vec![Target::at_least(
                "rate, of the rate without the snapshot",
                ratio("messages_per_s", 1, 0),
                0.9,
            )],
            Self::Backlog | Self::History => vec![Target::at_least(
                "rate, of the rate with few rows",
                ratio("messages_per_s", 1, 0),
                0.9,
            )],
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
}

/// Scales a number of messages, but keeps enough of them to measure.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52, and positive"
)]
fn scaled(usual: u64, scale: f64) -> u64 {
    ((usual as f64 * scale) as u64).clamp(1_000.min(usual), u64::from(u32::MAX))
}

fn scaled_time(usual: Duration, scale: f64) -> Duration {
    usual.mul_f64(scale).max(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
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
            case: WORKER,
            runs: Vec::new(),
            median,
        };
        let targets = Scenario::Counts.targets(&[case]);
        assert_eq!(targets.len(), names.len());
        assert!(targets.iter().all(|target| !target.is_met));
    }
}
