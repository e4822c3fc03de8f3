//! The command line, one file for each command.

mod adopt;
mod args;
mod cancel;
mod check;
mod completions;
#[cfg(feature = "dev")]
mod dev;
mod enqueue;
mod grant;
mod health;
mod limit;
mod man;
mod message;
mod migrate;
mod obstacles;
mod ops;
mod pause;
mod print;
#[cfg(test)]
mod reference;
mod retry;
mod run;
mod screen;
mod signals;
mod status;
mod workers;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::ops::OpsError;
use crate::outbox::ConnectError;
use crate::signaling::InvalidClient;
use crate::telemetry::traces::InvalidTraces;
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
  worker dev --messages 2000     try it with a throwaway Postgres and a simulated API
  worker migrate                 create or update the schema `signaling`
  worker check                   check the settings, the database and the API
  worker run                     deliver, until SIGTERM or SIGINT
  worker status                  show the state of each app
  worker workers                 show the workers that are alive, and those that stepped aside
  worker message 17              show one message, its calls, and what happens next

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Log level: error, warn, info, debug, or a filter like `info,signaling_worker=debug`
    #[arg(
        long = "log",
        env = "WORKER_LOG",
        default_value = "info",
        global = true,
        help_heading = "Logs"
    )]
    log: String,

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
    Status(status::StatusArgs),
    Workers(workers::WorkersArgs),
    Message(message::MessageArgs),
    Health(health::HealthArgs),
    Enqueue(enqueue::EnqueueArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Limit(limit::LimitArgs),
    Retry(retry::RetryArgs),
    Cancel(cancel::CancelArgs),
    Adopt(adopt::AdoptArgs),
    #[cfg(feature = "dev")]
    Simulate(simulator::cli::SimulateArgs),
    #[cfg(feature = "dev")]
    Dev(dev::DevArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs the command of the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let stderr = match telemetry::Stderr::start() {
        Ok(stderr) => stderr,
        Err(error) => {
            writeln!(
                std::io::stderr(),
                "error: no thread can be started: {error}"
            )
            .ok();
            return ExitCode::FAILURE;
        }
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(print::print_clap(&error)),
    };
    if let Err(error) = telemetry::init(&stderr, &cli.log, cli.log_format) {
        telemetry::print_stderr(&format!(
            "error: WORKER_LOG (--log) is not a filter: {error}. Write it like info, or info,signaling_worker=debug"
        ));
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::print_stderr(&format!("error: the runtime can't start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Check(args) => check::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Grant(args) => grant::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Workers(args) => workers::run(args).await,
            Command::Message(args) => message::run(args).await,
            Command::Health(args) => health::run(args).await,
            Command::Enqueue(args) => enqueue::run(args).await,
            Command::Pause(args) => pause::pause(args).await,
            Command::Resume(args) => pause::resume(args).await,
            Command::Limit(args) => limit::run(args).await,
            Command::Retry(args) => retry::run(args).await,
            Command::Cancel(args) => cancel::run(args).await,
            Command::Adopt(args) => adopt::run(args).await,
            #[cfg(feature = "dev")]
            Command::Simulate(args) => simulator::cli::run(args).await,
            #[cfg(feature = "dev")]
            Command::Dev(args) => dev::run(args).await,
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    });
    // A DNS lookup or a read of standard input can't be interrupted, and must not delay the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::print_stderr(&format!(
                "error: {}",
                crate::error_text::error_chain_text(error.as_ref())
            ));
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// A mistake in the command line or the settings, with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<UsageError>()
            || cause.is::<OpsError>()
            || cause.is::<InvalidClient>()
            || cause.is::<InvalidTraces>()
            || matches!(cause.downcast_ref(), Some(ConnectError::Parameter(_)))
    })
}
