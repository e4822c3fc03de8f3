//! `worker dev`: runs a throwaway Postgres, the simulated API and a worker, and removes the server's data at the end.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::process::Command;
use tokio::signal::unix::SignalKind;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::print::print_line;
use crate::cli::signals::Signals;
use crate::config::{RawApp, Timing, WorkerConfig};
use crate::error_text::error_chain_text;
use crate::ops::{OpsArgs, OpsServer};
use crate::outbox::{DEFAULT_MAX_AGE, Outbox};
use crate::retry::RetryPolicy;
use crate::secret::SecretSource;
use crate::telemetry::print_stderr;
use crate::worker::{self, WorkerError};
use simulator::{Behaviour, Credential, FaultRule, Ledger, Simulator, SimulatorConfig};
use testkit::foreground::{self, NOT_STARTED, killed_by};
use testkit::postgres::ThrowawayPostgres;

/// Try the worker, or test an application with it: a throwaway Postgres, the simulated API and a worker, in one process
///
/// Needs the binaries of PostgreSQL on this machine. At its end, the command stops the server and removes its data.
///
/// With a COMMAND, `worker dev` starts these services on free ports, runs the command, and exits with the command's exit
/// code. The command finds the database in `DATABASE_URL` and in `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and
/// `PGDATABASE`, the simulated API in `SIGNALING_API_URL`, and the server's own `psql` in `PATH`. The command also receives
/// SIGINT, SIGTERM, SIGHUP and SIGQUIT. Log lines below the level `warn` are left out, unless --log names another level.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker dev                     run until Ctrl-C; prints how to connect with psql, and where the dashboard is
  worker dev -- npm test         run an application's tests with DATABASE_URL set
  worker dev --fault 500:share=0.1 -- npm test
                                 the same, while one call in ten fails
  worker dev --fault 429:count=20 --fault slow=3s:destination=slow-
                                 the first 20 calls are answered 429; responses for slow-... take three seconds")]
pub(crate) struct DevArgs {
    /// The app's limit of calls a second, which the simulated API enforces
    #[arg(long, value_name = "CALLS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// A fault that the simulated API injects, such as 500:share=0.1 or 429; may be given again. `worker simulate --help`
    /// lists the faults
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<FaultRule>,

    /// A command to run, with the database and the simulated API in its environment
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

const DATABASE: &str = "dev";
const APP_ID: &str = "dev-app";
const API_KEY: &str = "dev";
/// A fault of each run: the first call of each message to a recipient whose name begins with `flaky-` fails.
const FLAKY: &str = "500:destination=flaky-,first_calls=1";
/// Bounds the simulator's memory in a long run. Its totals include older calls.
const KEPT_CALLS: usize = 100_000;

pub(crate) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen([
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
        SignalKind::hangup(),
    ])?;
    let start = async {
        let postgres = ThrowawayPostgres::start().await?;
        let services = Services::start(&postgres, &args).await?;
        anyhow::Ok((postgres, services))
    };
    let (postgres, services) = tokio::select! {
        started = start => started?,
        kind = signals.next() => return Ok(killed_by(kind).into()),
    };
    let code = if args.command.is_empty() {
        wait_for_signal(&postgres, &services, &mut signals).await
    } else {
        run_command(&args.command, &postgres, &services, &mut signals).await
    };
    let summary = services.simulator.ledger().summary();
    if let Some(calls) = summary.apps.get(APP_ID) {
        print_stderr(&format!(
            "worker dev: the API received {} calls, {:.0} a second, at most {} in a sliding second; the limit is {}; it accepted {} messages more than once",
            calls.calls,
            calls.calls_per_s(),
            calls.worst_sliding_second,
            args.rate,
            summary.duplicates
        ));
    }
    let stop = async {
        let (worked, stopped) = (services.stop().await, postgres.stop().await);
        worked.context("the worker failed")?;
        stopped.context("the throwaway Postgres did not stop")
    };
    // The signal handlers stay installed, so without this `select!` a second Ctrl-C would do nothing. After a second signal,
    // the Postgres server ends with this process.
    let stopped = tokio::select! {
        stopped = stop => stopped,
        () = until_interrupted(&mut signals) => Err(anyhow!("a second signal interrupted the shutdown")),
    };
    match stopped {
        // The caller expects the command's exit code.
        Err(error) if !args.command.is_empty() => {
            print_stderr(&format!("worker dev: {}", error_chain_text(error.as_ref())));
            code
        }
        Err(error) => code.and(Err(error)),
        Ok(()) => code,
    }
}

/// Waits for Ctrl-C or SIGTERM. A closing terminal sends SIGHUP beside another signal, which is no request to hurry.
async fn until_interrupted(signals: &mut Signals) {
    let interrupts = [SignalKind::interrupt(), SignalKind::terminate()];
    while !interrupts.contains(&signals.next().await) {}
}

