//! `worker adopt`

use clap::Args;

use super::args::{DatabaseArgs, parse_environment};
use super::obstacles;
use super::print::{after_steps, messages, report};
use super::usage;
use crate::advice;
use crate::outbox::{MAX_ROWS_PER_CALL, Outbox};

/// Take over the apps of a database that was copied from another environment
///
/// Workers refuse apps of another environment, because the source of the copy also sends the messages that were pending.
/// This command cancels these messages or lets the workers send them, and the workers then serve the apps. The command also
/// ends holds and throttling, which came from calls of the other environment. Pauses and operators' limits stay. The command
/// fails while a worker of the other environment is alive in this database. The same in SQL:
/// select signaling.adopt('default', 'staging', true), repeated until `is_done`.
#[derive(Debug, Args)]
#[command(override_usage = "worker adopt [OPTIONS] <--cancel-pending|--send-pending> [APP]...")]
#[command(after_help = "Examples:
  worker adopt --environment staging --cancel-pending       production was copied to staging
  worker adopt default --environment dr --send-pending      this database replaces the other one")]
pub(super) struct AdoptArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// The apps, as in the column `app` [default: all apps that have a lane]
    #[arg(value_name = "APP")]
    apps: Vec<String>,

    /// The environment of the workers that will serve these apps
    #[arg(long, env = "WORKER_ENVIRONMENT", value_name = "NAME", value_parser = parse_environment)]
    environment: Option<String>,

    /// Cancel the pending messages. For a copy, because the source of the copy sends these messages
    #[arg(long)]
    cancel_pending: bool,

    /// Let the workers send the pending messages. For a database that replaces the other one. Messages that a worker of
    /// the other environment had claimed may arrive twice
    #[arg(long, conflicts_with = "cancel_pending")]
    send_pending: bool,
}

pub(super) async fn run(args: AdoptArgs) -> anyhow::Result<()> {
    if !args.cancel_pending && !args.send_pending {
        return usage(
            "no option says what to do with the pending messages: --cancel-pending cancels them, for a copy whose source sends them; --send-pending lets the workers send them, for a database that replaces the other one",
        );
    }
    let Some(environment) = args.environment.filter(|name| !name.is_empty()) else {
        return usage(
            "no environment is given: set WORKER_ENVIRONMENT or --environment to the name that the workers of this database have",
        );
    };
    let outbox = args.database.connect_migrated().await?;
    let mut apps = args.apps;
    if apps.is_empty() {
        let lanes = outbox.lanes(None).await?.into_iter();
        let with_lane = lanes.filter(|app| app.lane.is_some());
        apps.extend(with_lane.map(|app| app.app));
    }
    if apps.is_empty() {
        report("no app has a lane: there is nothing to adopt\n")?;
    }
    for app in apps {
        let adopted = adopt(&outbox, &app, &environment, args.cancel_pending).await?;
        let obstacles = obstacles::lines(&outbox.lane(&app).await, None);
        // An error at the next app must not hide the report of this one.
        report(format!("{adopted}\n{obstacles}"))?;
    }
    outbox.close().await;
    Ok(())
}

/// Hands an app over. Returns a sentence about the result.
async fn adopt(
    outbox: &Outbox,
    app: &str,
    environment: &str,
    cancels_pending: bool,
) -> anyhow::Result<String> {
    let mut cancelled = 0;
    let adoption = loop {
        let adopted = outbox.adopt(app, environment, cancels_pending, MAX_ROWS_PER_CALL);
        let did = format!("cancelled {} of {app}", messages(cancelled));
        let adoption = after_steps(adopted.await, cancelled, &did)?;
        cancelled += adoption.cancelled;
        if adoption.is_done {
            break adoption;
        }
    };
    if adoption.previous.as_deref() == Some(environment) {
        return Ok(format!(
            "{app} belongs to the environment {environment} already: nothing changed"
        ));
    }
    let was = advice::environment_name(adoption.previous.as_deref());
    let done = if cancels_pending {
        format!("{} cancelled", messages(cancelled))
    } else {
        format!("{} pending, to be sent", messages(adoption.pending))
    };
    Ok(format!(
        "{app} belongs to the environment {environment} now, and belonged to {was} before: {done}"
    ))
}
