//! `worker check`

use std::fmt::Write;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::args::DatabaseArgs;
use super::print::{one_line, print_as};
use super::run::{self, AppArgs, WorkerArgs};
use crate::check::probe::{self, Probe};
use crate::check::{Finding, Level, api, lane, schema, server, vacuum};
use crate::config::{AppConfig, WorkerConfig};
use crate::error_text::{database_error_text, error_chain_text};
use crate::outbox::{Damage, Outbox, RoleKind};
use crate::signaling::{Client, Credentials};

/// Check the settings, the database and the API, and print how to correct each fault
///
/// Takes the settings of `worker run`. Checks these settings, the database, its schema, the role's rights and the
/// connections to the API. Changes nothing and sends nothing without `--probe`. The exit code is 1 if a line says FAIL.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker check
  worker check --probe user-17          also sends a message to this user, with each app's credentials
  worker check --json | jq '.[] | select(.level != \"ok\")'

The message of --probe spends one call of the app's limit. The outbox has no row for it, and signaling.calls() does
not list it. The command does not send it while the app is paused.")]
pub(super) struct CheckArgs {
    /// Send the text `signaling-worker check` to this user, because only a message shows whether the API accepts the
    /// credentials
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    probe: Option<String>,

    /// Print JSON: an array with an object for each finding
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// Connections beside those of `WORKER_DATABASE_CONNECTIONS`: the recorder, the listener, and two of the ops server.
const OTHER_CONNECTIONS: u32 = 4;
/// The API accepts any sender, except with a token of one user.
const PROBE_SENDER: &str = "signaling-worker";

pub(super) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let config = match run::config(&args.app, &args.worker) {
        Ok(config) => {
            findings.extend(check_settings(&config));
            Some(config)
        }
        Err(error) => {
            let advice = "correct the setting that the error names; `worker run --help` lists all";
            findings.push(Finding::fail("settings", error_chain_text(&error), advice));
            None
        }
    };
    let outbox = check_database(&args, config.as_ref(), &mut findings).await;
    if let Some(mut config) = config {
        for app in std::mem::take(&mut config.apps) {
            let alias = app.alias.clone();
            let of_api = check_api(&args, &config, app, outbox.as_ref()).await;
            findings.extend(of_api.into_iter().map(|finding| finding.of_app(&alias)));
        }
    }
    if let Some(outbox) = outbox {
        outbox.close().await;
    }
    let printed = print_as(args.json, &findings, |findings| {
        findings.iter().map(line).collect()
    });
    let failures = findings
        .iter()
        .filter(|finding| is_failure(finding))
        .count();
    anyhow::ensure!(
        failures == 0,
        "{failures} of {} checks failed",
        findings.len()
    );
    printed
}

fn is_failure(finding: &Finding) -> bool {
    finding.level == Level::Fail
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "FAIL",
    };
    let app = finding.app.as_ref().map(|app| format!("{app}: "));
    let mut text = format!(
        "{level:<5} {:<12} {}{}\n",
        finding.subject,
        app.unwrap_or_default(),
        one_line(&finding.found)
    );
    if let Some(advice) = &finding.advice {
        writeln!(text, "{:<18} -> {}", "", one_line(advice)).ok();
    }
    text
}

fn check_settings(config: &WorkerConfig) -> Vec<Finding> {
    let apps: Vec<_> = config
        .apps
        .iter()
        .map(|app| format!("{} ({} calls/s)", app.alias, app.limit_per_s))
        .collect();
    let settings = format!(
        "apps: {}; lease {}, request timeout {}",
        apps.join(", "),
        humantime::format_duration(config.timing.lease()),
        humantime::format_duration(config.timing.request_timeout)
    );
    let mut findings = vec![
        Finding::ok("settings", settings),
        lane::environment(config.environment.as_deref()),
    ];
    for app in &config.apps {
        for variable in app.credentials.check().unwrap_or_default() {
            let advice = "compare the value with the vendor's console: an env file may keep quotation marks in the value, and a copied value may contain invisible characters";
            let found = format!(
                "{variable} has quotation marks around it, white space inside, or characters other than ASCII"
            );
            let odd = Finding::warn("settings", found, advice);
            findings.push(odd.of_app(&app.alias));
        }
    }
    findings
}

