//! The simulated API as a program of its own.

use std::process::ExitCode;

use clap::Parser;
use simulator::cli::{SimulateArgs, run};

#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Cli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().simulate).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
