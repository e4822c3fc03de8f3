//! `bench`: measures the worker's binary from outside, as processes against a throwaway PostgreSQL and the simulated
//! API, and compares it with a hand-written send loop.

mod api;
mod child_process;
mod counts;
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
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum as _};
use simulator::cli::SimulateArgs;
use testkit::SchedulerStalls;
use testkit::postgres::ThrowawayPostgres;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::drain::SchedulerStalled;
use crate::environment::Sender;
use crate::measurements::{Measurements, medians};
use crate::report::{CaseReport, Report, ScenarioReport};
use crate::scenario::{Load, ONLY_CASE, Scenario};
use crate::worker::Worker;

/// A run that a scheduler stall disturbs is repeated up to this number.
const MAX_TRIES: u32 = 4;
/// The benchmark watches the idle machine for so long before the first run.
const IDLE_OBSERVATION: Duration = Duration::from_secs(2);

/// Measure the costs of messages on this machine, and compare them with a hand-written send loop
///
/// Starts a throwaway PostgreSQL, the simulated API and workers, each as its own process, and changes nothing else.
/// Needs PostgreSQL's programs, a quiet machine, and for all scenarios about two hours and 20 GB of disk.
/// `--scale 0.05` gives an impression within minutes. The worker is the binary `worker` in the same directory, or the
/// one that `--worker` or `WORKER_BIN` names. Several workers are measured in turn. Each worker's own `migrate` creates
/// its databases.
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

    /// Runs of each case; the table shows medians. snapshot-drain makes three pairs a run
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,

    /// A worker binary to measure; may be given again, and the targets are those of the last one [default: `worker`
    /// beside this program]
    #[arg(long = "worker", value_name = "[NAME=]PATH")]
    workers: Vec<Worker>,

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

/// The benchmark starts its own program in these roles.
#[derive(Debug, Subcommand)]
enum Role {
    /// Run as the hand-written loop
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
    if let Some(Role::SimulatedApi(arguments)) = cli.role {
        return simulator::cli::run(arguments).await;
    }
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
    let shutdown = CancellationToken::new();
    let cancel = shutdown.clone().drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        drop(cancel);
    });
    match cli.role {
        None => Box::pin(bench(cli, &shutdown)).await,
        Some(_) => run_hand_written_loop(shutdown).await,
    }
}

async fn run_hand_written_loop(shutdown: CancellationToken) -> anyhow::Result<()> {
    let setting = |name: &str| {
        let value = std::env::var(name).ok();
        value.with_context(|| format!("{name} is not set"))
    };
    let (database_url, api_url) = (setting("DATABASE_URL")?, setting("AGORA_BASE_URL")?);
    hand_written::run(&database_url, &api_url, shutdown).await
}

async fn bench(cli: Cli, shutdown: &CancellationToken) -> anyhow::Result<()> {
    if let Some(path) = &cli.json {
        // A file that can't be written fails the benchmark now, not after an hour.
        write(path, b"").await?;
    }
    let mut scenarios = cli.scenarios;
    if scenarios.is_empty() {
        scenarios = Scenario::value_variants().to_vec();
    }
    let workers = worker::resolve(cli.workers)?;
    let server = environment::start_server().await?;
    let stalls = SchedulerStalls::watch();
    tokio::time::sleep(IDLE_OBSERVATION).await;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        workers,
        runs: cli.runs,
        scale: cli.scale,
        was_interrupted: false,
        postgres: server.version().to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        idle_stall_ms: stalls.take_longest().as_secs_f64() * 1e3,
        scenarios: Vec::new(),
    };
    drop(stalls);
    if !report.machine_is_quiet() {
        eprintln!(
            "warning: this machine is not quiet: while it was idle, a processor was not available for {:.0} ms; times \
             will be rough, and the pace too low",
            report.idle_stall_ms
        );
    }
    for scenario in scenarios {
        let measured = measure(scenario, &report, &server, shutdown).await;
        report.scenarios.extend(measured);
        if shutdown.is_cancelled() {
            report.was_interrupted = true;
            break;
        }
    }
    server.stop().await?;
    print!("{report}");
    if let Some(path) = &cli.json {
        write(path, &serde_json::to_vec_pretty(&report)?).await?;
    }
    anyhow::ensure!(!report.was_interrupted, "interrupted");
    let failed = report.failed_scenarios();
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

/// Runs each case in turn, so that other load on the machine affects all of them. An error fails the scenario. Returns
/// `None` if a signal came before each case had a run.
async fn measure(
    scenario: Scenario,
    report: &Report,
    server: &ThrowawayPostgres,
    shutdown: &CancellationToken,
) -> Option<ScenarioReport> {
    let mut cases: Vec<(CaseReport, Load)> = Vec::new();
    let mut add_cases = |worker: Option<&Worker>, sender: &Sender| {
        for (case, load) in scenario.cases(report.scale, sender) {
            let case = match worker {
                None => "hand-written loop".to_owned(),
                Some(worker) if case == ONLY_CASE => worker.name.clone(),
                Some(_) if report.workers.len() == 1 => case.to_owned(),
                Some(worker) => format!("{}: {case}", worker.name),
            };
            let worker = worker.map(|worker| worker.name.clone());
            let (median, runs) = Default::default();
            cases.push((
                CaseReport {
                    case,
                    worker,
                    median,
                    runs,
                },
                load,
            ));
        }
    };
    for worker in &report.workers {
        add_cases(Some(worker), &Sender::Worker(worker.binary.clone()));
    }
    if scenario.compares_with_loop() {
        add_cases(None, &Sender::HandWritten);
    }

    let mut repeated = Vec::new();
    let number = scenario.runs(report.runs);
    let running = async {
        for run in 1..=number {
            for (case, load) in &mut cases {
                let name = format!("{}, run {run} of {number}", case.case);
                eprintln!("{scenario}: {name}");
                let measurements = measure_quietly(load, server, &name, &mut repeated).await?;
                case.runs.push(measurements);
            }
        }
        anyhow::Ok(())
    };
    let ended = shutdown.run_until_cancelled(running).await;
    let failure = ended
        .and_then(Result::err)
        .map(|error| format!("{error:#}"));
    let mut cases: Vec<_> = cases.into_iter().map(|(case, _)| case).collect();
    if failure.is_none() && cases.iter().any(|case| case.runs.is_empty()) {
        return None;
    }
    for case in &mut cases {
        case.median = medians(&case.runs);
    }
    let last_worker = report.workers.last().map(|worker| &worker.name);
    let of_last_worker: Vec<_> = cases
        .iter()
        .filter(|case| case.worker.is_none() || case.worker.as_ref() == last_worker)
        .collect();
    Some(ScenarioReport {
        scenario,
        targets: scenario.targets(&of_last_worker),
        cases,
        repeated,
        failure,
    })
}

/// Measures a run, and repeats it if a scheduler stall disturbed it.
async fn measure_quietly(
    load: &Load,
    server: &ThrowawayPostgres,
    name: &str,
    repeated: &mut Vec<String>,
) -> anyhow::Result<Measurements> {
    let mut tries = 1;
    loop {
        match Box::pin(load.measure(server)).await {
            Err(error) if tries < MAX_TRIES && error.is::<SchedulerStalled>() => {
                eprintln!("{name}: {error}: measuring again");
                repeated.push(format!("{name}: {error}"));
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    tokio::fs::write(path, text)
        .await
        .with_context(|| format!("{} can't be written", path.display()))
}
