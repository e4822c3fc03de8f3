//! `bench`: measures the worker's binary from outside, as processes against a throwaway PostgreSQL and the simulated
//! API, and compares it with a hand-written send loop.

mod counts;
mod delay;
mod drain;
mod environment;
mod hand_written;
mod idle;
mod measurements;
mod producers;
mod resource_usage;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum as _};
use testkit::postgres::{Settings, ThrowawayPostgres};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::environment::{Sender, Workload};
use crate::measurements::Case;
use crate::scenario::{ONLY_CASE, Scenario};

/// Measure the costs of messages on this machine, and compare them with a hand-written send loop
///
/// Starts a throwaway PostgreSQL, the simulated API and worker processes, and changes nothing else.
/// Needs PostgreSQL's programs, a quiet machine, and for all scenarios about two hours and 20 GB of disk.
/// `--scale 0.05` gives an impression within minutes. The worker is the binary `worker` in the same directory, or the
/// one that `--worker` or `WORKER_BIN` names. Several workers are measured in turn. Each worker's own `migrate` creates
/// its databases.
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    version,
    after_help = "Examples:
  bench                            every scenario, three times
  bench drain delay --runs 5       two scenarios
  bench --scale 0.05 --runs 1      a quick look; the numbers are rough
  bench counts --strict            has a change made a message cost more?
  bench drain delay --worker /tmp/old-worker --worker target/release/worker
                                   an older worker, a newer one and the loop, in turn

Exit codes: 0 measured; 1 something failed, a message was lost, sent twice or above the limit, or, with --strict,
a target was missed; 2 wrong usage; 101 a worker failed."
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
    #[arg(long = "worker", env = "WORKER_BIN", value_name = "PATH")]
    workers: Vec<PathBuf>,

    /// Multiplies the usual numbers of messages and seconds
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = parse_scale)]
    scale: f64,

    /// Fail if a target is missed
    #[arg(long)]
    strict: bool,

    /// Run as the hand-written loop. The benchmark starts its own program with this flag
    #[arg(long, hide = true)]
    hand_written_loop: bool,
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
    if cli.hand_written_loop {
        let setting = |name| {
            let value = std::env::var(name).ok();
            value.with_context(|| format!("{name} is not set"))
        };
        let (database_url, api_url) = (setting("DATABASE_URL")?, setting("AGORA_BASE_URL")?);
        return hand_written::run(&database_url, &api_url, shutdown).await;
    }
    let ended = shutdown.run_until_cancelled(Box::pin(bench(cli))).await;
    ended.context("interrupted")?
}

async fn bench(cli: Cli) -> anyhow::Result<()> {
    let mut workers = cli.workers;
    if workers.is_empty() {
        workers.push(std::env::current_exe()?.with_file_name("worker"));
    }
    for worker in &mut workers {
        // The system would search a name without a slash in `PATH`.
        *worker = std::path::absolute(&worker)?;
        ensure!(
            worker.is_file(),
            "there is no worker binary at {}: run `make bench`, or `cargo build --release`, or set WORKER_BIN or --worker",
            worker.display()
        );
    }
    let mut scenarios = cli.scenarios;
    if scenarios.is_empty() {
        scenarios = Scenario::value_variants().to_vec();
    }
    // Durable, so that commits wait for the disk as in production.
    let server = ThrowawayPostgres::start_with(&Settings {
        is_durable: true,
        server_settings: vec![
            "shared_buffers=256MB".into(),
            "max_wal_size=4GB".into(),
            "wal_compression=off".into(),
        ],
        // A login by SCRAM costs the client as many instructions as 100 messages, so one login more or less would change
        // the count.
        data_files: vec![(
            "pg_hba.conf",
            "local all all trust\nhost all all 127.0.0.1/32 password\n".into(),
        )],
        ..Settings::default()
    })
    .await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "signaling-worker {}, {}, {cores} cores, scale {}",
        env!("CARGO_PKG_VERSION"),
        server.version,
        cli.scale
    );
    let (mut failed, mut all_targets_are_met) = (Vec::new(), true);
    for scenario in scenarios {
        let runs = scenario.runs(cli.runs);
        let measured = measure(scenario, &workers, cli.scale, runs, &server).await;
        match measured {
            Ok(cases) => {
                // The targets are for the last worker and the loop.
                let first = scenario.cases().len() * (workers.len() - 1);
                all_targets_are_met &= measurements::print(scenario, &cases, first);
            }
            Err(error) => {
                println!("\n{scenario}\n  FAILED {error:#}");
                failed.push(scenario.to_string());
            }
        }
    }
    server.stop().await?;
    ensure!(failed.is_empty(), "scenarios failed: {}", failed.join(", "));
    ensure!(!cli.strict || all_targets_are_met, "a target was missed");
    Ok(())
}

/// Runs each case in turn, so that other load on the machine affects all of them.
async fn measure(
    scenario: Scenario,
    workers: &[PathBuf],
    scale: f64,
    runs: u32,
    server: &ThrowawayPostgres,
) -> anyhow::Result<Vec<Case>> {
    let mut senders: Vec<_> = workers.iter().cloned().map(Sender::Worker).collect();
    if scenario.compares_with_loop() {
        senders.push(Sender::HandWritten);
    }
    let mut cases: Vec<Case> = Vec::new();
    let mut loads: Vec<(&Sender, Workload)> = Vec::new();
    for sender in &senders {
        for (number, &case) in scenario.cases().iter().enumerate() {
            let name = match sender {
                Sender::HandWritten => "hand-written loop".to_owned(),
                Sender::Worker(_) if workers.len() == 1 => case.to_owned(),
                Sender::Worker(binary) if case == ONLY_CASE => binary.display().to_string(),
                Sender::Worker(binary) => format!("{}: {case}", binary.display()),
            };
            let runs = Vec::new();
            cases.push(Case { name, runs });
            loads.push((sender, scenario.scaled(number, scale)));
        }
    }
    for run in 1..=runs {
        for (case, (sender, workload)) in cases.iter_mut().zip(&loads) {
            eprintln!("{scenario}: {}, run {run} of {runs}", case.name);
            let measured = Box::pin(scenario.measure(server, sender, workload));
            case.runs.push(measured.await?);
        }
    }
    Ok(cases)
}
