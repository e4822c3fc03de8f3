//! `worker check`

mod report;

use std::sync::Arc;

use clap::Args;

use super::args::DatabaseArgs;
use super::run::{self, AppArgs, WorkerArgs};
use crate::check::probe::{self, Probe};
use crate::check::{
    Finding, Level, additions, api, collations, database, environment, fleet_connections, objects,
    sequences, servers, settings, vacuum_holders,
};
use crate::config::{AppConfig, WorkerConfig};
use crate::error_text::{database_error_text, error_chain_text};
use crate::message::{InvalidMessage, Message};
use crate::outbox::{Damage, Outbox, RoleKind};
use crate::signaling::{Client, ClientSettings, Credentials};

use super::UsageError;
use report::Report;

/// Check that everything is there that a worker needs, and say what to do where it is not
///
/// Takes the same settings as `worker run`, and looks at them, at the database, its schema and the role's rights, and
/// at the connections to the API. Changes nothing and sends nothing, unless `--probe` asks for it. The exit code is 1
/// if a line says FAIL.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker check
  worker check --probe user-17          also sends a message to this user, with each app's credentials
  worker check --json | jq '.[] | select(.level != \"ok\")'

The message of --probe takes a slot of the app's budget, as any call does. It is no row of the outbox, and
signaling.calls() does not list it. It is not sent while the app is paused.")]
pub(super) struct CheckArgs {
    /// Send a message that says `signaling-worker check` to this user: the API has no other way to try a sign-in
    #[arg(long, value_name = "USER")]
    probe: Option<String>,

    /// Who sends that message [default: the user of a given token, or signaling-worker]
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

/// A worker's connections beside those of the setting: one records, one listens, two are for the ops server. Before
/// that is asked for anything, as many look for a pooler.
const OTHER_CONNECTIONS: u32 = 4;
/// Who sends a probe, where any user may.
const PROBE_SENDER: &str = "signaling-worker";

pub(super) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    if let Some(destination) = &args.probe {
        let sender = args.probe_from.as_deref().unwrap_or(PROBE_SENDER);
        probe::message(sender, destination).map_err(|error| refused_name(&error))?;
    }
    let mut report = Report::new(!args.json);
    let config = match run::config(&args.app, &args.worker) {
        Ok(config) => {
            report.add(settings::settings(&config));
            report.add(environment::setting(config.environment.as_deref()));
            for app in &config.apps {
                for (variable, why) in app.credentials.oddities() {
                    report.add(settings::odd_value(variable, why).of_app(&app.alias));
                }
            }
            files(&config, &mut report);
            Some(config)
        }
        Err(error) => {
            report.add(Finding::fail_as_told("settings", error_chain_text(&error)));
            None
        }
    };
    let outbox = check_database(&args, config.as_ref(), &mut report).await;
    if let Some(config) = config {
        let lease = config.timing.lease;
        let timing = config.timing;
        for app in config.apps {
            let target = Target {
                outbox: outbox.as_ref(),
                lease,
                limit_per_s: app.limit_per_s,
                environment: config.environment.as_deref(),
                probe: message(&args, &app)?,
                alias: app.alias.clone(),
            };
            let client = Client::new(ClientSettings {
                base_urls: app.base_urls,
                ca_file: app.ca_file,
                app_id: app.app_id,
                credentials: app.credentials,
                proxies: config.proxies.clone(),
                connect_timeout: timing.connect_timeout,
                connection_max_age: timing.connection_max_age,
                request_timeout: timing.request_timeout,
                max_idle_connections: 1,
            });
            match client {
                Ok(client) => target.check(&client, &mut report).await,
                Err(error) => {
                    report.add(
                        Finding::fail_as_told("api", error_chain_text(&error))
                            .of_app(&target.alias),
                    );
                }
            }
        }
    }
    if let Some(outbox) = outbox {
        outbox.close().await;
    }
    report.end()
}

fn refused_name(error: &InvalidMessage) -> UsageError {
    UsageError(format!("--probe or --probe-from: {error}"))
}

/// The message that probes an app, if that is asked for.
fn message(args: &CheckArgs, app: &AppConfig) -> anyhow::Result<Option<Message>> {
    let Some(destination) = &args.probe else {
        return Ok(None);
    };
    let sender = match (&args.probe_from, &app.credentials) {
        (Some(sender), _) => sender,
        (None, Credentials::Token { uid, .. }) => uid.as_str(),
        (None, _) => PROBE_SENDER,
    };
    Ok(Some(
        probe::message(sender, destination).map_err(|error| refused_name(&error))?,
    ))
}

