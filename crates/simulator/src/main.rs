//! The simulated API as a program.

use clap::Parser;
use simulator::cli::{SimulateArgs, run};

#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Cli {
    #[command(flatten)]
    simulate: SimulateArgs,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(run(Cli::parse().simulate));
    // A write to a full pipe would block an ordinary shutdown.
    runtime.shutdown_background();
    result
}
