//! `worker dev`

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::signals::signals;
use crate::dev::{self, Dev};

/// See it work: a throwaway Postgres, the simulated API and a worker, in one process
///
/// Needs the binaries of PostgreSQL on this machine. At its end, the command stops the server and removes its data.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker dev                     run until Ctrl-C; prints how to connect with psql, and where the dashboard is
  worker dev --messages 2000     send sample messages and print a summary; the exit code is 0 if every message
                                 ended as expected")]
pub(super) struct DevArgs {
    /// Insert this number of sample messages, and end when all are final
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: Option<u32>,

    /// The app's limit of calls a second, which the simulated API enforces
    #[arg(long, value_name = "CALLS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

pub(super) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let dev = Dev {
        messages: args.messages.map(|count| count as usize),
        limit_per_s: args.rate,
    };
    let ended_at_once = signals(shutdown.clone())?;
    tokio::select! {
        biased;
        () = ended_at_once => anyhow::bail!("ended at once by a second signal"),
        result = dev::run(dev, shutdown) => result,
    }
}
