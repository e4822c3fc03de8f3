//! The simulated API as a program of its own.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use simulator::cli::{SimulateArgs, run};

#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Cli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

fn main() -> ExitCode {
    let result = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let result = runtime.block_on(run(Cli::parse().simulate));
            // A write that nobody reads would keep it.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}
