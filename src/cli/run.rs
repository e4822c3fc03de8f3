//! `worker run`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::args::{
    DatabaseArgs, Environment, host, parse_calls, parse_duration, parse_environment,
    parse_retention, parse_whole_calls,
};
use super::ops::OpsArgs;
use super::signals::signals;
use crate::config::{self, AppConfig, ConfigError, RawApp, Timing, WorkerConfig};
use crate::error_text::error_chain_text;
use crate::ops::Waiting;
use crate::outbox::{ConnectError, Outbox, SchemaError, is_outage};
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::sanitize;
use crate::secret;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::traces::Traces;
use crate::worker;

/// Deliver messages, until SIGTERM or SIGINT
///
/// Any number of these may run, on any number of hosts: together they keep each app below its limit. At the first
/// signal the worker claims nothing more, gives back what it has not sent, finishes and records what is in flight,
/// and exits with 0; a second signal ends it at once. SIGQUIT is like them. SIGHUP and SIGALRM also end the worker in
/// order, but never at once, and SIGUSR1 and SIGUSR2 change nothing. Files of secrets are read again by themselves.
#[derive(Debug, Args)]
#[command(
    after_help = "Secrets have no flags, so that they stand in no list of processes. Set one of:
  AGORA_API_KEY and AGORA_API_SECRET     basic authentication, any sender
  AGORA_TOKEN and AGORA_UID              a token that you make, for its one sender
  AGORA_APP_CERTIFICATE                  the worker makes a token for each sender
Each also with _FILE at its end, as the name of a file that holds it; a file is read again when it changes.

Traces go by OTLP (http/protobuf) to where OTEL_EXPORTER_OTLP_ENDPOINT says, like http://localhost:4318;
without it, there are none. The other standard variables, like OTEL_SERVICE_NAME, hold too: see docs/operation.md.

Examples:
  DATABASE_URL=postgres://localhost/app AGORA_APP_ID=… AGORA_API_KEY=… AGORA_API_SECRET_FILE=/run/secrets/agora worker run
  worker run --config apps.toml --max-in-flight 200

A file of apps has a table for each one, named like the column `app` of its rows:
  [apps.default]
  app_id = \"…\"
  api_key = \"…\"
  api_secret_file = \"/run/secrets/agora\"
  rate = 500"
)]
pub(super) struct RunArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    ops: OpsArgs,
}

/// What goes for the app, or for each app of the file that does not say otherwise.
#[derive(Debug, Args)]
#[command(next_help_heading = "App")]
pub(super) struct AppArgs {
    /// A TOML file with several apps, instead of the one app of the variables
    #[arg(long, env = "WORKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The app ID
    #[arg(long, env = "AGORA_APP_ID", value_name = "ID")]
    app_id: Option<String>,

    /// With `AGORA_TOKEN`: the user that the token was made for
    #[arg(long, env = "AGORA_UID", value_name = "USER")]
    uid: Option<String>,

    /// In which headers tokens go: x-agora (the default for a given token) or authorization (for made
    /// tokens)
    #[arg(long, env = "AGORA_TOKEN_HEADERS", value_name = "KIND")]
    token_headers: Option<String>,

    /// The API's hosts, with commas between them: URLs, or `global` (api.agora.io, then api.sd-rtn.com) or
    /// `china` (the reverse). The worker calls another one while the first can't be connected or answers 502 to 504
    /// [default: `https://api.agora.io`]
    #[arg(long, env = "AGORA_BASE_URL", value_name = "URLS")]
    base_url: Option<String>,

    /// Certificates to trust beside the public ones, as PEM
    #[arg(long, env = "AGORA_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Calls a second that the API allows the app, over all workers; `worker limit` sets another one while they
    /// run [default: 500]
    #[arg(long, env = "WORKER_RATE", value_name = "CALLS", value_parser = parse_calls)]
    rate: Option<f64>,

    /// Messages of an app that this process may have at once, from their claim until they are recorded
    /// [default: 1024]
    #[arg(long, env = "WORKER_MAX_IN_FLIGHT", value_name = "CALLS", value_parser = parse_whole_calls)]
    max_in_flight: Option<usize>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Worker")]
pub(super) struct WorkerArgs {
    /// Longest time from the start of a call to the end of its answer
    #[arg(long, env = "WORKER_REQUEST_TIMEOUT", default_value = "15s", value_parser = parse_duration)]
    request_timeout: Duration,

    /// Longest time to make a connection to the API
    #[arg(long, env = "WORKER_CONNECT_TIMEOUT", default_value = "5s", value_parser = parse_duration)]
    connect_timeout: Duration,

