//! The simulated API as a program.

use clap::Parser;
use simulator::cli::{SimulateArgs, run};

#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Cli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Cli::parse().simulate).await
}
