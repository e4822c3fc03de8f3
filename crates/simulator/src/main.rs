//! The simulated API as a program.

use clap::Parser as _;
use simulator::cli::{SimulateArgs, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(SimulateArgs::parse()).await
}
