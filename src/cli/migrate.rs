//! `worker migrate`

use std::fmt::Write;
use std::time::Duration;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::report;
use crate::outbox::{DEFAULT_MAX_AGE, Migrated, list_names};
use crate::time_text::parse_duration;

/// Create or update the schema `signaling`
///
/// The command is safe at any time, and on several hosts at once. It records its migrations in the schema, apart from the
/// application's migrations. A migration that waits for a lock gives up after half a second and tries again, so that other
/// sessions wait for about a second at most. The command then creates or replaces functions, views and triggers that are
/// missing or different, and grants the privileges that the new version adds. It does not create missing tables, columns,
/// constraints or indexes again: the exit code is 1, and `worker check` prints the statements.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  DATABASE_URL=postgres://localhost/app worker migrate")]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How long to try while other sessions hold a lock that a migration needs
    #[arg(long, env = "WORKER_LOCK_WAIT", default_value = "1m", value_name = "DURATION", value_parser = parse_duration)]
    lock_wait: Duration,
}

pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let outbox = args.database.connect(2, DEFAULT_MAX_AGE).await?;
    let mut is_changed = false;
    let mut printed = Ok(());
    let migrated = outbox.migrate(args.lock_wait, |line| {
        is_changed = true;
        // A failed report does not stop the migrations.
        if let Err(error) = report(line) {
            printed = Err(error);
        }
    });
    let migrated = migrated.await;
    outbox.close().await;
    let Migrated {
        installed,
        remaining,
    } = migrated?;
    let mut text = String::new();
    if installed > 0 {
        writeln!(text, "installed {installed} objects").ok();
    }
    text += if !remaining.is_empty() {
        "`worker check` shows objects that differ from this version\n"
    } else if installed > 0 || is_changed {
        "the schema signaling is up to date\n"
    } else {
        "the schema signaling was up to date already: nothing changed\n"
    };
    let reported = printed.and_then(|()| report(text));
    // The operator must learn of a damaged schema also where the report could not be written.
    let missing: Vec<_> = remaining
        .iter()
        .filter(|damage| damage.found.is_none())
        .collect();
    anyhow::ensure!(
        missing.is_empty(),
        "the schema signaling lacks {}, which this command does not create again: run the statements that `worker check` prints",
        list_names(missing)
    );
    reported
}
