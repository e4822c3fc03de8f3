//! `worker dev`: runs a throwaway Postgres, the simulated API and a worker in one process, and removes all traces at the
//! end.

mod progress;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::cli::print::print_line;
use crate::cli::signals::signals;
use crate::config::{RawApp, Timing, WorkerConfig};
use crate::ops::OpsServer;
use crate::outbox::{DEFAULT_MAX_AGE, Outbox};
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::worker;
use simulator::{Behaviour, Credential, Ledger, Simulator, SimulatorConfig};
use testkit::postgres::ThrowawayPostgres;

/// See it work: a throwaway Postgres, the simulated API and a worker, in one process
///
/// Needs the binaries of PostgreSQL on this machine. At its end, the command stops the server and removes its data.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker dev                     run until Ctrl-C; prints how to connect with psql, and where the dashboard is
  worker dev --messages 2000     send sample messages and print a summary; the exit code is 0 if every message
                                 ended as expected")]
pub(crate) struct DevArgs {
    /// Insert this number of sample messages, and end when all are final
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: Option<u32>,

    /// The app's limit of calls a second, which the simulated API enforces
    #[arg(long, value_name = "CALLS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

const DATABASE: &str = "dev";
const APP_ID: &str = "dev-app";
/// The key and the secret of the simulated API.
const API_KEY: &str = "dev";
/// Bounds the simulator's memory in a long run. Its totals include older calls.
const KEPT_CALLS: usize = 100_000;

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let ended_at_once = signals(shutdown.clone())?;
    tokio::select! {
        biased;
        () = ended_at_once => bail!("ended at once by a second signal"),
        result = run_until(&args, shutdown) => result,
    }
}

async fn run_until(args: &DevArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let postgres = tokio::select! {
        postgres = ThrowawayPostgres::start() => postgres?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let result = run_on(&postgres, args, shutdown).await;
    let stopped = postgres.stop().await;
    stopped.context("the throwaway Postgres did not stop")?;
    result
}

async fn run_on(
    postgres: &ThrowawayPostgres,
    args: &DevArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let url = SecretString::from(postgres.create_database(DATABASE).await?);
    let outbox = Arc::new(Outbox::connect(&url, 5, DEFAULT_MAX_AGE).await?);
    outbox.migrate(Duration::from_secs(60), |_, _| ()).await?;
    let simulator = Simulator::start(simulator_config(args.rate)?).await?;
    print_line(format!(
        "database    {}\nAPI         {} (simulated; its ledger: /_simulator/)",
        postgres.psql_command(DATABASE),
        simulator.base_url()
    ))?;

    let stopping = shutdown.child_token();
    let mut ops = None;
    // A run with samples ends before anyone could open the dashboard.
    if args.messages.is_none() {
        ops = OpsServer::start(None, None, stopping.clone()).await?;
    }
    let state = ops.as_ref().map(|ops| ops.state.clone());
    let state = state.unwrap_or_default();
    state.outbox.set(Arc::clone(&outbox)).ok();
    let worker = tokio::spawn(worker::run(
        worker_config(args, &simulator.base_url())?,
        Arc::clone(&outbox),
        Arc::clone(&state.liveness),
        stopping.clone(),
    ));
    let result = match args.messages {
        Some(count) => deliver_samples(&outbox, &simulator, count as usize, &shutdown).await,
        None => play(ops.as_ref(), &shutdown).await,
    };
    stopping.cancel();
    worker.await??;
    if let Some(ops) = &ops {
        ops.stop().await;
    }
    outbox.close().await;
    simulator.stop().await;
    result
}

async fn play(ops: Option<&OpsServer>, shutdown: &CancellationToken) -> anyhow::Result<()> {
    if let Some(ops) = ops {
        print_line(format!("dashboard   http://{}", ops.address))?;
    }
    print_line(
        "\nInsert a row into signaling.outbox and look at signaling.delivery. Ctrl-C stops everything.",
    )?;
    shutdown.cancelled().await;
    Ok(())
}

fn simulator_config(limit_per_s: u32) -> anyhow::Result<SimulatorConfig> {
    let flaky = format!("500:destination={},first_calls=1", samples::FLAKY);
    let key = Credential::Key {
        api_key: API_KEY.into(),
        api_secret: API_KEY.into(),
    };
    Ok(SimulatorConfig {
        ledger: Arc::new(Ledger::with_kept_calls(KEPT_CALLS)),
        faults: vec![flaky.parse()?],
        behaviour: Behaviour {
            limit: Some(limit_per_s),
            offline_prefix: samples::OFFLINE.into(),
            // About the latency of a nearby data centre.
            latency_ms: 20,
            jitter_ms: 20,
            credentials: vec![key],
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    })
}

fn worker_config(args: &DevArgs, base_url: &str) -> anyhow::Result<WorkerConfig> {
    let app = RawApp {
        app_id: Some(APP_ID.into()),
        api_key: Some(API_KEY.into()),
        api_secret: Some(API_KEY.into()),
        base_url: Some(base_url.into()),
        rate: Some(f64::from(args.rate)),
        ..RawApp::default()
    };
    let second = Duration::from_secs(1);
    Ok(WorkerConfig {
        apps: vec![app.check("default")?],
        name: "dev".into(),
        host: "localhost".into(),
        environment: None,
        timing: Timing::new(None, second * 15, second * 5, second * 120, second)?,
        // Short delays, so that a short run has retries.
        retry: RetryPolicy::new(
            Duration::from_millis(250),
            second * 10,
            Duration::from_hours(24),
        )?,
        drain_timeout: second * 20,
        retention: None,
        // A proxy could not reach the simulated API on this host.
        proxies: ProxyVariables::default(),
        traces: None,
    })
}

async fn deliver_samples(
    outbox: &Outbox,
    simulator: &Simulator,
    count: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let samples: Vec<_> = (0..count).map(samples::sample).collect();
    let messages: Vec<_> = samples
        .iter()
        .map(|sample| sample.message.clone())
        .collect();
    // Each message without a dedupe key gets an ID.
    let ids = outbox.enqueue(&messages).await?;
    let ids: Vec<_> = ids.into_iter().flatten().collect();
    print_line(format!(
        "inserted    {count} sample messages: to peers and channels, some offline, some that need a retry\n"
    ))?;
    if !progress::watch(outbox, count, shutdown).await? {
        bail!("interrupted before all sample messages were final");
    }
    let rows = outbox.message_states(&ids).await?;
    let summary = simulator.ledger().summary();
    print_line(progress::summary(&rows, summary.apps.get(APP_ID)))?;

    let as_expected = samples
        .iter()
        .zip(&rows)
        .filter(|(sample, row)| row.status == sample.status && row.attempts == sample.attempts)
        .count();
    let wrong = count - as_expected;
    ensure!(
        wrong == 0,
        "{wrong} of {count} messages did not end as they should"
    );
    let duplicates = summary.duplicates;
    ensure!(
        duplicates == 0,
        "the API accepted {duplicates} messages twice"
    );
    print_line("\nEvery message ended as it should.")
}
