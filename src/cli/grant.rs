//! `worker grant`

use std::fmt::Write;

use clap::{Args, ValueEnum};

use super::args::DatabaseArgs;
use super::print::{print, report};
use crate::outbox::{RoleKind, RoleName};

/// Grant a role the rights of a producer, a worker, an operator or a reader
///
/// producer: inserts, reads and cancels messages, also by `worker enqueue`.
///
/// worker: runs `worker run`, and the commands check, status and message. Calls functions, and writes no table directly.
///
/// operator: pauses, resumes, limits, retries and cancels, and has the rights of a reader. The buttons of the dashboard
/// need a worker's role with these rights.
///
/// reader: reads the state of messages and apps, without payloads: `signaling.delivery_status`, `worker status` and
/// `worker message`.
///
/// Run this command as the schema's owner, the role that ran `worker migrate`. Later migrations grant the role the rights
/// that a new version adds. This command revokes nothing. A role can have several kinds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker grant producer shop
  worker grant worker signaling_worker
  worker grant operator ops
  worker grant reader grafana --print | psql     print the SQL; needs no database

To revoke all rights of a role in the schema first:
  revoke all on all tables in schema signaling from shop;
  revoke all on all functions in schema signaling from shop;")]
pub(super) struct GrantArgs {
    /// The purpose of the role
    #[arg(value_name = "KIND")]
    kind: Kind,

    /// The name of the role, without SQL quotes
    role: RoleName,

    /// Print the SQL, and change nothing
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Producer,
    Worker,
    Operator,
    Reader,
}

pub(super) async fn run(args: GrantArgs) -> anyhow::Result<()> {
    let GrantArgs { kind, role, .. } = args;
    let (kind, rights) = match kind {
        Kind::Producer => (
            RoleKind::Producer,
            "a producer: it may insert, read and cancel messages",
        ),
        Kind::Worker => (RoleKind::Worker, "a worker: it may deliver messages"),
        Kind::Operator => (
            RoleKind::Operator,
            "an operator: it may pause, resume, limit, retry and cancel, and read like a reader",
        ),
        Kind::Reader => (
            RoleKind::Reader,
            "a reader: it may read the state of messages, without their content",
        ),
    };
    if args.print {
        return print(kind.script(&role));
    }
    let outbox = args.database.connect_migrated().await?;
    let granted = outbox.grant(kind, &role).await?;
    outbox.close().await;
    let is = if granted.had_kind {
        "was already"
    } else {
        "is"
    };
    let mut text = format!("{role} {is} {rights}\n");
    if !granted.may_log_in {
        writeln!(
            text,
            "  but {role} can't log in: grant {role} to a role that can"
        )
        .ok();
    }
    report(text, !granted.had_kind)
}
