//! `worker run`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::args::{DatabaseArgs, host, parse_environment};
use super::signals::signals;
use crate::config::{self, RawApp, Timing, WorkerConfig};
use crate::error_text::error_chain_text;
use crate::ops::{OpsArgs, OpsServer};
use crate::outbox::{Outbox, SchemaError, Unreachable, is_outage};
use crate::retry::RetryPolicy;
use crate::sanitize;
use crate::secret;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::traces::Traces;
use crate::time_text::{parse_duration, parse_retention};
use crate::worker;

/// Send messages until SIGTERM or SIGINT
///
/// Any number of workers may run, on any number of hosts. Together they keep each app below its limit. At the first signal
/// the worker claims nothing more, releases unsent messages, finishes and records calls in flight, and exits with 0, or
/// with 1 if outcomes are still unsaved at the drain timeout. A second signal ends the worker at once. SIGQUIT counts like
/// SIGTERM and SIGINT. SIGHUP and SIGALRM also shut the worker down, but never at once. The worker ignores SIGUSR1 and
/// SIGUSR2. It reads changed files of secrets without a signal.
#[derive(Debug, Args)]
#[command(
    after_help = "Secrets have no flags, because a list of processes shows flags. Set one of these variables:
  AGORA_API_KEY and AGORA_API_SECRET     basic authentication, any sender
  AGORA_TOKEN and AGORA_UID              a token from your server, for one sender
  AGORA_APP_CERTIFICATE                  the worker makes a token for each sender
With the suffix _FILE, a variable names a file with the secret. The worker reads the file again when it changes.

The worker sends traces by OTLP (http/protobuf) to OTEL_EXPORTER_OTLP_ENDPOINT, like http://localhost:4318. Without this
variable, it makes no traces. For the other standard variables, like OTEL_SERVICE_NAME, see docs/monitoring.md.

Examples:
  DATABASE_URL=postgres://localhost/app AGORA_APP_ID=... AGORA_API_KEY=... AGORA_API_SECRET_FILE=/run/secrets/agora worker run
  worker run --config apps.toml --max-in-flight 200

A file of apps has a table for each app, with the name in the column `app` of its rows:
  [apps.default]
  app_id = \"...\"
  api_key = \"...\"
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

/// Settings of the only app, or defaults for the apps of the file.
#[derive(Debug, Args)]
#[command(next_help_heading = "App")]
pub(super) struct AppArgs {
    /// A TOML file with several apps, instead of the one app of the variables
    #[arg(long, env = "WORKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    app: RawApp,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Worker")]
pub(super) struct WorkerArgs {
    #[command(flatten)]
    timing: Timing,

    #[command(flatten)]
    retry: RetryPolicy,

    /// How long a shutdown waits for calls in flight [default: the request timeout plus 5s]
    #[arg(long, env = "WORKER_DRAIN_TIMEOUT", value_parser = parse_duration)]
    drain_timeout: Option<Duration>,

    /// Delete finished messages and their attempts at this age, like `12h` or `30d`, at least `1m` [default: keep them]
    #[arg(long, env = "WORKER_RETENTION", value_name = "DURATION", value_parser = parse_retention)]
    retention: Option<Duration>,

    /// Most connections to the database, beside one for the recorder, one for wakeups and two for monitoring
    #[arg(long, env = "WORKER_DATABASE_CONNECTIONS", default_value_t = 5, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) database_connections: u32,

    /// Longest time for which the worker keeps a connection to the database. The worker replaces some connections up to a
    /// fifth earlier
    #[arg(long, env = "WORKER_DATABASE_CONNECTION_AGE", default_value = "30m", value_name = "DURATION",
          value_parser = parse_duration)]
    database_connection_age: Duration,

    /// The worker's name in `claimed_by` [default: host name and process ID]
    #[arg(long, env = "WORKER_NAME")]
    name: Option<String>,

    /// A name for this environment, like `production`. Workers of another environment refuse the messages of a copied
    /// database until `worker adopt` [default: none]
    #[arg(long, env = "WORKER_ENVIRONMENT", value_name = "NAME", value_parser = parse_environment)]
    environment: Option<String>,
}

/// Longest time for the last traces and the close of connections, after the drain. The last stats and log lines take up to a
/// second each. The supervisor's kill timeout must cover this sum.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);
const DATABASE_RETRY: Duration = Duration::from_secs(1);

