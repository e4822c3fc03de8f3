//! `worker simulate`: runs the simulated API alone.

use std::env;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::{
    ApiKey, Behaviour, Credentials, FaultRule, GivenToken, Simulator, SimulatorConfig, Summary,
    TlsFiles,
};
use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

/// At the end, a stalled reader of standard output delays the process by no more than this.
const LAST_PRINT_TIMEOUT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  worker simulate
      Listens on 127.0.0.1:8480 and accepts 500 calls in any second for each app ID.
  worker simulate --limit 50 --latency 20ms --jitter 10ms
      A small limit, and responses after 20 to 30 ms.
  worker simulate --fault 500:share=0.01 --fault drop:share=0.001
      One call in a hundred fails. The API accepts one in a thousand and never responds.
  worker simulate --fault 500:destination=flaky-,first_calls=1 --fault slow=3s:destination=slow-
      The first call of each message to flaky-… fails. Responses for slow-… take three seconds.

A fault is FAULT[:KEY=VALUE,…]. A call meets the fault of the first rule that matches.
  FAULT  a status from 200 to 599, slow=DURATION, drop (the API accepts the message and closes the
         connection), drop_before (the API closes the connection without accepting), hang, garbage,
         half_body
  KEY    app, sender, destination (a prefix of the name), share (0 to 1), count (how often),
         first_calls (only the first so many of each message); with a status also retry_after and,
         last of all, body

Credentials come from the environment. Without any, the API accepts every call: AGORA_API_KEY with
AGORA_API_SECRET, AGORA_TOKEN (with AGORA_UID for one user alone), AGORA_APP_CERTIFICATE.";

/// Run the simulated Signaling API
#[derive(Debug, Args)]
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

    /// The most calls of an app ID in any sliding second, or "none"
    #[arg(long, default_value = "500", value_parser = parse_limit, value_name = "CALLS")]
    limit: CallLimit,

    /// The delay of every response
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    latency: Duration,

    /// An additional random delay of at most this duration
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    jitter: Duration,

    /// Receivers whose name begins with this prefix are offline
    #[arg(long, default_value = "offline-", value_name = "PREFIX")]
    offline_prefix: String,

    /// A fault to inject, such as 500:share=0.01; may be given again
    #[arg(long = "fault", value_name = "RULE")]
    faults: Vec<FaultRule>,

    /// The certificate to serve TLS with, as a PEM file
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, as a PEM file
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// The seed of random numbers: with the same seed, the same calls meet the same faults
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    seed: u64,
}

/// An alias, because clap would take a field of type `Option` for an optional argument.
type CallLimit = Option<u32>;

fn parse_limit(text: &str) -> Result<CallLimit, &'static str> {
    match text.parse() {
        _ if text == "none" => Ok(None),
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err("write a number of calls from 1 on, or none for no limit"),
    }
}

/// Serves the simulated API until SIGINT or SIGTERM.
///
/// # Errors
/// If the credentials in the environment are incomplete, or the API can't start.
pub async fn run(args: SimulateArgs) -> anyhow::Result<()> {
    // The handlers exist before the address is printed, so that no signal is missed.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let credentials = credentials(|name| {
        let value = env::var(name).ok()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    })?;
    let accepts = credentials.describe().join(", ");
    let simulator = Simulator::start(config(args, credentials))
        .await
        .context("the simulated API can't start")?;

    let url = simulator.base_url();
    let greeting = format!(
        "simulated API   {url}\ncontrol         {url}/_simulator/\naccepts         {accepts}\n"
    );
    let serving = async {
        print(greeting).await?;
        std::future::pending().await
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        failed = serving => return failed,
    }
    simulator.stop().await;
    let report = report(&simulator.ledger().summary());
    tokio::time::timeout(LAST_PRINT_TIMEOUT, print(report + "\n"))
        .await
        .unwrap_or(Ok(()))
}

/// Prints in a blocking thread, because a stalled reader must not delay calls or signals.
async fn print(text: String) -> anyhow::Result<()> {
    let printed = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    });
    match printed.await? {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("standard output can't be written"),
    }
}

