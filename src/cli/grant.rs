//! `worker grant`

use std::fmt::Write;

use clap::{Args, ValueEnum};

use super::args::DatabaseArgs;
use super::print::{print, report};
use crate::outbox::{RoleKind, RoleName};

/// Give a role the rights that a producer, a worker, an operator or a reader needs, and no others
///
/// producer: inserts messages, reads them, cancels them. Also for `worker enqueue`.
///
/// worker: what `worker run` and the commands check, status and message need. It writes no table: it calls functions.
///
/// operator: pauses, resumes, limits, retries and cancels, and reads like a reader. A worker whose dashboard is to do that
/// needs it, too.
///
/// reader: what becomes of messages and how each app is doing, without payloads: `signaling.delivery_status`,
/// `worker status` and `worker message`.
///
/// Needs the rights of the schema's owner, who is the role that ran `worker migrate`. Later, `worker migrate` gives the
/// role what a new version adds. It takes nothing away. A role can have several kinds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  worker grant producer shop
  worker grant worker signaling_worker
  worker grant operator ops
  worker grant reader grafana --print | psql     print the SQL instead; needs no database

To take away what a role may do in the schema, such as rights that were given by hand, first:
  revoke all on all tables in schema signaling from shop;
  revoke all on all functions in schema signaling from shop;")]
pub(super) struct GrantArgs {
    /// What the role is for
    #[arg(value_name = "KIND")]
    kind: Kind,

    /// The role, written as it is, without quotes of SQL
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
            "a reader: it may read what becomes of messages, without their content",
        ),
    };
    if args.print {
        print(kind.script(&role))?;
        return Ok(());
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
        // Writing into a string does not fail.
        writeln!(
            text,
            "  but {role} can't log in: use it by roles that are its members"
        )
        .ok();
    }
    report(text, !granted.had_kind)
}