pub(super) async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut config = config(&args.app, &args.worker)?;
    let traces = Traces::from_environment(&config.name)?;
    config.traces.clone_from(&traces);
    raise_file_limit(&config);
    let shutdown = CancellationToken::new();
    // Before the connection to the database, so that the server shows why the worker waits.
    let ops = OpsServer::start(&args.ops, shutdown.clone()).await?;
    let work = async {
        let opening = open(&args, &ops.state.waiting_for);
        let Some(outbox) = shutdown.run_until_cancelled(opening).await else {
            return Ok(());
        };
        let outbox = Arc::new(outbox?);
        ops.state.outbox.set(Arc::clone(&outbox)).ok();
        let worked = Box::pin(worker::run(
            config,
            Arc::clone(&outbox),
            Arc::clone(&ops.state.lanes),
            shutdown.clone(),
        ))
        .await;
        let flush = async {
            if let Some(traces) = traces {
                traces.shutdown().await;
            }
        };
        let disconnect = async {
            ops.stop().await;
            outbox.close().await;
        };
        let close = async { tokio::join!(flush, disconnect) };
        tokio::time::timeout(CLOSE_TIMEOUT, close).await.ok();
        Ok(worked?)
    };
    tokio::select! {
        biased;
        () = signals(shutdown.clone())? => anyhow::bail!("ended at once by a second signal: when their leases end, messages in flight are due again, and at-most-once messages end as unknown"),
        result = work => result,
    }
}

/// Waits while the database is unavailable or has no free connection, as a running worker does. Otherwise a worker that
/// restarts during an outage would exit.
async fn open(args: &RunArgs, waiting_for: &Mutex<Option<String>>) -> anyhow::Result<Outbox> {
    let try_open = async || -> anyhow::Result<Outbox> {
        let (count, max_age) = (
            args.worker.database_connections,
            args.worker.database_connection_age,
        );
        let outbox = args.database.connect(count, max_age).await?;
        outbox.check_objects().await?;
        Ok(outbox)
    };
    let failures = FailureLog::default();
    loop {
        match try_open().await {
            Err(error) if is_temporary(&error) => {
                *waiting_for.lock() = Some(error_chain_text(error.as_ref()));
                if failures.failed() {
                    tracing::warn!(
                        event = "startup_delayed",
                        "{error:#}: the worker tries again every second"
                    );
                }
                tokio::time::sleep(DATABASE_RETRY).await;
            }
            opened => return opened,
        }
    }
}

fn is_temporary(error: &anyhow::Error) -> bool {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(Unreachable { source, .. }), _) | (_, Some(SchemaError::Database(source))) => {
            is_outage(source)
        }
        _ => false,
    }
}

pub(super) fn config(app: &AppArgs, worker: &WorkerArgs) -> anyhow::Result<WorkerConfig> {
    let timing = worker.timing;
    timing.check()?;
    worker.retry.check()?;
    Ok(WorkerConfig {
        apps: config::apps(
            app.app.clone().with_secrets(),
            app.config.as_deref().and_then(secret::given_path),
        )?,
        name: worker.name.clone().map_or_else(
            || format!("{}:{}", host(), std::process::id()),
            |name| sanitize::text(&name, sanitize::MAX_NAME_CHARS),
        ),
        host: host(),
        environment: worker.environment.clone().filter(|name| !name.is_empty()),
        timing,
        retry: worker.retry,
        drain_timeout: worker
            .drain_timeout
            .unwrap_or(timing.request_timeout + Duration::from_secs(5)),
        retention: worker.retention,
        traces: None,
    })
}

/// Each call in flight is a connection, which is an open file. The soft limit of open files is often 1,024.
fn raise_file_limit(config: &WorkerConfig) {
    const OTHER_FILES: u64 = 100;
    let connections: usize = config.apps.iter().map(|app| app.max_in_flight).sum();
    let needed = OTHER_FILES + connections as u64;
    let limit = match rlimit::increase_nofile_limit(needed) {
        Ok(limit) if limit >= needed => return,
        Ok(limit) => limit.to_string(),
        Err(error) => format!("unknown: {error}"),
    };
    tracing::warn!(
        event = "file_limit_capped",
        limit,
        needed,
        "the limit of open files is too low for all calls in flight: raise the limit, or lower WORKER_MAX_IN_FLIGHT"
    );
}
