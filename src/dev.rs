//! `worker dev`: everything that a delivery needs, thrown away afterwards. A throwaway Postgres, the migrations, the
//! simulated API and a worker, in one process and with nothing set up by hand.

mod progress;
mod samples;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::config::{RawApp, Timing, WorkerConfig};
use crate::ops::OpsServer;
use crate::outbox::{Outbox, SampleRow};
use crate::output::OutputQueue;
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::telemetry::LAST_LINES;
use crate::worker;
use simulator::{
    ApiKey, Behaviour, Credentials, Fault, FaultRule, Ledger, Simulator, SimulatorConfig,
};
use testkit::postgres::ThrowawayPostgres;

#[derive(Debug, Clone)]
pub(crate) struct Dev {
    /// Insert so many sample messages, and end when they have gone out. Without it, run until interrupted.
    pub(crate) messages: Option<usize>,
    /// The app's limit of calls a second.
    pub(crate) limit_per_s: u32,
}

const DATABASE: &str = "dev";
const APP_ID: &str = "dev-app";
/// The simulator's key and secret, known to this process alone.
const API_KEY: &str = "dev";
/// How many calls the simulator remembers one by one; its sums go on.
const KEPT_CALLS: usize = 100_000;

/// Runs the show until it is over, or `shutdown` is cancelled. What it started is gone when it returns.
///
/// # Errors
/// Where something can't start, the worker fails, or a sample message did not end as it should.
pub(crate) async fn run(dev: Dev, shutdown: CancellationToken) -> anyhow::Result<()> {
    let postgres = tokio::select! {
        postgres = ThrowawayPostgres::start() => postgres?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let out = OutputQueue::start(io::stdout(), |_| ())?;
    let shown = show(&dev, &postgres, shutdown, &out).await;
    postgres
        .stop()
        .await
        .context("the throwaway Postgres did not stop")?;
    let flushing = out.clone();
    tokio::task::spawn_blocking(move || flushing.flush(LAST_LINES)).await?;
    match out.error() {
        Some(error) if shown.is_ok() => Err(error).context("standard output can't be written"),
        _ => shown,
    }
}

async fn show(
    dev: &Dev,
    postgres: &ThrowawayPostgres,
    shutdown: CancellationToken,
    out: &OutputQueue,
) -> anyhow::Result<()> {
    let url = SecretString::from(postgres.create_database(DATABASE).await?);
    let outbox = Arc::new(Outbox::connect(&url, 5).await?);
    outbox.migrate(Duration::from_secs(60), |_, _| ()).await?;
    let simulator = simulator(dev.limit_per_s).await?;
    out.push_line(&format!(
        "database    {}\nAPI         {} (simulated; its ledger: /_simulator/)",
        postgres.psql_command(DATABASE),
        simulator.base_url()
    ));

    let ending = shutdown.child_token();
    let ops = match dev.messages {
        // It is over before anybody looks.
        Some(_) => None,
        None => dashboard(&outbox, &ending, out).await?,
    };
    let liveness = ops.as_ref().map(|ops| Arc::clone(&ops.state.liveness));
    let worker = tokio::spawn(worker::run(
        config(dev, &simulator.base_url())?,
        Arc::clone(&outbox),
        liveness.unwrap_or_default(),
        ending.clone(),
    ));
    let result = if let Some(count) = dev.messages {
        deliver_samples(&outbox, &simulator, count, &shutdown, out).await
    } else {
        out.push_line(
            "\nInsert a row into signaling.outbox and look at signaling.delivery. Ctrl-C ends it all.",
        );
        shutdown.cancelled().await;
        Ok(())
    };
    ending.cancel();
    worker.await??;
    if let Some(ops) = &ops {
        ops.stop().await;
    }
    outbox.close().await;
    simulator.stop().await;
    result
}

/// The ops server, if its usual address is free.
async fn dashboard(
    outbox: &Arc<Outbox>,
    shutdown: &CancellationToken,
    out: &OutputQueue,
) -> anyhow::Result<Option<OpsServer>> {
    let ops = OpsServer::start(None, None, shutdown.clone()).await?;
    if let Some(ops) = &ops {
        // It is opened once.
        ops.state.outbox.set(Arc::clone(outbox)).ok();
        out.push_line(&format!("dashboard   http://{}", ops.address));
    }
    Ok(ops)
}

async fn simulator(limit_per_s: u32) -> anyhow::Result<Simulator> {
    let flaky = FaultRule {
        destination: Some(samples::FLAKY.into()),
        first_calls: Some(1),
        ..FaultRule::from(Fault::Status {
            code: 500,
            retry_after: None,
            body: None,
        })
    };
    let secret = ApiKey {
        api_key: API_KEY.into(),
        api_secret: API_KEY.into(),
    };
    Ok(Simulator::start(SimulatorConfig {
        ledger: Some(Arc::new(Ledger::with_kept_calls(KEPT_CALLS))),
        faults: vec![flaky],
        behaviour: Behaviour {
            limit: Some(limit_per_s),
            offline_prefix: Some(samples::OFFLINE.into()),
            // About what a call takes to a data centre nearby.
            latency_ms: 20,
            jitter_ms: 20,
            credentials: Credentials {
                basic: vec![secret],
                ..Credentials::default()
            },
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    })
    .await?)
}

fn config(dev: &Dev, base_url: &str) -> anyhow::Result<WorkerConfig> {
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
        // Short, so that retries are seen within the show.
        retry: RetryPolicy::new(
            Duration::from_millis(250),
            second * 10,
            Duration::from_hours(24),
        )?,
        drain_timeout: second * 20,
        retention: None,
        // The simulated API is on this host.
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
    let samples = samples::samples(count)?;
    let messages: Vec<_> = samples
        .iter()
        .map(|sample| sample.message.clone())
        .collect();
    // None has a key, so each has an id.
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
        anyhow::bail!("interrupted before all sample messages were final");
    }
    let rows = outbox.sample_rows(&ids).await?;
    let summary = simulator.ledger().summary();
    out.push_line(&progress::summary(&rows, summary.apps.get(APP_ID)));

    let astray = samples
        .iter()
        .zip(&rows)
        .filter(|(sample, row)| !sample.ended_well(row))
        .count();
    if astray > 0 || rows.len() != count {
        anyhow::bail!("{astray} of {count} messages did not end as they should");
    }
    anyhow::ensure!(
        summary.duplicates == 0,
        "{} messages were accepted twice",
        summary.duplicates
    );
    out.push_line("\nEvery message ended as it should.");
    Ok(())
}

impl samples::Sample {
    fn ended_well(&self, row: &SampleRow) -> bool {
        row.status == self.ends_as && row.attempts == self.calls
    }
}
