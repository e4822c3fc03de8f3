//! What is measured: each scenario with its cases, and what is to be reached.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::counts::Counts;
use super::delay::Delay;
use super::drain::Drain;
use super::figures::Figures;
use super::idle::Idle;
use super::producers::{Beside, Producers};
use super::stage::{Machine, Sender, Setting};
use super::target::Target;
use super::{MeasuredCase, scaled, scaled_time};

/// A question, and how it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Messages a second without a limit, and what each costs
    Drain,
    /// From the insert to the call, at 100 inserts a second
    Delay,
    /// How much of a limit of 500 calls a second is used, by 1, 4 and 8 processes
    Pace,
    /// The rate while somebody holds a snapshot
    Horizon,
    /// The rate with 2 million messages waiting
    Backlog,
    /// The rate with 10 million finished messages
    History,
    /// Commits of 32 producers beside a worker
    Producers,
    /// Memory with 1,024 calls under way and payloads of 32 KB
    Memory,
    /// 20 apps in one worker
    Apps,
    /// A worker with nothing to do
    Idle,
    /// Statements, transactions, WAL bytes and instructions a message, whatever the machine
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

/// One of the things that a scenario compares.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) load: Load,
}

/// What is done in a case.
#[derive(Debug)]
pub(super) enum Load {
    Drain(Drain),
    Delay(Delay),
    Producers(Producers),
    Idle(Idle),
    Counts(Counts),
}

impl Load {
    pub(super) async fn measure(&self, machine: &Machine) -> anyhow::Result<Figures> {
        match self {
            Self::Drain(drain) => drain.measure(machine).await,
            Self::Delay(delay) => delay.measure(machine).await,
            Self::Producers(producers) => producers.measure(machine).await,
            Self::Idle(idle) => idle.measure(machine).await,
            Self::Counts(counts) => counts.measure(machine).await,
        }
    }
}

/// The counts as they were when somebody last took them.
const COMMITTED_COUNTS: &str = include_str!("../../benches/counts.json");
/// Batches are never quite the same.
const COUNTS_MAY_GROW: f64 = 1.1;

/// A megabyte is a million bytes.
const MB_PER_MIB: f64 = 1.048_576;

fn committed_counts() -> impl Iterator<Item = (String, f64)> {
    let counts: BTreeMap<String, f64> = serde_json::from_str(COMMITTED_COUNTS).unwrap_or_default();
    counts.into_iter()
}

const WORKER: &str = "worker";
const HAND_WRITTEN: &str = "hand-written loop";

impl Scenario {
    pub(super) fn cases(self, scale: f64) -> Vec<Case> {
        let worker = Setting::of(Sender::Worker);
        let hand_written = Setting::of(Sender::HandWritten);
        let case = |name, load| Case { name, load };
        let drain = |name, drain| case(name, Load::Drain(drain));
        match self {
            Self::Drain => [
                (WORKER, worker, 100_000),
                (HAND_WRITTEN, hand_written, 30_000),
            ]
            .map(|(name, setting, messages)| {
                let waiting = scaled(messages, scale);
                drain(name, Drain::of(Setting { waiting, ..setting }))
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
                    let setting = Setting {
                        processes,
                        limit: Some(500),
                        // There is always something to send.
                        waiting: skipped + measured + 1_000,
                        ..worker.clone()
                    };
                    let pace = Drain {
                        skipped,
                        measured,
                        ..Drain::of(setting)
                    };
                    drain(name, pace)
                })
                .into(),
            Self::Horizon | Self::Backlog | Self::History => self.growing(scale),
            Self::Producers => [
                ("no worker", Beside::Nobody),
                ("busy worker", Beside::Worker),
                ("ringing the bell", Beside::Bell),
            ]
            .map(|(name, beside)| {
                let counted_for = scaled_time(Duration::from_secs(10), scale);
                let producers = Producers {
                    beside,
                    counted_for,
                };
                case(name, Load::Producers(producers))
            })
            .into(),
            Self::Memory => {
                let setting = Setting {
                    waiting: scaled(20_000, scale),
                    payload_bytes: 32_768,
                    latency: Duration::from_millis(500),
                    ..worker
                };
                vec![drain("1,024 calls of 32 KB", Drain::of(setting))]
            }
            Self::Apps => {
                let (skipped, measured) = (scaled(10_000, scale), scaled(60_000, scale));
                let setting = Setting {
                    apps: 20,
                    limit: Some(500),
                    // Each app has enough left at the end.
                    waiting: 2 * (skipped + measured),
                    ..worker
                };
                let apps = Drain {
                    skipped,
                    measured,
                    ..Drain::of(setting)
                };
                vec![drain("20 apps", apps)]
            }
            Self::Idle => {
                let idle = Idle {
                    sender: Sender::Worker,
                    looked_at_for: scaled_time(Duration::from_secs(20), scale),
                };
                vec![case(WORKER, Load::Idle(idle))]
            }
            Self::Counts => vec![case(WORKER, Load::Counts(Counts::COMMITTED))],
        }
    }

