//! The scenarios and their cases.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use crate::counts::Counts;
use crate::database_server::DatabaseServer;
use crate::delay::Delay;
use crate::drain::Drain;
use crate::environment::{EnvironmentConfig, Sender};
use crate::idle::Idle;
use crate::measurements::Measurements;
use crate::producers::{Alongside, Producers};
use crate::snapshot_delay::SnapshotDelay;
use crate::worker::{self, Worker};

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
    /// The rate of the last tenth of 150,000 messages under a held snapshot, compared in pairs of runs
    SnapshotDrain,
    /// The delay in the last minute under a held snapshot, compared with the first minute
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

/// One of the cases that a scenario compares.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Name of the worker that sends. None for the hand-written loop.
    pub(crate) worker: Option<String>,
    pub(crate) load: Load,
}

/// Settings of the user that change the cases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaseOptions {
    /// Multiplies the usual numbers of messages and seconds.
    pub(crate) scale: f64,
    /// How long messages are sent under a held snapshot.
    pub(crate) snapshot_minutes: u32,
}

#[derive(Debug)]
pub(crate) enum Load {
    Drain(Drain),
    Delay(Delay),
    SnapshotDelay(SnapshotDelay),
    Producers(Producers),
    Idle(Idle),
    Counts(Counts),
}

impl Load {
    pub(crate) async fn measure(&self, server: &DatabaseServer) -> anyhow::Result<Measurements> {
        match self {
            Self::Drain(drain) => drain.measure(server).await,
            Self::Delay(delay) => delay.measure(server).await,
            Self::SnapshotDelay(delay) => delay.measure(server).await,
            Self::Producers(producers) => producers.measure(server).await,
            Self::Idle(idle) => idle.measure(server).await,
            Self::Counts(counts) => counts.measure(server).await,
        }
    }
}

/// Name of the only case of a worker.
const WORKER: &str = worker::DEFAULT_NAME;
const HAND_WRITTEN: &str = "hand-written loop";
/// Inserts a second while the load is low.
const LOW_LOAD_PER_S: u32 = 100;

impl Scenario {
    /// The cases of each worker, and that of the hand-written loop where the scenario compares with it.
    pub(crate) fn cases(self, options: CaseOptions, workers: &[Worker]) -> Vec<Case> {
        let mut cases = Vec::new();
        for worker in workers {
            let sender = Sender::Worker(worker.binary.clone());
            for (name, load) in self.cases_of_worker(options, sender) {
                let name = if name == WORKER {
                    worker.name.clone()
                } else if workers.len() == 1 {
                    name.into()
                } else {
                    format!("{}: {name}", worker.name)
                };
                cases.push(Case {
                    name,
                    worker: Some(worker.name.clone()),
                    load,
                });
            }
        }
        cases.extend(self.load_of_loop(options.scale).map(|load| Case {
            name: HAND_WRITTEN.into(),
            worker: None,
            load,
        }));
        cases
    }

    fn load_of_loop(self, scale: f64) -> Option<Load> {
        match self {
            Self::Drain => Some(drain_load(Sender::HandWritten, 30_000, scale)),
            Self::Delay => Some(delay_load(Sender::HandWritten, scale)),
            _ => None,
        }
    }

    fn cases_of_worker(self, options: CaseOptions, sender: Sender) -> Vec<(&'static str, Load)> {
        let scale = options.scale;
        let worker = EnvironmentConfig::of(sender.clone());
        let drain = |name, drain| (name, Load::Drain(drain));
        match self {
            Self::Drain => vec![(WORKER, drain_load(sender, 100_000, scale))],
            Self::Delay => vec![(WORKER, delay_load(sender, scale))],
            Self::SnapshotDelay => {
                let delay = SnapshotDelay {
                    sender,
                    per_s: LOW_LOAD_PER_S,
                    minutes: options.snapshot_minutes,
                    minute: scaled_time(Duration::from_secs(60), scale),
                };
                vec![(WORKER, Load::SnapshotDelay(delay))]
            }
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
            Self::Horizon | Self::SnapshotDrain | Self::Backlog | Self::History => {
                self.growing(scale, &worker)
            }
            Self::Producers => [
                ("no worker", Alongside::NoWorker),
                ("busy worker", Alongside::BusyWorker),
                ("notify each commit", Alongside::Notifications),
            ]
            .map(|(name, alongside)| {
                let measured_for = scaled_time(Duration::from_secs(10), scale);
                let producers = Producers {
                    sender: sender.clone(),
                    alongside,
                    measured_for,
                };
                (name, Load::Producers(producers))
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
                    sender,
                    measured_for: scaled_time(Duration::from_secs(20), scale),
                };
                vec![(WORKER, Load::Idle(idle))]
            }
            Self::Counts => vec![(WORKER, Load::Counts(Counts::committed(sender)))],
        }
    }

    /// Cases that differ in the number of old row versions or rows.
    fn growing(self, scale: f64, worker: &EnvironmentConfig) -> Vec<(&'static str, Load)> {
        let drain = |name, drain| (name, Load::Drain(drain));
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
            Self::SnapshotDrain => [("no snapshot", false), ("held snapshot", true)]
                .map(|(name, held_snapshot)| {
                    let backlog = scaled(150_000, scale);
                    let config = EnvironmentConfig {
                        backlog,
                        ..worker.clone()
                    };
                    let last_tenth = Drain {
                        skipped: backlog - backlog / 10,
                        measured: backlog / 10,
                        held_snapshot,
                        ..Drain::of(config)
                    };
                    drain(name, last_tenth)
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
}

fn drain_load(sender: Sender, messages: u64, scale: f64) -> Load {
    Load::Drain(Drain::of(EnvironmentConfig {
        backlog: scaled(messages, scale),
        ..EnvironmentConfig::of(sender)
    }))
}

fn delay_load(sender: Sender, scale: f64) -> Load {
    Load::Delay(Delay {
        sender,
        per_s: LOW_LOAD_PER_S,
        messages: usize::try_from(scaled(3_000, scale)).unwrap_or(usize::MAX),
    })
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