/// Returns the database unless a query failed.
async fn check_database(
    args: &CheckArgs,
    config: Option<&WorkerConfig>,
    findings: &mut Vec<Finding>,
) -> Option<Outbox> {
    let outbox = match args.database.connect(1).await {
        Ok(outbox) => outbox,
        Err(error) => {
            let advice = "correct DATABASE_URL, or make the server reachable from this host";
            let found = error_chain_text(error.as_ref());
            findings.push(Finding::fail("database", found, advice));
            return None;
        }
    };
    if let Err(error) = check_connected_database(args, config, &outbox, findings).await {
        let found = format!("a query failed: {}", database_error_text(&error));
        let advice = "look for the cause in the server's log, and check again";
        findings.push(Finding::fail("database", found, advice));
        return None;
    }
    Some(outbox)
}

async fn check_connected_database(
    args: &CheckArgs,
    config: Option<&WorkerConfig>,
    outbox: &Outbox,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx::Error> {
    let pooler = outbox.has_pooler();
    let facts = outbox.server_diagnostics().await?;
    let latency = outbox.latency().await?;
    findings.push(server::server(&outbox.address(), &facts, latency, pooler));
    findings.extend(server::hosts(&outbox.host_states().await));
    findings.push(server::row_security(&facts));
    let mut alive_workers = 0;
    if check_schema(outbox, &facts.user, findings).await? {
        let missing = outbox.missing_privileges(RoleKind::Worker).await?;
        findings.push(schema::rights(&facts.user, &missing));
        if missing.is_empty() {
            alive_workers = outbox.alive_workers().await?;
            findings.push(schema::sequences(&outbox.sequences_behind().await?));
            let refused = outbox.refused_messages().await?;
            findings.push(schema::additions(&outbox.additions().await?, &refused));
            let lanes = outbox.lanes().await?;
            for app in config.iter().flat_map(|config| &config.apps) {
                let environment = config.and_then(|config| config.environment.as_deref());
                let lane = lane::lane(&app.alias, app.limit_per_s, environment, &lanes);
                findings.push(lane);
            }
        }
    }
    if !pooler {
        let own = args.worker.database_connections + OTHER_CONNECTIONS;
        findings.push(server::connections(&facts, own, alive_workers));
    }
    findings.push(server::notifications(&facts, pooler));
    findings.push(vacuum::autovacuum(&facts));
    findings.push(vacuum::snapshots(&outbox.old_transactions().await?));
    findings.push(vacuum::replication(&outbox.vacuum_holders().await?));
    let mismatches = outbox.collation_mismatches(facts.version_num).await?;
    findings.push(schema::collations(&mismatches));
    findings.push(server::clock(latency));
    Ok(())
}

/// Returns false if the schema lacks objects that a worker needs.
async fn check_schema(
    outbox: &Outbox,
    user: &str,
    findings: &mut Vec<Finding>,
) -> Result<bool, sqlx::Error> {
    let version = schema::version(outbox.check_schema().await, user);
    let is_usable = !is_failure(&version);
    findings.push(version);
    if !is_usable {
        return Ok(false);
    }
    let damage = outbox.schema_damage().await?;
    findings.extend(schema::objects(damage.as_deref()));
    Ok(!damage.iter().flatten().any(Damage::breaks_queries))
}

/// Connects to the hosts of the app's API, and sends the probe if the operator asks for one.
async fn check_api(
    args: &CheckArgs,
    config: &WorkerConfig,
    app: AppConfig,
    outbox: Option<&Outbox>,
) -> Vec<Finding> {
    let sender = match &app.credentials {
        Credentials::Token { uid, .. } => uid,
        Credentials::Basic { .. } | Credentials::Certificate { .. } => PROBE_SENDER,
    };
    let message = args.probe.as_deref();
    let message = message.map(|destination| probe::message(sender, destination));
    let (alias, limit_per_s) = (app.alias.clone(), app.limit_per_s);
    let client = match Client::new(app, config.timing, &config.proxies) {
        Ok(client) => client,
        Err(error) => {
            let advice = "correct the setting that the error names";
            return vec![Finding::fail("api", error_chain_text(&error), advice)];
        }
    };
    let mut findings = api::hosts(&client).await;
    let Some(message) = message else {
        return findings;
    };
    let Some(outbox) = outbox else {
        findings.push(Finding::warn(
            "probe",
            "not made: a call needs a slot of the database",
            "correct the database first",
        ));
        return findings;
    };
    let probe = Probe {
        outbox,
        app: &alias,
        limit_per_s,
        environment: config.environment.as_deref(),
        client: &client,
        lease: config.timing.lease(),
    };
    findings.push(probe.send(&message).await.unwrap_or_else(|error| {
        Finding::fail(
            "probe",
            format!("no slot reserved: {}", database_error_text(&error)),
            "correct the schema and the rights first",
        )
    }));
    findings
}
