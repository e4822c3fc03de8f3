//! `worker grant`

use std::fmt::Write;

use clap::Args;

use super::args::DatabaseArgs;
use super::print::{print, report};
use crate::outbox::RoleKind;

/// Grant a role the privileges of a producer, a worker, an operator or a reader
///
/// producer: inserts, reads and cancels messages.
///
/// worker: runs `worker run`, and the commands check, status, workers and message. Calls functions, and writes no table
/// directly.
///
/// operator: pauses, resumes, limits, retries, cancels and adopts, and has the privileges of a reader. The buttons of the
/// dashboard need a worker's role with these privileges.
///
/// reader: reads the state of messages and apps, without payloads: `signaling.delivery_status`, `signaling.fleet`, and the
/// commands status, workers and message.
///
/// Run this command as the schema's owner, the role that ran `worker migrate`. Later migrations grant the role the privileges
/// that a new version adds. This command revokes nothing. A role can have several kinds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker grant producer shop
  worker grant worker signaling_worker
  worker grant operator ops
  worker grant reader grafana --print | psql     print the SQL; needs no database

To revoke all privileges of a role in the schema first:
  revoke all on all tables in schema signaling from shop;
  revoke all on all functions in schema signaling from shop;")]
pub(super) struct GrantArgs {
    /// The purpose of the role
    #[arg(value_name = "KIND")]
    kind: RoleKind,

    /// The name of the role, without SQL quotes
    #[arg(value_parser = parse_role)]
    role: String,

    /// Print the SQL, and change nothing
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

fn parse_role(name: &str) -> Result<String, &'static str> {
    // Postgres would cut a longer name to that of another role.
    if !(1..=63).contains(&name.len()) {
        return Err("a role's name has 1 to 63 bytes");
    }
    // Postgres takes `public` for every role, even in quotes.
    if ["public", "none"].contains(&name) {
        return Err(
            "`public` and `none` are no roles: name a role, such as one made by `create role shop login`",
        );
    }
    Ok(name.to_owned())
}

pub(super) async fn run(args: GrantArgs) -> anyhow::Result<()> {
    let GrantArgs { kind, role, .. } = args;
    if args.print {
        return print(kind.script(&role));
    }
    let outbox = args.database.connect_migrated().await?;
    let may_log_in = outbox.grant(kind, &role).await?;
    outbox.close().await;
    let mut text = format!("{role} has the privileges of the kind {kind}\n");
    if !may_log_in {
        writeln!(text, "  but {role} can't log in: run `grant {role:?} to LOGIN_ROLE`, or `alter role {role:?} login`").ok();
    }
    report(text)
}
