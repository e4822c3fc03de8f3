//! `worker dev`: runs a throwaway Postgres, the simulated API and a worker in one process, and removes all traces at the
//! end.

mod command;
mod progress;
mod samples;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use secrecy::SecretString;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::command::ForwardedSignals;
use crate::cli::print::print_line;
use crate::cli::signals::signals;
use crate::config::{RawApp, Timing, WorkerConfig};
use crate::error_text::error_chain_text;
use crate::ops::OpsServer;
use crate::outbox::{DEFAULT_MAX_AGE, Outbox, enqueue};
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::telemetry::print_stderr;
use crate::worker::{self, WorkerError};
use simulator::{Behaviour, Credential, FaultRule, Ledger, Simulator, SimulatorConfig};
use testkit::postgres::ThrowawayPostgres;

/// Try it, or test an application with it: a throwaway Postgres, the simulated API and a worker, in one process
///
/// Needs the binaries of PostgreSQL on this machine. At its end, the command stops the server and removes its data.
///
/// With a COMMAND, `worker dev` starts these services on free ports, runs the command, and exits with the command's exit
/// code. The command finds the database in `DATABASE_URL` and in `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and `PGDATABASE`, and the
/// simulated API in `SIGNALING_API_URL`. SIGINT and SIGTERM go to the command. Log lines below the level `warn` are left out,
/// unless --log names another level.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker dev                     run until Ctrl-C; prints how to connect with psql, and where the dashboard is
  worker dev --messages 2000     send sample messages and print a summary; the exit code is 0 if every message
                                 ended as expected
  worker dev -- npm test         run an application's tests with DATABASE_URL set
  worker dev --fault 500:share=0.1 -- npm test
                                 the same, while one call in ten fails
  worker dev --fault 429:count=20 --fault slow=3s:destination=slow-
                                 the first 20 calls are answered 429; responses for slow-... take three seconds")]
pub(crate) struct DevArgs {
    /// Insert this number of sample messages, and end when all are final
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: Option<u32>,

    /// The app's limit of calls a second, which the simulated API enforces
    #[arg(long, value_name = "CALLS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// A fault that the simulated API injects, such as 500:share=0.1 or 429; may be given again. `worker simulate --help` lists
    /// the faults
    #[arg(long = "fault", value_name = "RULE", conflicts_with = "messages")]
    faults: Vec<FaultRule>,

    /// A command to run, with the database and the simulated API in its environment
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "messages")]
    command: Vec<OsString>,
}

impl DevArgs {
    pub(crate) fn has_command(&self) -> bool {
        !self.command.is_empty()
    }
}

const DATABASE: &str = "dev";
const APP_ID: &str = "dev-app";
/// The key and the secret of the simulated API.
const API_KEY: &str = "dev";
/// Bounds the simulator's memory in a long run. Its totals include older calls.
const KEPT_CALLS: usize = 100_000;

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    if args.has_command() {
        return run_command(&args).await;
    }
    let shutdown = CancellationToken::new();
    let ended_at_once = signals(shutdown.clone())?;
    let result = tokio::select! {
        biased;
        () = ended_at_once => bail!("ended at once by a second signal"),
        result = run_until(&args, shutdown) => result,
    };
    result.map(|()| ExitCode::SUCCESS)
}

/// Runs the command between the start and the stop of the services.
async fn run_command(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let mut signals = ForwardedSignals::new()?;
    let postgres = tokio::select! {
        postgres = ThrowawayPostgres::start() => postgres?,
        kind = signals.next() => return Ok(command::killed_by(kind)),
    };
    let code = run_command_on(&postgres, args, &mut signals).await;
    if let Err(error) = postgres.stop().await {
        // The caller expects the command's exit code.
        print_stderr(&format!(
            "worker dev: the throwaway Postgres did not stop: {error:#}"
        ));
    }
    code
}