    /// Cases that differ in what lies around.
    fn growing(self, scale: f64) -> Vec<Case> {
        let worker = Setting::of(Sender::Worker);
        let drain = |name, drain| Case {
            name,
            load: Load::Drain(drain),
        };
        match self {
            Self::Horizon => [("no snapshot", false), ("held snapshot", true)]
                .map(|(name, held_snapshot)| {
                    let (skipped, measured) = (scaled(500_000, scale), scaled(150_000, scale));
                    let setting = Setting {
                        // The end, where fewer and fewer are left, is no part of it.
                        waiting: skipped + measured + measured / 3,
                        ..worker.clone()
                    };
                    let horizon = Drain {
                        skipped,
                        measured,
                        held_snapshot,
                        ..Drain::of(setting)
                    };
                    drain(name, horizon)
                })
                .into(),
            // The longer one for as long as it takes until what waits is counted once more, which takes a fiftieth of
            // the time, but half of the first second.
            Self::Backlog => [
                ("20,000 waiting", 20_000, 20_000),
                ("2 million waiting", 2_000_000, 500_000),
            ]
            .map(|(name, waiting, measured)| {
                let setting = Setting {
                    waiting: scaled(waiting, scale),
                    ..worker.clone()
                };
                let backlog = Drain {
                    measured: scaled(measured, scale),
                    ..Drain::of(setting)
                };
                drain(name, backlog)
            })
            .into(),
            Self::History => [("no history", 0), ("10 million finished", 10_000_000)]
                .map(|(name, history)| {
                    let setting = Setting {
                        history: scaled(history, scale),
                        waiting: scaled(100_000, scale),
                        ..worker.clone()
                    };
                    drain(name, Drain::of(setting))
                })
                .into(),
            _ => Vec::new(),
        }
    }

    /// What is to be reached.
    pub(super) fn targets(self, cases: &[MeasuredCase]) -> Vec<Target> {
        let figure = |case: usize, name: &str| cases.get(case)?.median.get(name);
        let ratio = |name: &str, of: usize, to: usize| Some(figure(of, name)? / figure(to, name)?);
        let cpu = |case: usize| {
            Some(figure(case, "sender_cpu_s_per_1000")? + figure(case, "postgres_cpu_s_per_1000")?)
        };
        let memory = |most_mb| {
            let peak = figure(0, "peak_memory_mib");
            Target::at_most("MB", peak.map(|mib| mib * MB_PER_MIB), most_mb)
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
                Target::at_most("median, ms", figure(0, "delay_p50_ms"), 2.0),
                Target::at_most("99 %, ms", figure(0, "delay_p99_ms"), 5.0),
            ],
            Self::Pace => ["1 process", "4 processes", "8 processes"]
                .into_iter()
                .enumerate()
                .map(|(case, name)| {
                    let share = figure(case, "messages_per_s").map(|rate| rate / 500.0);
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
                "rate, of the rate with little",
                ratio("messages_per_s", 1, 0),
                0.9,
            )],
            Self::Producers => vec![
                Target::at_least(
                    "commits/s beside a worker, of those alone",
                    ratio("commits_per_s", 1, 0),
                    0.9,
                ),
                Target::at_least(
                    "part of the limit that the worker uses",
                    figure(1, "messages_per_s").map(|rate| rate / 500.0),
                    0.95,
                ),
            ],
            Self::Memory => vec![memory(100.0)],
            Self::Apps => vec![
                Target::at_least(
                    "part of what the limits allow",
                    figure(0, "messages_per_s").map(|rate| rate / (20.0 * 490.0)),
                    0.95,
                ),
                Target::at_least(
                    "calls of the app with the fewest, of the one with the most",
                    figure(0, "fewest_of_an_app")
                        .zip(figure(0, "most_of_an_app"))
                        .map(|(fewest, most)| fewest / most),
                    0.9,
                ),
                fullest_second(),
            ],
            Self::Idle => vec![
                Target::at_most(
                    "% of a core, worker",
                    figure(0, "sender_percent_of_a_core"),
                    0.5,
                ),
                Target::at_most(
                    "% of a core, Postgres",
                    figure(0, "postgres_percent_of_a_core"),
                    0.5,
                ),
                memory(40.0),
            ],
            Self::Counts => committed_counts()
                .map(|(name, committed)| {
                    let value = figure(0, &name);
                    Target::at_most(name, value, committed * COUNTS_MAY_GROW)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_counts_are_read_and_each_is_a_target() {
        let names: Vec<_> = committed_counts().map(|(name, _)| name).collect();
        let mut median = Figures::default();
        for name in [
            "instructions_per_message",
            "statements_per_message",
            "transactions_per_message",
            "wal_bytes_per_message",
        ] {
            assert!(names.iter().any(|other| other == name), "no {name}");
            median.add(name, f64::MAX);
        }
        let case = MeasuredCase {
            case: WORKER,
            runs: Vec::new(),
            median,
        };
        let targets = Scenario::Counts.targets(&[case]);
        assert_eq!(targets.len(), names.len());
        assert!(targets.iter().all(|target| !target.is_met));
    }
}
