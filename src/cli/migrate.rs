//! `worker migrate`

use std::time::Duration;

use clap::Args;

use super::args::{DatabaseArgs, parse_duration};
use super::print::print_line;

/// Create the schema `signaling`, or bring it up to date
///
/// Safe to run at any time, and from several places at once. It keeps its own bookkeeping in the schema, apart from
/// any migrations of the application. A migration makes nobody wait for longer than a second: where somebody holds a
/// lock that it needs, it steps back and tries again. Then it replaces the schema's functions whose text has changed,
/// and gives the roles of each kind what the new version adds.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  DATABASE_URL=postgres://localhost/app worker migrate")]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How long to try where others hold a lock that a migration needs
    #[arg(long, env = "WORKER_LOCK_WAIT", default_value = "1m", value_name = "DURATION", value_parser = parse_duration)]
    lock_wait: Duration,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect(2).await?;
    let mut applied = 0;
    let mut printed = Ok(());
    let migrated = outbox
        .migrate(args.lock_wait, |migration, took| {
            applied += 1;
            let line = print_line(format!(
                "applied {} {} in {} ms",
                migration.version,
                migration.description,
                took.as_millis()
            ));
            if line.is_err() {
                printed = line;
            }
        })
        .await;
    outbox.close().await;
    let functions = migrated?;
    if functions > 0 {
        print_line(format!("installed {functions} functions"))?;
    }
    print_line(if applied == 0 && functions == 0 {
        "the schema signaling was up to date already: nothing changed"
    } else {
        "the schema signaling is up to date"
    })?;
    printed
}