async fn run_command_on(
    postgres: &ThrowawayPostgres,
    args: &DevArgs,
    signals: &mut ForwardedSignals,
) -> anyhow::Result<ExitCode> {
    let services = tokio::select! {
        services = Services::start(postgres, args, CancellationToken::new()) => services?,
        kind = signals.next() => return Ok(command::killed_by(kind)),
    };
    let api = services.simulator.base_url();
    let database = postgres.url(DATABASE);
    let program = args.command.first().map(|word| word.to_string_lossy());
    print_stderr(&format!(
        "worker dev: database {database}\nworker dev: simulated API {api}, starting `{}`",
        program.unwrap_or_default()
    ));
    let mut environment = vec![("DATABASE_URL", database), ("SIGNALING_API_URL", api)];
    environment.extend(postgres.libpq_variables(DATABASE));
    let code = command::run(&args.command, &environment, signals).await;
    if let Err(error) = services.stop().await {
        let error = error_chain_text(error.as_ref());
        print_stderr(&format!("worker dev: the worker failed: {error}"));
    }
    code
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
    let services = Services::start(postgres, args, shutdown.child_token()).await?;
    let database = postgres.url(DATABASE);
    print_line(format!(
        "database    {}\nAPI         {} (simulated; its ledger: /_simulator/)",
        postgres.psql_command(DATABASE),
        services.simulator.base_url()
    ))?;
    let result = match args.messages {
        Some(count) => deliver_samples(&services, &database, count as usize, &shutdown).await,
        None => play(services.ops.as_ref(), &shutdown).await,
    };
    services.stop().await?;
    result
}

/// All that `worker dev` runs beside Postgres.
struct Services {
    outbox: Arc<Outbox>,
    simulator: Simulator,
    ops: Option<OpsServer>,
    worker: JoinHandle<Result<(), WorkerError>>,
    stopping: CancellationToken,
}

impl Services {
    async fn start(
        postgres: &ThrowawayPostgres,
        args: &DevArgs,
        stopping: CancellationToken,
    ) -> anyhow::Result<Self> {
        let url = SecretString::from(postgres.create_database(DATABASE).await?);
        let outbox = Arc::new(Outbox::connect(&url, 5, DEFAULT_MAX_AGE).await?);
        outbox.migrate(Duration::from_secs(60), |_, _| ()).await?;
        let simulator = Simulator::start(simulator_config(args)?).await?;
        let mut ops = None;
        // Other runs end before anyone could open the dashboard, and its port is the same for all runs.
        if args.messages.is_none() && !args.has_command() {
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
        Ok(Self {
            outbox,
            simulator,
            ops,
            worker,
            stopping,
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stopping.cancel();
        self.worker.await??;
        if let Some(ops) = &self.ops {
            ops.stop().await;
        }
        self.outbox.close().await;
        self.simulator.stop().await;
        Ok(())
    }
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

fn simulator_config(args: &DevArgs) -> anyhow::Result<SimulatorConfig> {
    let mut faults = args.faults.clone();
    let flaky = format!("500:destination={},first_calls=1", samples::FLAKY);
    faults.push(flaky.parse()?);
    let key = Credential::Key {
        api_key: API_KEY.into(),
        api_secret: API_KEY.into(),
    };
    Ok(SimulatorConfig {
        ledger: Arc::new(Ledger::with_kept_calls(KEPT_CALLS)),
        faults,
        behaviour: Behaviour {
            limit: Some(args.rate),
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
        // When the command ends, no reader is left for the outcomes of open calls, so a long drain would only delay the exit.
        drain_timeout: second * if args.has_command() { 1 } else { 20 },
        retention: None,
        // A proxy could not reach the simulated API on this host.
        proxies: ProxyVariables::default(),
        traces: None,
    })
}

async fn deliver_samples(
    services: &Services,
    database: &str,
    count: usize,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let (outbox, simulator) = (&*services.outbox, &services.simulator);
    let samples: Vec<_> = (0..count).map(samples::sample).collect();
    let messages: Vec<_> = samples
        .iter()
        .map(|sample| sample.message.clone())
        .collect();
    // Each message without a dedupe key gets an ID.
    let mut connection = PgConnection::connect(database).await?;
    let ids = enqueue(&mut connection, &messages).await?;
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