fn config(args: SimulateArgs, credentials: Credentials) -> SimulatorConfig {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let tls = args.tls_cert.zip(args.tls_key);
    SimulatorConfig {
        bind: args.listen,
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        seed: args.seed,
        faults: args.faults,
        behaviour: Behaviour {
            limit: args.limit,
            offline_prefix: Some(args.offline_prefix).filter(|prefix| !prefix.is_empty()),
            latency_ms: millis(args.latency),
            jitter_ms: millis(args.jitter),
            credentials,
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    }
}

/// Reads the accepted credentials from the same variables that the worker authenticates with.
fn credentials(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Credentials> {
    let key = (variable("AGORA_API_KEY"), variable("AGORA_API_SECRET"));
    let basic = match key {
        (Some(api_key), Some(api_secret)) => Some(ApiKey {
            api_key,
            api_secret,
        }),
        (None, None) => None,
        (Some(_), None) => bail!("AGORA_API_KEY is set and AGORA_API_SECRET is not: set both"),
        (None, Some(_)) => bail!("AGORA_API_SECRET is set and AGORA_API_KEY is not: set both"),
    };
    let token = variable("AGORA_TOKEN").map(|token| GivenToken {
        token,
        uid: variable("AGORA_UID"),
    });
    Ok(Credentials {
        basic: basic.into_iter().collect(),
        tokens: token.into_iter().collect(),
        app_certificates: variable("AGORA_APP_CERTIFICATE").into_iter().collect(),
    })
}

fn report(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{} calls, {} messages accepted, {} of them more than once",
        summary.calls, summary.accepted, summary.duplicates
    )];
    if summary.unknown_requests > 0 {
        let requests = summary.unknown_requests;
        lines.push(format!("{requests} requests to no known route"));
    }
    for (app_id, app) in &summary.apps {
        let statuses = app.by_status.iter();
        let mut responses: Vec<_> = statuses
            .map(|(status, count)| format!("{status}: {count}"))
            .collect();
        if app.unanswered > 0 {
            responses.push(format!("no response: {}", app.unanswered));
        }
        lines.push(format!(
            "app {app_id}: {:.1} calls/s, at most {} in a second; {}",
            app.calls_per_s,
            app.worst_sliding_second,
            responses.join(", ")
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::AppSummary;
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parsed(flags: &[&str]) -> Result<SimulatorConfig, String> {
        let words = ["simulate"].iter().chain(flags);
        Command::try_parse_from(words)
            .map(|command| config(command.args, Credentials::default()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_the_configuration() {
        let config = parsed(&[
            "--listen=127.0.0.1:0",
            "--limit=none",
            "--latency=20ms",
            "--offline-prefix=",
            "--fault=500:share=0.01",
            "--fault=drop",
        ])
        .unwrap();
        assert_eq!(config.bind.port(), 0);
        assert_eq!(config.behaviour.limit, None);
        assert_eq!(config.behaviour.latency_ms, 20);
        assert_eq!(config.behaviour.offline_prefix, None);
        assert_eq!(config.faults.len(), 2);
    }

    #[test]
    fn a_wrong_flag_is_refused_with_a_sentence() {
        let error = parsed(&["--limit=0"]).unwrap_err();
        assert!(error.contains("or none for no limit"), "{error}");
        let error = parsed(&["--fault=explode"]).unwrap_err();
        assert!(error.contains("unknown fault `explode`"), "{error}");
        assert!(parsed(&["--tls-cert=only.pem"]).is_err());
    }

    #[test]
    fn half_an_api_key_is_an_error() {
        let key_alone = |name: &str| (name == "AGORA_API_KEY").then(|| "key".to_owned());
        let error = credentials(key_alone).unwrap_err().to_string();
        assert!(error.contains("AGORA_API_SECRET is not"), "{error}");
    }

    #[test]
    fn credentials_come_from_the_environment() {
        let all = |name: &str| Some(name.to_owned());
        let credentials = credentials(all).unwrap();
        assert_eq!(credentials.describe().len(), 3);
        assert_eq!(credentials.tokens[0].uid.as_deref(), Some("AGORA_UID"));
    }

    #[test]
    fn the_report_names_each_app() {
        let app = AppSummary {
            calls: 3,
            unanswered: 1,
            by_status: BTreeMap::from([(200, 2)]),
            worst_sliding_second: 3,
            calls_per_s: 1.25,
            ..AppSummary::default()
        };
        let summary = Summary {
            calls: 3,
            accepted: 2,
            apps: BTreeMap::from([("app".to_owned(), app)]),
            ..Summary::default()
        };
        assert_eq!(
            report(&summary),
            "3 calls, 2 messages accepted, 0 of them more than once\n\
             app app: 1.2 calls/s, at most 3 in a second; 200: 2, no response: 1"
        );
    }
}