fn files(config: &WorkerConfig, report: &mut Report) {
    if let Ok((_, hard_limit)) = rlimit::getrlimit(rlimit::Resource::NOFILE) {
        report.add(settings::files(run::files_needed(config), hard_limit));
    }
}

/// The database and what is in it. Returns it if it can be used at all.
async fn check_database(
    args: &CheckArgs,
    config: Option<&WorkerConfig>,
    report: &mut Report,
) -> Option<Outbox> {
    let outbox = match args.database.connect(1).await {
        Ok(outbox) => outbox,
        Err(error) => {
            report.add(Finding::fail_as_told(
                "database",
                error_chain_text(error.as_ref()),
            ));
            return None;
        }
    };
    if let Err(error) = check_connected_database(args, config, &outbox, report).await {
        report.add(Finding::fail(
            "database",
            format!("the database failed: {}", database_error_text(&error)),
            "look at the server's log, and try again",
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
    let server = outbox.server_diagnostics().await?;
    let distance = outbox.latency().await?;
    report.add(database::server(
        &outbox.address(),
        &server,
        distance,
        pooler,
    ));
    report.add_all(servers::parameters(&outbox.unknown_parameters()));
    report.add_all(servers::hosts(&outbox.survey_hosts().await));
    report.add_all(servers::idle_sessions(&server, pooler));
    if pooler {
        report.add(database::pooler(&outbox.pooler_version().await));
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
                let own = args.worker.database_connections + OTHER_CONNECTIONS;
                let alive = outbox.alive_workers().await?;
                report.add_all(fleet_connections::fleet_connections(&server, own, alive));
            }
        }
    }
    let own = args.worker.database_connections + OTHER_CONNECTIONS;
    report.add(database::connections(&server, own, pooler));
    report.add(database::notifications(&server, pooler));
    report.add(database::autovacuum(&server));
    let open = outbox.old_transactions().await?;
    report.add(database::snapshots(&open));
    report.add_all(vacuum_holders::hidden_sessions(&server, &open));
    let holders = outbox.vacuum_holders().await?;
    report.add(vacuum_holders::vacuum_holders(&holders));
    let mismatches = outbox.collation_mismatches(server.version_num).await?;
    report.add(collations::collations(&mismatches));
    let makes_tokens = config.is_some_and(|config| {
        config
            .apps
            .iter()
            .any(|app| matches!(app.credentials, Credentials::Certificate { .. }))
    });
    report.add(database::clock(distance, makes_tokens));
    Ok(())
}

/// The encoding, the schema and its functions. Returns whether all that a worker needs of the schema is there.
async fn check_schema(outbox: &Outbox, user: &str, report: &mut Report) -> bool {
    let version = match outbox.schema_version().await {
        Ok(version) => version,
        Err(error) => {
            report.add(Finding::fail(
                "schema",
                format!("it can't be looked at: {}", database_error_text(&error)),
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
                format!("they can't be compared: {}", database_error_text(&error)),
                "look at the server's log, and try again",
            ));
            return false;
        }
    };
    report.add_all(objects::objects(damage.as_deref()));
    !damage.iter().flatten().any(Damage::breaks_queries)
}

/// An app whose API is looked at.
struct Target<'a> {
    outbox: Option<&'a Outbox>,
    lease: std::time::Duration,
    limit_per_s: f64,
    environment: Option<&'a str>,
    probe: Option<Message>,
    alias: String,
}

impl Target<'_> {
    async fn check(&self, client: &Arc<Client>, report: &mut Report) {
        let tried = client.try_hosts().await;
        for finding in api::hosts(&tried, self.probe.is_some()) {
            report.add(finding.of_app(&self.alias));
        }
        let Some(message) = &self.probe else {
            return;
        };
        report.add(self.probe(client, message).await.of_app(&self.alias));
    }

    async fn probe(&self, client: &Arc<Client>, message: &Message) -> Finding {
        let Some(outbox) = self.outbox else {
            return Finding::warn(
                "probe",
                "not made: a call needs a slot, and the database can't be used",
                "put the database right first",
            );
        };
        let probe = Probe {
            outbox,
            app: &self.alias,
            limit_per_s: self.limit_per_s,
            environment: self.environment,
            client,
            lease: self.lease,
        };
        match probe.call(message).await {
            Ok(probed) => probe::finding(&probed),
            Err(error) => Finding::fail(
                "probe",
                format!("no slot could be had: {}", database_error_text(&error)),
                "put schema and rights right first",
            ),
        }
    }
}
