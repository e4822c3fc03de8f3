//! `worker check`

mod report;

use clap::Args;

use super::UsageError;
use super::args::DatabaseArgs;
use super::run::{self, AppArgs, WorkerArgs};
use crate::check::probe::{self, Probe};
use crate::check::{
    Finding, Level, additions, api, database, environment, fleet_connections, objects, sequences,
    servers, settings, vacuum_holders,
};
use crate::config::{AppConfig, WorkerConfig};
use crate::error_text::{database_error_text, error_chain_text};
use crate::message::Message;
use crate::outbox::{Damage, Outbox, RoleKind};
use crate::signaling::{Client, Credentials};

use report::Report;

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
    #[arg(long, value_name = "USER")]
    probe: Option<String>,

    /// The sender of that message [default: the user of `AGORA_TOKEN`, or signaling-worker]
    #[arg(long, value_name = "USER", requires = "probe")]
    probe_from: Option<String>,

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
    // A refused name is wrong usage, also if the settings or the database have other faults.
    args.probe_message(PROBE_SENDER)?;
    let mut report = Report::new(!args.json);
    let config = match run::config(&args.app, &args.worker) {
        Ok(config) => {
            check_settings(&config, &mut report);
            Some(config)
        }
        Err(error) => {
            let found = error_chain_text(&error);
            report.add(Finding::fail_without_advice("settings", found));
            None
        }
    };
    let outbox = check_database(&args, config.as_ref(), &mut report).await;
    if let Some(mut config) = config {
        for app in std::mem::take(&mut config.apps) {
            check_api(&args, &config, app, outbox.as_ref(), &mut report).await?;
        }
    }
    if let Some(outbox) = outbox {
        outbox.close().await;
    }
    report.end()
}

impl CheckArgs {
    /// None if the operator does not ask for a probe.
    fn probe_message(&self, default_sender: &str) -> Result<Option<Message>, UsageError> {
        let sender = self.probe_from.as_deref().unwrap_or(default_sender);
        self.probe
            .as_deref()
            .map(|destination| probe::message(sender, destination))
            .transpose()
            .map_err(|error| UsageError(format!("--probe or --probe-from: {error}")))
    }
}

fn check_settings(config: &WorkerConfig, report: &mut Report) {
    report.add(settings::settings(config));
    report.add(environment::setting(config.environment.as_deref()));
    for app in &config.apps {
        for variable in app.credentials.check().unwrap_or_default() {
            report.add(settings::odd_value(variable).of_app(&app.alias));
        }
    }
    if let Ok((_, hard_limit)) = rlimit::getrlimit(rlimit::Resource::NOFILE) {
        report.add(settings::files(run::files_needed(config), hard_limit));
    }
}

/// Returns the database unless a query failed.
async fn check_database(
    args: &CheckArgs,
    config: Option<&WorkerConfig>,
    report: &mut Report,
) -> Option<Outbox> {
    let outbox = match args.database.connect(1).await {
        Ok(outbox) => outbox,
        Err(error) => {
            let found = error_chain_text(error.as_ref());
            report.add(Finding::fail_without_advice("database", found));
            return None;
        }
    };
    if let Err(error) = check_connected_database(args, config, &outbox, report).await {
        report.add(Finding::fail(
            "database",
            format!("a query failed: {}", database_error_text(&error)),
            "look for the cause in the server's log, and check again",
        ));
        return None;
    }
    Some(outbox)
}

