//! The command line, one file for each command.

mod adopt;
mod args;
mod cancel;
mod check;
mod completions;
mod grant;
mod health;
mod message;
mod migrate;
mod obstacles;
mod pause;
pub(crate) mod print;
mod retry;
mod run;
pub(crate) mod signals;
mod status;
#[cfg(test)]
mod tests;
mod workers;

use std::ffi::OsStr;
use std::num::NonZero;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use crate::config::UsageError;
use crate::secret;
use crate::telemetry::{self, LogFormat};

/// Delivers messages from a Postgres outbox to the Agora Signaling REST API, inside a call budget that all workers
/// of the fleet share.
#[derive(Debug, Parser)]
#[command(
    name = "worker",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  worker dev                     try the worker with a throwaway Postgres and a simulated API
  worker migrate                 create or update the schema `signaling`
  worker check                   check the settings, the database and the API
  worker run                     deliver, until SIGTERM or SIGINT
  worker status                  show the state of each app
  worker workers                 show the workers that are alive, and those that stepped aside
  worker message 17              show one message, its calls, and what happens next

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. `worker dev -- COMMAND` exits with the code of COMMAND.")]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log level: error, warn, info, debug, or a filter like `info,signaling_worker=debug` [default: info]
    #[arg(long, env = "WORKER_LOG", global = true, help_heading = "Logs")]
    log: Option<String>,

    /// Format of the log
    #[arg(
        long,
        env = "WORKER_LOG_FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Logs"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Migrate(migrate::MigrateArgs),
    Grant(grant::GrantArgs),
    /// Show the state of each app: its lane, workers, rate, pending and finished messages
    #[command(after_help = "Examples:
  worker status
  watch worker status
  worker status --json | jq '.[] | {app, pending, queue_wait_last_hour}'")]
    Status(args::ReadArgs),
    /// Show the workers that are alive, their versions, and the workers that stepped aside
    ///
    /// A worker is alive if it has reported within 30 seconds. A worker that shuts down leaves the list at once. A worker
    /// that died stays in the list for about a day. The same in SQL: select * from signaling.fleet.
    #[command(after_help = "Examples:
  worker workers
  worker workers --json | jq '.[] | select(.is_alive) | {name, version}'")]
    Workers(args::ReadArgs),
    Message(message::MessageArgs),
    Health(health::HealthArgs),
    Pause(pause::PauseArgs),
    /// End the pause of an app, or the wait that the API has asked for
    ///
    /// Also tries messages again that a trigger or a constraint has refused. A hold stays until the API accepts, rejects or
    /// throttles a probe, and the command prints the hold. The same in SQL: select
    /// signaling.resume('default').
    #[command(after_help = "Example:\n  worker resume default")]
    Resume(obstacles::AppTarget),
    Limit(pause::LimitArgs),
    Retry(retry::RetryArgs),
    Cancel(cancel::CancelArgs),
    Adopt(adopt::AdoptArgs),
    #[cfg(feature = "dev")]
    Simulate(simulator::cli::SimulateArgs),
    #[cfg(feature = "dev")]
    Dev(crate::dev::DevArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

impl Command {
    /// The log level without `--log` and `WORKER_LOG`.
    fn usual_log(&self) -> &'static str {
        match self {
            // The output belongs to the command that `worker dev` runs.
            #[cfg(feature = "dev")]
            Self::Dev(args) if !args.command.is_empty() => "warn",
            _ => "info",
        }
    }
}

/// Runs the command of the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let _stderr = telemetry::Stderr::start();
    start().unwrap_or_else(|error| {
        let text = crate::error_text::error_chain_text(error.as_ref());
        telemetry::print_stderr(&format!("error: {text}"));
        let is_usage = error.chain().any(<dyn std::error::Error>::is::<UsageError>);
        ExitCode::from(if is_usage { 2 } else { 1 })
    })
}

/// More threads would send no faster. On a host with many cores, a thread for each would exceed a service's limit of tasks,
/// and the worker would hang at its start.
const MAX_RUNTIME_THREADS: usize = 16;

fn start() -> anyhow::Result<ExitCode> {
    let command = without_empty_variables(Cli::command());
    let matches = command.try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            error.print().ok();
            return Ok(ExitCode::from(2));
        }
        // Help or the version, parsed again with all variables: the help shows a variable that is set but empty, too.
        Err(error) => {
            let error = Cli::try_parse().err().unwrap_or(error);
            print::print(error.render().to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let log = cli.log.as_deref();
    let log = log.unwrap_or_else(|| cli.command.usual_log());
    telemetry::init(log, cli.log_format).map_err(|error| {
        UsageError(format!(
            "WORKER_LOG (--log) is not a filter: {error}. Write it like info, or info,signaling_worker=debug"
        ))
    })?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_RUNTIME_THREADS))
        .enable_all()
        .build()
        .context("the runtime can't start")?;
    let result = runtime.block_on(run(cli.command));
    // A DNS lookup can't be interrupted, and must not delay the exit.
    runtime.shutdown_background();
    result
}

/// An empty variable counts as not set. Compose files and manifests pass variables on that the operator has left out.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            std::env::var_os(name).is_some() && secret::variable(name).is_none()
        })
    };
    let command = command.mut_args(|argument| {
        if argument.get_env().is_some_and(is_empty) {
            argument.env(None::<&str>)
        } else {
            argument
        }
    });
    command.mut_subcommands(without_empty_variables)
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Run(args) => run::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Grant(args) => grant::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Workers(args) => workers::run(args).await,
        Command::Message(args) => message::run(args).await,
        Command::Health(args) => health::run(args).await,
        Command::Pause(args) => pause::pause(args).await,
        Command::Resume(args) => pause::resume(args).await,
        Command::Limit(args) => pause::limit(args).await,
        Command::Retry(args) => retry::run(args).await,
        Command::Cancel(args) => cancel::run(args).await,
        Command::Adopt(args) => adopt::run(args).await,
        #[cfg(feature = "dev")]
        Command::Simulate(args) => simulator::cli::run(args).await,
        #[cfg(feature = "dev")]
        Command::Dev(args) => return crate::dev::run(args).await,
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Fails with exit code 2.
fn usage<T>(mistake: impl Into<String>) -> anyhow::Result<T> {
    Err(UsageError(mistake.into()).into())
}
