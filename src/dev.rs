//! `worker dev`: runs a throwaway Postgres, the simulated API and a worker in one process, and removes all traces at the
//! end.

mod progress;
mod samples;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::config::{RawApp, Timing, WorkerConfig};
use crate::ops::OpsServer;
use crate::outbox::{DEFAULT_MAX_AGE, Outbox};
use crate::output::OutputQueue;
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::telemetry::LAST_LINES;
use crate::worker;
use simulator::{Behaviour, Credential, Ledger, Simulator, SimulatorConfig};
use testkit::postgres::ThrowawayPostgres;

#[derive(Debug, Clone)]
pub(crate) struct Dev {
    /// Insert this number of sample messages, and end when they are final. Otherwise run until interrupted.
    pub(crate) messages: Option<usize>,
    /// The app's limit of calls a second.
    pub(crate) limit_per_s: u32,
}

const DATABASE: &str = "dev";
const APP_ID: &str = "dev-app";
/// The key and the secret of the simulated API.
const API_KEY: &str = "dev";
/// Bounds the simulator's memory in a long run. Its totals include older calls.
const KEPT_CALLS: usize = 100_000;

pub(crate) async fn run(dev: Dev, shutdown: CancellationToken) -> anyhow::Result<()> {
    let postgres = tokio::select! {
        postgres = ThrowawayPostgres::start() => postgres?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let out = OutputQueue::start(io::stdout(), |_| ())?;
    let result = run_on(&postgres, &dev, shutdown, &out).await;
    postgres
        .stop()
        .await
        .context("the throwaway Postgres did not stop")?;
    let flushing = out.clone();
    tokio::task::spawn_blocking(move || flushing.flush(LAST_LINES)).await?;
    match out.error() {
        Some(error) if result.is_ok() => Err(error).context("standard output can't be written"),
        _ => result,
    }
}

async fn run_on(
    postgres: &ThrowawayPostgres,
    dev: &Dev,
    shutdown: CancellationToken,
    out: &OutputQueue,
) -> anyhow::Result<()> {
    let url = SecretString::from(postgres.create_database(DATABASE).await?);
    let outbox = Arc::new(Outbox::connect(&url, 5, DEFAULT_MAX_AGE).await?);
    outbox.migrate(Duration::from_secs(60), |_, _| ()).await?;
    let simulator = Simulator::start(simulator_config(dev.limit_per_s)?).await?;
    out.push_line(&format!(
        "database    {}\nAPI         {} (simulated; its ledger: /_simulator/)",
        postgres.psql_command(DATABASE),
        simulator.base_url()
    ));

    let stopping = shutdown.child_token();
    let ops = match dev.messages {
        // The run ends before anyone could open the dashboard.
        Some(_) => None,
        None => dashboard(&outbox, &stopping, out).await?,
    };
    let liveness = ops.as_ref().map(|ops| Arc::clone(&ops.state.liveness));
    let worker = tokio::spawn(worker::run(
        worker_config(dev, &simulator.base_url())?,
        Arc::clone(&outbox),
        liveness.unwrap_or_default(),
        stopping.clone(),
    ));
    let result = if let Some(count) = dev.messages {
        deliver_samples(&outbox, &simulator, count, &shutdown, out).await
    } else {
        out.push_line(
            "\nInsert a row into signaling.outbox and look at signaling.delivery. Ctrl-C stops everything.",
        );
        shutdown.cancelled().await;
        Ok(())
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

/// Starts the ops server, if its usual address is free.
async fn dashboard(
    outbox: &Arc<Outbox>,
    shutdown: &CancellationToken,
    out: &OutputQueue,
) -> anyhow::Result<Option<OpsServer>> {
    let ops = OpsServer::start(None, None, shutdown.clone()).await?;
    if let Some(ops) = &ops {
        // Nothing else sets the outbox.
        ops.state.outbox.set(Arc::clone(outbox)).ok();
        out.push_line(&format!("dashboard   http://{}", ops.address));
    }
    Ok(ops)
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

fn worker_config(dev: &Dev, base_url: &str) -> anyhow::Result<WorkerConfig> {
    let app = RawApp {
        app_id: Some(APP_ID.into()),
        api_key: Some(API_KEY.into()),
        api_secret: Some(API_KEY.into()),
        base_url: Some(base_url.into()),
        rate: Some(f64::from(dev.limit_per_s)),
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
    out: &OutputQueue,
) -> anyhow::Result<()> {
    let samples: Vec<_> = (0..count).map(samples::sample).collect();
    let messages: Vec<_> = samples
        .iter()
        .map(|sample| sample.message.clone())
        .collect();
    // Each message without a dedupe key gets an ID.
    let ids: Vec<_> = outbox
        .enqueue(&messages)
        .await?
        .into_iter()
        .flatten()
        .collect();
    out.push_line(&format!(
        "inserted    {count} sample messages: to peers and channels, some offline, some that need a retry\n"
    ));
    if !progress::watch(outbox, count, shutdown, out).await? {
        bail!("interrupted before all sample messages were final");
    }
    let rows = outbox.message_states(&ids).await?;
    let summary = simulator.ledger().summary();
    out.push_line(&progress::summary(&rows, summary.apps.get(APP_ID)));

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
    out.push_line("\nEvery message ended as it should.");
    Ok(())
}