async fn check_connected_database(
    args: &CheckArgs,
    config: Option<&WorkerConfig>,
    outbox: &Outbox,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let pooler = outbox.has_pooler();
    let own_connections = args.worker.database_connections + OTHER_CONNECTIONS;
    let server = outbox.server_diagnostics().await?;
    let distance = outbox.latency().await?;
    report.add(database::server(
        &outbox.address(),
        &server,
        distance,
        pooler,
    ));
    report.add_all(servers::hosts(&outbox.survey_hosts().await));
    report.add_all(servers::idle_sessions(&server, pooler));
    if pooler {
        report.add(database::pooler());
    }
    let has_schema = check_schema(outbox, &server.user, report).await;
    report.add_all(database::isolation(&server));
    report.add(database::row_security(&server));
    if has_schema {
        let missing = outbox.missing_privileges(RoleKind::Worker).await?;
        report.add(database::rights(&server.user, &missing));
        let missing_of_operator = outbox.missing_privileges(RoleKind::Operator).await?;
        report.add(database::operator(&server.user, &missing_of_operator));
        if missing.is_empty()
            && let Some(config) = config
        {
            let lanes = outbox.lanes().await?;
            for app in &config.apps {
                let environment = config.environment.as_deref();
                report.add(
                    environment::lane(&app.alias, environment, &lanes)
                        .unwrap_or_else(|| database::lane(&app.alias, app.limit_per_s, &lanes)),
                );
            }
        }
        if missing.is_empty() {
            report.add(sequences::sequences(&outbox.sequences_behind().await?));
            let refused = outbox.refused_messages().await?;
            report.add(additions::additions(&outbox.additions().await?, &refused));
            if !pooler {
                let alive = outbox.alive_workers().await?;
                report.add_all(fleet_connections::fleet_connections(
                    &server,
                    own_connections,
                    alive,
                ));
            }
        }
    }
    report.add(database::connections(&server, own_connections, pooler));
    report.add(database::notifications(&server, pooler));
    report.add(database::autovacuum(&server));
    let open = outbox.old_transactions().await?;
    report.add(database::snapshots(&open));
    report.add_all(vacuum_holders::hidden_sessions(&server, &open));
    let holders = outbox.vacuum_holders().await?;
    report.add(vacuum_holders::vacuum_holders(&holders));
    let makes_tokens = config.is_some_and(|config| {
        config
            .apps
            .iter()
            .any(|app| matches!(app.credentials, Credentials::Certificate { .. }))
    });
    report.add(database::clock(distance, makes_tokens));
    Ok(())
}

/// Returns false if the schema lacks objects that a worker needs.
async fn check_schema(outbox: &Outbox, user: &str, report: &mut Report) -> bool {
    let version = match outbox.schema_version().await {
        Ok(version) => version,
        Err(error) => {
            report.add(Finding::fail(
                "schema",
                format!("the role can't read it: {}", database_error_text(&error)),
                format!("as the schema's owner, run `worker grant worker {user}`"),
            ));
            return false;
        }
    };
    report.add(database::encoding(&version));
    let schema = database::schema(&version);
    let functions = database::functions(&version);
    let fails = |finding: &Finding| finding.level == Level::Fail;
    let is_migrated = !fails(&schema) && !functions.as_ref().is_some_and(fails);
    report.add(schema);
    report.add_all(functions);
    if !is_migrated {
        return false;
    }
    let damage = match outbox.schema_damage().await {
        Ok(damage) => damage,
        Err(error) => {
            report.add(Finding::fail(
                objects::SUBJECT,
                format!("the comparison failed: {}", database_error_text(&error)),
                "look for the cause in the server's log, and check again",
            ));
            return false;
        }
    };
    report.add_all(objects::objects(damage.as_deref()));
    !damage.iter().flatten().any(Damage::breaks_queries)
}

/// Connects to the hosts of the app's API, and sends the probe if the operator asks for one.
async fn check_api(
    args: &CheckArgs,
    config: &WorkerConfig,
    app: AppConfig,
    outbox: Option<&Outbox>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sender = match &app.credentials {
        Credentials::Token { uid, .. } => uid.as_str(),
        Credentials::Basic { .. } | Credentials::Certificate { .. } => PROBE_SENDER,
    };
    let message = args.probe_message(sender)?;
    let (alias, limit_per_s) = (app.alias.clone(), app.limit_per_s);
    let client = match Client::new(app, config.timing, &config.proxies) {
        Ok(client) => client,
        Err(error) => {
            let finding = Finding::fail_without_advice("api", error_chain_text(&error));
            report.add(finding.of_app(&alias));
            return Ok(());
        }
    };
    let tried = client.try_hosts().await;
    for finding in api::hosts(&tried, message.is_some()) {
        report.add(finding.of_app(&alias));
    }
    let Some(message) = message else {
        return Ok(());
    };
    let finding = if let Some(outbox) = outbox {
        let probe = Probe {
            outbox,
            app: &alias,
            limit_per_s,
            environment: config.environment.as_deref(),
            client: &client,
            lease: config.timing.lease,
        };
        match probe.call(&message).await {
            Ok(probed) => probe::finding(&probed),
            Err(error) => Finding::fail(
                "probe",
                format!("no slot reserved: {}", database_error_text(&error)),
                "correct the schema and the rights first",
            ),
        }
    } else {
        Finding::warn(
            "probe",
            "not made: a call needs a slot of the database",
            "correct the database first",
        )
    };
    report.add(finding.of_app(&alias));
    Ok(())
}
