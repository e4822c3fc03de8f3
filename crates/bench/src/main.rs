//! `worker bench`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum as _};
use tokio_util::sync::CancellationToken;

use super::run::signals;
use crate::bench::{Bench, Scenario, hand_written};

/// Measure what messages cost on this machine, beside the loop that people write by hand
///
/// Starts a throwaway Postgres, the simulated API and workers, each as a process of its own, and nothing else is
/// touched. Needs the binaries of PostgreSQL, a quiet machine, and for everything about an hour and 20 GB of disk.
/// `--scale 0.05` gives an impression within minutes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker bench                        everything, three times
  worker bench drain delay --runs 5   two scenarios
  worker bench --scale 0.05 --runs 1  a quick look; the stats are rough
  worker bench --json stats.json    all runs of each figure, too
  worker bench counts --strict        has a change made a message cost more?

Exit codes: 0 measured, 1 something failed, or a message was sent twice, lost or above the limit,
or a target was missed with --strict.")]
pub(super) struct BenchArgs {
    /// What to measure [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,

    /// How often; the table shows medians
    #[arg(long, default_value_t = 3, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,

    /// The part of the usual numbers of messages and seconds
    #[arg(long, default_value_t = 1.0, value_name = "PART", value_parser = parse_scale)]
    scale: f64,

    /// Write the stats, also those of each run, as JSON into a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Fail where a target is missed
    #[arg(long)]
    strict: bool,

    /// Be what is compared with
    #[arg(long, hide = true)]
    as_the_hand_written_loop: bool,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.001..=1.0).contains(&scale) => Ok(scale),
        _ => Err("write a number from 0.001 to 1".into()),
    }
}

pub(super) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let ended_at_once = signals(shutdown.clone())?;
    tokio::select! {
        biased;
        () = ended_at_once => anyhow::bail!("ended at once by a second signal"),
        result = async {
            if args.as_the_hand_written_loop {
                Box::pin(be_the_hand_written_loop(shutdown)).await
            } else {
                Box::pin(measure(args, &shutdown)).await
            }
        } => result,
    }
}

async fn be_the_hand_written_loop(shutdown: CancellationToken) -> anyhow::Result<()> {
    let setting = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    let (database_url, api_url) = (setting("DATABASE_URL")?, setting("AGORA_BASE_URL")?);
    hand_written::run(&database_url, &api_url, shutdown).await
}

async fn measure(args: BenchArgs, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let scenarios = if args.scenarios.is_empty() {
        Scenario::value_variants().to_vec()
    } else {
        args.scenarios
    };
    let bench = Bench {
        scenarios,
        runs: args.runs,
        scale: args.scale,
    };
    if let Some(path) = &args.json {
        // Better now than after an hour.
        write(path, b"").await?;
    }
    let report = Box::pin(bench.run(shutdown)).await?;
    print!("{report}");
    if let Some(path) = &args.json {
        write(path, &serde_json::to_vec_pretty(&report)?).await?;
    }
    anyhow::ensure!(!report.was_interrupted, "interrupted");
    let failed: Vec<_> = report.failed().map(|one| one.to_string()).collect();
    anyhow::ensure!(
        failed.is_empty(),
        "something went wrong: {}",
        failed.join(", ")
    );
    anyhow::ensure!(
        !args.strict || report.all_targets_are_met(),
        "a target was missed"
    );
    Ok(())
}

async fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    tokio::fs::write(path, text)
        .await
        .with_context(|| format!("{} can't be written", path.display()))
}