/// Prints the addresses of the services, and waits for a signal.
async fn wait_for_signal(
    postgres: &ThrowawayPostgres,
    services: &Services,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let address = services.ops.address;
    let dashboard = address.map(|address| format!("dashboard   http://{address}\n"));
    print_line(format!(
        "database    psql '{}'\nAPI         {} (simulated; its ledger: /_simulator/)\n{}\n\
         Insert a row into signaling.outbox, and read signaling.delivery. Ctrl-C stops everything.",
        postgres.url(DATABASE),
        services.simulator.base_url(),
        dashboard.unwrap_or_default()
    ))?;
    signals.next().await;
    Ok(ExitCode::SUCCESS)
}

struct Services {
    outbox: Arc<Outbox>,
    simulator: Simulator,
    ops: OpsServer,
    worker: JoinHandle<Result<(), WorkerError>>,
    stopping: CancellationToken,
}

impl Services {
    async fn start(postgres: &ThrowawayPostgres, args: &DevArgs) -> anyhow::Result<Self> {
        let url = SecretSource::value(postgres.create_database(DATABASE).await?);
        let outbox = Arc::new(Outbox::connect(Some(url), 5, DEFAULT_MAX_AGE).await?);
        outbox.migrate(Duration::from_secs(60), |_| ()).await?;
        let simulator = Simulator::start(simulator_config(args)?).await?;
        let stopping = CancellationToken::new();
        let mut ops = OpsServer::default();
        // A command needs no dashboard, and two runs at once would compete for its port.
        if args.command.is_empty() {
            ops = OpsServer::start(&OpsArgs::default(), stopping.clone()).await?;
        }
        ops.state.outbox.set(Arc::clone(&outbox)).ok();
        let worker = tokio::spawn(worker::run(
            worker_config(args, &simulator.base_url())?,
            Arc::clone(&outbox),
            Arc::clone(&ops.state.lanes),
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
        let worked = self.worker.await;
        self.ops.stop().await;
        self.outbox.close().await;
        self.simulator.stop().await;
        Ok(worked??)
    }
}

fn simulator_config(args: &DevArgs) -> anyhow::Result<SimulatorConfig> {
    let mut faults = args.faults.clone();
    faults.push(FLAKY.parse()?);
    let key = Credential::Key {
        api_key: API_KEY.into(),
        api_secret: API_KEY.into(),
    };
    Ok(SimulatorConfig {
        ledger: Arc::new(Ledger::with_kept_calls(KEPT_CALLS)),
        faults,
        behaviour: Behaviour {
            limit: Some(args.rate),
            // About the latency of a nearby data centre.
            latency: Duration::from_millis(20),
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
        timing: Timing {
            request_timeout: second * 15,
            connect_timeout: second * 5,
            connection_max_age: second * 120,
            poll_interval: second,
            lease: None,
        },
        // Short delays, so that a short run has retries.
        retry: RetryPolicy {
            retry_base: second / 4,
            retry_cap: second * 10,
            give_up_after: Duration::from_hours(24),
        },
        // At the end, no reader is left for the outcomes of open calls, so a long drain would only delay the exit.
        drain_timeout: second,
        retention: None,
        traces: None,
    })
}

/// Runs the command until it ends, and returns the exit code for this process.
async fn run_command(
    words: &[OsString],
    postgres: &ThrowawayPostgres,
    services: &Services,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    let (program, arguments) = words.split_first().context("there is no command")?;
    let (database, api) = (postgres.url(DATABASE), services.simulator.base_url());
    print_stderr(&format!(
        "worker dev: database {database}\nworker dev: simulated API {api}, starting `{}`",
        program.to_string_lossy()
    ));
    let mut command = Command::new(program);
    command.args(arguments);
    command.envs(postgres.libpq_variables(DATABASE));
    command.envs([("DATABASE_URL", database), ("SIGNALING_API_URL", api)]);
    // Many packages of PostgreSQL install psql in a directory that is not in PATH. The directory comes last, so that the
    // command finds its other programs where it found them before.
    if let Some(path) = std::env::var_os("PATH") {
        let psql = postgres.program("psql");
        let directories = std::env::split_paths(&path).chain(psql.parent().map(PathBuf::from));
        command.env("PATH", std::env::join_paths(directories)?);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let program = program.to_string_lossy();
            print_stderr(&format!(
                "error: `{program}` can't be started: {error}\n  -> install the program, or write its path; a shell's own syntax needs `sh -c '...'`"
            ));
            return Ok(NOT_STARTED.into());
        }
    };
    let code = foreground::wait(&mut child, async || signals.next().await).await;
    Ok(code.context("the command's end is unknown")?.into())
}
