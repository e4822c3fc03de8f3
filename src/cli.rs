//! The command line, one file for each command.

mod adopt;
mod args;
mod cancel;
mod check;
mod completions;
mod enqueue;
mod grant;
mod health;
mod message;
mod migrate;
mod obstacles;
mod pause;
pub(crate) mod print;
#[cfg(test)]
mod reference;
mod retry;
mod run;
pub(crate) mod signals;
mod status;
mod workers;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use crate::config::UsageError;
use crate::outbox::ConnectError;
use crate::telemetry::{self, LogFormat};

const DEFAULT_LOG: &str = "info";

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
  worker dev                     try it with a throwaway Postgres and a simulated API
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

    /// Log level: error, warn, info, debug, or a filter like `info,signaling_worker=debug`
    #[arg(
        long = "log",
        env = "WORKER_LOG",
        default_value = DEFAULT_LOG,
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
    /// The log level where nobody gives one.
    fn usual_log(&self) -> &'static str {
        match self {
            // The output belongs to the command that `worker dev` runs.
            #[cfg(feature = "dev")]
            Self::Dev(args) if args.has_command() => "warn",
            _ => DEFAULT_LOG,
        }
    }
}

/// Runs the command of the command line, and returns the exit code.
pub fn main() -> ExitCode {
    let stderr = match telemetry::Stderr::start() {
        Ok(stderr) => stderr,
        Err(error) => {
            let line = format!("error: no thread can be started: {error}\n");
            std::io::stderr().write_all(line.as_bytes()).ok();
            return ExitCode::FAILURE;
        }
    };
    let (cli, is_log_given) = match parse() {
        Ok(parsed) => parsed,
        Err(error) if error.use_stderr() => {
            error.print().ok();
            return ExitCode::from(2);
        }
        // Help or the version.
        Err(error) => {
            let printed = print::print(error.render().to_string());
            return exit_code(printed.map(|()| ExitCode::SUCCESS));
        }
    };
    let log = if is_log_given {
        &cli.log
    } else {
        cli.command.usual_log()
    };
    if let Err(error) = telemetry::init(&stderr, log, cli.log_format) {
        return exit_code(Err(UsageError(format!(
            "WORKER_LOG (--log) is not a filter: {error}. Write it like info, or info,signaling_worker=debug"
        ))
        .into()));
    }
    let runtime = match tokio::runtime::Runtime::new().context("the runtime can't start") {
        Ok(runtime) => runtime,
        Err(error) => return exit_code(Err(error)),
    };
    let result = runtime.block_on(run(cli.command));
    // A DNS lookup or a read of standard input can't be interrupted, and must not delay the exit.
    runtime.shutdown_background();
    exit_code(result)
}

/// Reads the command line. Returns also whether the command line or the environment gives a log level.
fn parse() -> Result<(Cli, bool), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let is_log_given = matches.value_source("log") != Some(ValueSource::DefaultValue);
    Ok((Cli::from_arg_matches(&matches)?, is_log_given))
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
        Command::Enqueue(args) => enqueue::run(args).await,
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

/// Prints the error, and returns the exit code.
fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    let text = crate::error_text::error_chain_text(error.as_ref());
    telemetry::print_stderr(&format!("error: {text}"));
    ExitCode::from(if is_usage(&error) { 2 } else { 1 })
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<UsageError>() || matches!(cause.downcast_ref(), Some(ConnectError::Parameter(_)))
    })
}
