//! `worker check`

use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::{one_line, print_as};
use super::run::{self, AppArgs, WorkerArgs};
use crate::check::{Finding, Level, api, lane, problems, schema, server};
use crate::config::WorkerConfig;
use crate::error_text::error_chain_text;
use crate::outbox::{
    DATABASE_COLLATION, DEFAULT_MAX_AGE, Damage, Outbox, SCHEMA_CHECKS, SERVER_CHECKS,
    VERSION_WITH_DATABASE_COLLATIONS,
};
use crate::signaling::Client;

/// Check the settings, the database and the API, and print how to correct each problem
///
/// Takes the settings of `worker run`. Checks these settings, the database, its schema, the role's privileges and the
/// connections to the API. Changes nothing and sends nothing. The exit code is 1 if a line says FAIL.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker check
  worker check --json | jq '.[] | select(.level != \"ok\")'

The command does not test the credentials, because the API has no call without an effect. To test them, run
`worker run` and insert one message.")]
pub(super) struct CheckArgs {
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

/// Connections beside those of `WORKER_DATABASE_CONNECTIONS`: the recorder, the listener, and two for stats,
/// reports and the ops server.
const OTHER_CONNECTIONS: u32 = 4;

pub(super) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let config = run::config(&args.app, &args.worker);
    match &config {
        Ok(config) => findings.extend(check_settings(config)),
        Err(error) => {
            let advice = "correct the setting that the error names; `worker run --help` lists all";
            let found = error_chain_text(error.as_ref());
            findings.push(Finding::fail("settings", found, advice));
        }
    }
    let config = config.ok();
    if let Err(error) = check_database(&args, config.as_ref(), &mut findings).await {
        let advice = "correct DATABASE_URL, or make the server reachable from this host. If a query failed, the server's log may have the cause";
        let found = error_chain_text(error.as_ref());
        findings.push(Finding::fail("database", found, advice));
    }
    if let Some(config) = config {
        findings.extend(check_api(config).await);
    }
    let printed = print_as(args.json, &findings, |findings| {
        findings.iter().map(line).collect()
    });
    let is_failure = |finding: &&Finding| finding.level == Level::Fail;
    let failures = findings.iter().filter(is_failure).count();
    anyhow::ensure!(
        failures == 0,
        "{failures} of {} checks failed",
        findings.len()
    );
    printed
}

fn line(finding: &Finding) -> String {
    let level: &str = finding.level.into();
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
    vec![
        Finding::ok("settings", settings),
        lane::environment(config.environment.as_deref()),
    ]
}

async fn check_database(
    args: &CheckArgs,
    config: Option<&WorkerConfig>,
    findings: &mut Vec<Finding>,
) -> anyhow::Result<()> {
    let outbox = args.database.connect(1, DEFAULT_MAX_AGE).await?;
    let pooler = outbox.has_pooler();
    let facts = outbox.server_diagnostics().await?;
    let latency = outbox.latency().await?;
    let servers = outbox.servers();
    findings.push(server::server(&servers.address(), &facts, latency, pooler));
    findings.extend(server::hosts(&servers.host_states().await));
    for check in &SERVER_CHECKS {
        findings.push(problems(check, &outbox.problems(check).await?));
    }
    if facts.version_num >= VERSION_WITH_DATABASE_COLLATIONS {
        let check = &DATABASE_COLLATION;
        findings.push(problems(check, &outbox.problems(check).await?));
    }
    if check_schema(&outbox, &facts.user, findings).await? {
        for check in &SCHEMA_CHECKS {
            findings.push(problems(check, &outbox.problems(check).await?));
        }
        if !pooler {
            let own = i64::from(args.worker.database_connections + OTHER_CONNECTIONS);
            let limit = outbox.connection_limit(own).await?;
            findings.push(server::connections(&limit, own));
        }
        let lanes = outbox.lanes(None).await?;
        if let Some(config) = config {
            let environment = config.environment.as_deref();
            for app in &config.apps {
                let lane = lane::lane(&app.alias, app.limit_per_s, environment, &lanes);
                findings.push(lane);
            }
        }
    }
    findings.push(server::notifications(&facts, pooler));
    findings.push(server::clock(latency));
    outbox.close().await;
    Ok(())
}

/// Returns false if the schema is unusable, or the role lacks privileges of a worker.
async fn check_schema(
    outbox: &Outbox,
    user: &str,
    findings: &mut Vec<Finding>,
) -> Result<bool, sqlx::Error> {
    let version = schema::version(outbox.check_schema().await, user);
    let level = version.level;
    findings.push(version);
    if level == Level::Fail {
        return Ok(false);
    }
    let damage = outbox.schema_damage().await?;
    findings.extend(schema::objects(damage.as_deref()));
    if damage.iter().flatten().any(Damage::breaks_queries) {
        return Ok(false);
    }
    let missing = outbox.missing_privileges().await?;
    findings.push(schema::privileges(user, &missing));
    Ok(missing.is_empty())
}

async fn check_api(config: WorkerConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    for app in config.apps {
        let alias = app.alias.clone();
        let of_api = match Client::new(app, config.timing) {
            Ok(client) => api::hosts(&client).await,
            Err(error) => {
                let advice = "correct the setting that the error names";
                vec![Finding::fail("api", error_chain_text(&error), advice)]
            }
        };
        findings.extend(of_api.into_iter().map(|finding| finding.of_app(&alias)));
    }
    findings
}
