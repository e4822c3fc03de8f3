//! `worker simulate`: runs the simulated API alone.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Behaviour, FaultRule, Simulator, SimulatorConfig, Summary};

const EXAMPLES: &str = "\
Examples:
  worker simulate
      Listens on 127.0.0.1:8480 and accepts 500 calls in any second for each app ID.
  worker simulate --limit 50 --latency 20ms
      A small limit, and responses after 20 ms.
  worker simulate --fault 500:share=0.01 --fault drop:share=0.001
      One call in a hundred fails. The API accepts one in a thousand and never responds.
  worker simulate --fault 500:destination=flaky-,first_calls=1 --fault slow=3s:destination=slow-
      The first call of each message to flaky-... fails. Responses for slow-... take three seconds.

Recipients whose name begins with offline- are offline.

A fault is FAULT[:KEY=VALUE,...]. A call meets the fault of the first rule that matches.
  FAULT  a status from 200 to 599, slow=DURATION, drop (the API accepts the message and closes the
         connection), drop_before (the API closes the connection without accepting), hang, garbage,
         half_body
  KEY    app, destination (a prefix of the name), share (0 to 1), count (how often), first_calls (only
         the first so many of each message); with a status also, last of all, retry_after or body

The API accepts any credentials.";

/// Run the simulated Signaling API
#[derive(Debug, Parser)]
#[command(after_long_help = EXAMPLES)]
pub struct SimulateArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(
        long,
        env = "SIMULATOR_LISTEN",
        default_value = "127.0.0.1:8480",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,

    /// The most calls of an app ID in any sliding second
    #[arg(long, default_value_t = 500, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// The delay of every response
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    latency: Duration,

    /// A fault to inject, such as 500:share=0.01; may be given again
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<FaultRule>,
}

/// Serves the simulated API until SIGINT or SIGTERM.
///
/// # Errors
/// If the API can't start.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    // The handlers exist before the address is printed, so that no signal is missed.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Each open call is a connection, and the soft limit of open files is often 1,024. Below the hard limit, calls would hang.
    rlimit::increase_nofile_limit(u64::MAX).ok();
    let simulator = Simulator::start(config(args))
        .await
        .context("the simulated API can't start")?;
    let url = simulator.base_url();
    let addresses = format!("simulated API   {url}\ncontrol         {url}/_simulator/\n");
    print(&addresses)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.stop().await;
    print(&report(&simulator.ledger().summary()))
}

/// The API needs no reader of standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("standard output can't be written"),
    }
}

fn config(args: SimulateArgs) -> SimulatorConfig {
    SimulatorConfig {
        bind: args.listen,
        faults: args.faults,
        behaviour: Behaviour {
            limit: Some(args.limit),
            latency: args.latency,
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    }
}

fn report(summary: &Summary) -> String {
    let apps = summary.apps.iter().map(|(app_id, app)| {
        format!(
            "app {app_id}: {:.1} calls/s, at most {} in a second; {} without a response; by status: {:?}\n",
            app.calls_per_s(),
            app.worst_sliding_second,
            app.unanswered,
            app.by_status
        )
    });
    let totals = format!(
        "{} calls, {} messages accepted, {} of them more than once\n",
        summary.calls, summary.accepted, summary.duplicates
    );
    std::iter::once(totals).chain(apps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(flags: &[&str]) -> Result<SimulatorConfig, String> {
        let words = ["simulate"].iter().chain(flags);
        SimulateArgs::try_parse_from(words)
            .map(config)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_the_configuration() {
        let config = parsed(&[
            "--listen=127.0.0.1:0",
            "--limit=7",
            "--latency=20ms",
            "--fault=500:share=0.01",
            "--fault=drop",
        ])
        .unwrap();
        assert_eq!(config.bind.port(), 0);
        assert_eq!(config.behaviour.limit, Some(7));
        assert_eq!(config.behaviour.latency, Duration::from_millis(20));
        assert_eq!(config.faults.len(), 2);
    }

    #[test]
    fn a_wrong_flag_is_refused_with_a_sentence() {
        let error = parsed(&["--limit=0"]).err().unwrap();
        assert!(error.contains("0 is not in 1.."), "{error}");
        let error = parsed(&["--fault=explode"]).err().unwrap();
        assert!(error.contains("unknown fault `explode`"), "{error}");
    }
}
