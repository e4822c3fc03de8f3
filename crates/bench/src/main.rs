//! `bench`: measures the worker's binary from outside, as processes against a throwaway PostgreSQL and the simulated
//! API, and compares it with a hand-written send loop.

mod api;
mod bench;
mod child;
mod counts;
mod database_server;
mod delay;
mod drain;
mod environment;
mod hand_written;
mod idle;
mod measurements;
mod paced_producer;
mod producers;
mod report;
mod resource_usage;
mod scenario;
mod snapshot_delay;
mod target;
mod targets;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum as _};
use simulator::cli::SimulateArgs;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;
use crate::scenario::{CaseOptions, Scenario};
use crate::worker::Worker;

/// Measure what messages cost on this machine, compared with a hand-written send loop
///
/// Starts a throwaway PostgreSQL, the simulated API and workers, each as its own process, and touches nothing else.
/// Needs PostgreSQL's programs, a quiet machine, and for all scenarios about two hours and 20 GB of disk.
/// `--scale 0.05` gives an impression within minutes. The worker is the binary `worker` in the same directory, or the
/// one that `--worker` or `WORKER_BIN` names. Several workers are measured in turn, each with a database that its own
/// `migrate` has created.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    override_usage = "bench [OPTIONS] [SCENARIO]...",
    after_help = "Examples:
  bench                            every scenario, three times
  bench drain delay --runs 5       two scenarios
  bench --scale 0.05 --runs 1      a quick look; the numbers are rough
  bench --json measurements.json   write the values of each run, too
  bench counts --strict            has a change made a message cost more?
  bench drain delay --worker old=/tmp/old-worker --worker new=target/release/worker
                                   an older worker, a newer one and the loop, in turn

Exit codes: 0 measured; 1 something failed, a message was lost, sent twice or above the limit, or, with --strict,
a target was missed; 2 wrong usage."
)]
struct Cli {
    /// The scenarios to run [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,

    /// Runs of each case; the table shows medians
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,

    /// A worker binary to measure; may be given again, and the targets are those of the last one [default: `worker`
    /// beside this program]
    #[arg(long = "worker", value_name = "[NAME=]PATH")]
    workers: Vec<Worker>,

    /// Pairs of runs in snapshot-drain
    #[arg(long, default_value_t = 9, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,

    /// Minutes of snapshot-delay
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(2..=600))]
    minutes: u32,

    /// Multiplies the usual numbers of messages and seconds
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_scale)]
    scale: f64,

    /// Write the measurements, also those of each run, as JSON into a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Fail if a target is missed
    #[arg(long)]
    strict: bool,

    #[command(subcommand)]
    role: Option<Role>,
}

/// The processes that the benchmark starts from its own program.
#[derive(Debug, Subcommand)]
enum Role {
    /// Run as the hand-written loop, with which the benchmark compares the worker
    #[command(hide = true)]
    HandWrittenLoop,
    /// Run as the simulated API
    #[command(hide = true)]
    SimulatedApi(SimulateArgs),
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.001..=1.0).contains(&scale) => Ok(scale),
        _ => Err("write a number from 0.001 to 1".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let second_signal = signals(shutdown.clone())?;
    tokio::select! {
        biased;
        () = second_signal => anyhow::bail!("ended at once by a second signal"),
        result = async {
            match cli.role {
                Some(Role::HandWrittenLoop) => Box::pin(run_hand_written_loop(shutdown)).await,
                Some(Role::SimulatedApi(arguments)) => {
                    Box::pin(simulator::cli::run(arguments)).await
                }
                None => Box::pin(measure(cli, &shutdown)).await,
            }
        } => result,
    }
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT, and returns at the second.
fn signals(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
    Ok(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            shutdown.cancel();
        }
    })
}

async fn run_hand_written_loop(shutdown: CancellationToken) -> anyhow::Result<()> {
    let setting = |name: &str| {
        let value = std::env::var(name).ok();
        value.with_context(|| format!("{name} is not set"))
    };
    let (database_url, api_url) = (setting("DATABASE_URL")?, setting("AGORA_BASE_URL")?);
    hand_written::run(&database_url, &api_url, shutdown).await
}

async fn measure(cli: Cli, shutdown: &CancellationToken) -> anyhow::Result<()> {
    if let Some(path) = &cli.json {
        // A file that can't be written fails the benchmark at its start, not after an hour.
        write(path, b"").await?;
    }
    let scenarios = if cli.scenarios.is_empty() {
        Scenario::value_variants().to_vec()
    } else {
        cli.scenarios
    };
    let workers = if cli.workers.is_empty() {
        vec![Worker::default_one()?]
    } else {
        cli.workers
    };
    worker::check_names(&workers)?;
    let workers = workers.into_iter().map(Worker::resolve);
    let bench = Bench {
        scenarios,
        workers: workers.collect::<Result<_, _>>()?,
        runs: cli.runs,
        pairs: cli.pairs,
        case_options: CaseOptions {
            scale: cli.scale,
            snapshot_minutes: cli.minutes,
        },
    };
    let report = Box::pin(bench.run(shutdown)).await?;
    print!("{report}");
    if let Some(path) = &cli.json {
        write(path, &serde_json::to_vec_pretty(&report)?).await?;
    }
    anyhow::ensure!(!report.was_interrupted, "interrupted");
    let failed: Vec<_> = report.failed_scenarios().map(|it| it.to_string()).collect();
    anyhow::ensure!(
        failed.is_empty(),
        "scenarios failed: {}; the table has the reasons",
        failed.join(", ")
    );
    anyhow::ensure!(
        !cli.strict || report.all_targets_are_met(),
        "a target was missed"
    );
    Ok(())
}

async fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    tokio::fs::write(path, text)
        .await
        .with_context(|| format!("{} can't be written", path.display()))
}