    /// How long a connection to the API is used for further calls; each ends somewhat earlier, at random. A change of
    /// the API's addresses in the name service is followed within this time
    #[arg(long, env = "WORKER_CONNECTION_MAX_AGE", default_value = "2m", value_parser = parse_duration)]
    connection_max_age: Duration,

    /// How long a claimed message belongs to this worker: when it dies, others have the message after that
    /// [default: the request timeout and 15s]
    #[arg(long, env = "WORKER_LEASE", value_parser = parse_duration)]
    lease: Option<Duration>,

    /// The delay before a message's second call; it doubles with each call
    #[arg(long, env = "WORKER_RETRY_BASE", default_value = "1s", value_parser = parse_duration)]
    retry_base: Duration,

    /// The longest delay between two calls of a message
    #[arg(long, env = "WORKER_RETRY_CAP", default_value = "5m", value_parser = parse_duration)]
    retry_cap: Duration,

    /// A message ends as failed if it still fails this long after its first failure, also where the API or a worker
    /// was at fault and the attempts were not charged
    #[arg(long, env = "WORKER_GIVE_UP_AFTER", default_value = "24h", value_parser = parse_duration)]
    give_up_after: Duration,

    /// How often an idle worker looks for work when nothing wakes it
    #[arg(long, env = "WORKER_POLL_INTERVAL", default_value = "1s", value_parser = parse_duration)]
    poll_interval: Duration,

    /// How long a shutdown waits for calls in flight [default: the request timeout and 5s]
    #[arg(long, env = "WORKER_DRAIN_TIMEOUT", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,

    /// Delete messages, with their attempts, this long after they have finished, like `12h` or `30d`; at least `1m`
    /// [default: keep them]
    #[arg(long, env = "WORKER_RETENTION", value_name = "DURATION", value_parser = parse_retention)]
    retention: Option<Duration>,

    /// Most connections to the database, beside the one that records, the one that receives
    /// wakeups and two for monitoring
    #[arg(long, env = "WORKER_DATABASE_CONNECTIONS", default_value_t = 5, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) database_connections: u32,

    /// Longest time for which the worker keeps a connection to the database; some are replaced up to a fifth earlier
    #[arg(long, env = "WORKER_DATABASE_CONNECTION_AGE", default_value = "30m", value_name = "DURATION",
          value_parser = parse_duration)]
    database_connection_age: Duration,

    /// The worker's name in `claimed_by` [default: host name and process ID]
    #[arg(long, env = "WORKER_NAME")]
    name: Option<String>,

    /// A name for this environment, like `production`. Workers of another environment refuse the messages of a copied
    /// database until `worker adopt` [default: none]
    #[arg(long, env = "WORKER_ENVIRONMENT", value_name = "NAME", value_parser = parse_environment)]
    environment: Option<Environment>,
}

/// How long a worker takes at most to end after its drain timeout, but for the last stats and the last lines of its log,
/// which have a second each: what stops it has to wait for so long.
const FAREWELL: Duration = Duration::from_secs(4);
/// How often a database that can't be used yet is tried.
const DATABASE_RETRY: Duration = Duration::from_secs(1);

pub(super) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut config = config(&args.app, &args.worker)?;
    let traces = Traces::from_environment(&config.name, &config.proxies)?;
    config.traces.clone_from(&traces);
    raise_file_limit(&config);
    log_oddities(&config);
    let shutdown = CancellationToken::new();
    // Before the database is asked for anything, so that what it says is seen.
    let ops = args.ops.start(&shutdown).await?;
    let shown = ops
        .as_ref()
        .map(|ops| ops.state.clone())
        .unwrap_or_default();
    let work = async {
        let opening = open(&args, &shown.waiting_for);
        let Some(outbox) = shutdown.run_until_cancelled(opening).await else {
            return Ok(());
        };
        let outbox = Arc::new(outbox?);
        // It is opened once.
        shown.outbox.set(Arc::clone(&outbox)).ok();
        let worked = Box::pin(worker::run(
            config,
            Arc::clone(&outbox),
            Arc::clone(&shown.liveness),
            shutdown.clone(),
        ))
        .await;
        let farewell = async {
            let flush = async {
                if let Some(traces) = traces {
                    traces.shutdown().await;
                }
            };
            let close = async {
                if let Some(ops) = &ops {
                    ops.stop().await;
                }
                outbox.close().await;
            };
            tokio::join!(flush, close);
        };
        // What is not closed by then is closed by the end of the process.
        tokio::time::timeout(FAREWELL, farewell).await.ok();
        Ok(worked?)
    };
    tokio::select! {
        biased;
        () = signals(shutdown.clone())? => anyhow::bail!("ended at once by a second signal: what was in flight is due again when its lease ends"),
        result = work => result,
    }
}

/// A value that is odd may still be right, so the worker tries it.
fn log_oddities(config: &WorkerConfig) {
    for app in &config.apps {
        for (variable, why) in app.credentials.oddities() {
            tracing::warn!(
                event = "setting_suspicious",
                app = app.alias,
                variable,
                "{variable} {why}: if the API refuses the credentials, look there"
            );
        }
    }
}

/// The database with the schema that is needed. A worker that starts while its database is down, or has no connection
/// to spare, waits as one does that was started before: it is no reason to end.
async fn open(args: &RunArgs, waiting: &Waiting) -> anyhow::Result<Outbox> {
    let try_open = async || -> anyhow::Result<Outbox> {
        let outbox = args
            .database
            .connect_with(
                args.worker.database_connections,
                args.worker.database_connection_age,
            )
            .await?;
        outbox.check_objects().await?;
        Ok(outbox)
    };
    let failures = FailureLog::default();
    loop {
        match try_open().await {
            Err(error) if is_passing(&error) => {
                waiting.because(error_chain_text(error.as_ref()));
                if failures.failed() {
                    tracing::warn!(
                        event = "startup_delayed",
                        "{error:#}: trying again until it can"
                    );
                }
                tokio::time::sleep(DATABASE_RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// Whether it is worth waiting for the end of what is wrong with the database.
fn is_passing(error: &anyhow::Error) -> bool {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ConnectError::Unreachable { source, .. }), _)
        | (_, Some(SchemaError::Database(source))) => is_outage(source),
        _ => false,
    }
}

pub(super) fn config(app: &AppArgs, worker: &WorkerArgs) -> Result<WorkerConfig, ConfigError> {
    let timing = Timing::new(
        worker.lease,
        worker.request_timeout,
        worker.connect_timeout,
        worker.connection_max_age,
        worker.poll_interval,
    )?;
    Ok(WorkerConfig {
        apps: apps(app)?,
        name: worker.name.clone().map_or_else(
            || format!("{}:{}", host(), std::process::id()),
            |name| sanitize::text(&name, sanitize::MAX_NAME_CHARS),
        ),
        host: host(),
        environment: worker.environment.clone().and_then(Environment::into_name),
        timing,
        retry: RetryPolicy::new(worker.retry_base, worker.retry_cap, worker.give_up_after)?,
        drain_timeout: worker
            .drain_timeout
            .unwrap_or(worker.request_timeout + Duration::from_secs(5)),
        retention: worker.retention,
        proxies: ProxyVariables::from_environment(),
        traces: None,
    })
}

fn apps(args: &AppArgs) -> Result<Vec<AppConfig>, ConfigError> {
    let with_shared = |raw: RawApp| RawApp {
        base_url: raw.base_url.or_else(|| args.base_url.clone()),
        ca_file: raw.ca_file.or_else(|| args.ca_file.clone()),
        rate: raw.rate.or(args.rate),
        max_in_flight: raw.max_in_flight.or(args.max_in_flight),
        ..raw
    };
    let single = RawApp {
        app_id: args.app_id.clone(),
        uid: args.uid.clone(),
        ..RawApp::secrets_from_environment()
    }
    .trimmed();
    let has_single = single != RawApp::default();
    let Some(path) = args.config.as_deref().and_then(secret::given_path) else {
        if !has_single {
            return Err(ConfigError::NoApp);
        }
        let app = RawApp {
            token_headers: args.token_headers.clone(),
            ..single
        };
        return Ok(vec![with_shared(app).check("default")?]);
    };
    if has_single {
        return Err(ConfigError::TwoSources);
    }
    let apps: Vec<_> = config::read_apps(path)?
        .into_iter()
        .map(|(alias, raw)| with_shared(raw).check(&alias))
        .collect::<Result<_, _>>()?;
    if apps.is_empty() {
        return Err(ConfigError::NoApp);
    }
    config::check_distinct(&apps)?;
    Ok(apps)
}

/// How many files a worker may have open at once: each call in flight is a connection, and a file to the system.
pub(super) fn files_needed(config: &WorkerConfig) -> u64 {
    const OTHER_FILES: u64 = 100;
    let connections: usize = config.apps.iter().map(|app| app.max_in_flight).sum();
    OTHER_FILES + connections as u64
}

/// The soft limit of open files is often 1,024.
fn raise_file_limit(config: &WorkerConfig) {
    let needed = files_needed(config);
    match rlimit::increase_nofile_limit(needed) {
        Ok(limit) if limit < needed => tracing::warn!(
            event = "file_limit_capped",
            limit,
            needed,
            "the limit of open files is too low for all calls that may be in flight: raise it, or lower WORKER_MAX_IN_FLIGHT"
        ),
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(event = "file_limit_failed", %error, "the limit of open files can't be raised");
        }
    }
}
