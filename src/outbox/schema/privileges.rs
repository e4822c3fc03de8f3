//! The privileges of each kind of role: the SQL that grants them, and the check for missing ones.

use anyhow::{Context, bail};
use clap::ValueEnum;
use sqlx::{AssertSqlSafe, Executor, PgConnection, query};

use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, values};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum RoleKind {
    Producer,
    Worker,
    Operator,
    Reader,
}

/// The privileges of a kind. The tables and the functions are lists of names with spaces between them.
struct Privileges {
    /// The privilege on single columns of the outbox, in SQL.
    columns: &'static str,
    select: &'static str,
    execute: &'static [&'static str],
}

/// Functions that `worker status` calls.
const READING: &str =
    "refresh_queue_counts slot_rate present_rate calls peak_rate protocol_version";

fn names(list: &str) -> Vec<&str> {
    list.split_whitespace().collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl RoleKind {
    fn privileges(self) -> Privileges {
        match self {
            Self::Producer => Privileges {
                columns: "insert (app, sender, destination, channel_name, payload, wait_for_ack, enable_offline_messaging, \
                          enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, dedupe_key, traceparent)",
                select: "outbox attempt delivery delivery_status",
                execute: &["cancel protocol_version"],
            },
            Self::Worker => Privileges {
                columns: "",
                select: "outbox attempt lane wakeup delivery delivery_status retention minute_stats queue_counts \
                         queue_counts_turn worker worker_app fleet obstacle refused schema_migrations",
                execute: &[
                    "open_lane next_due claim record release expire hold release_hold throttle \
                     report_worker retire_worker delete_finished add_minute_stats sequences_behind set_messages_back",
                    READING,
                ],
            },
            Self::Operator => Privileges {
                execute: &["pause resume set_limit retry cancel adopt", READING],
                ..Self::Reader.privileges()
            },
            Self::Reader => Privileges {
                // Without the payload, and without the dedupe key and the traceparent, which producers may derive from it.
                columns: "select (id, app, sender, destination, channel_name, wait_for_ack, enable_offline_messaging, \
                          enable_historical_messaging, due_at, expires_at, max_attempts, at_most_once, created_at, status, \
                          attempts, uncharged, failing_since, claim_id, claimed_by, sent_at, finished_at, http_status, request_id, error)",
                select: "delivery_status attempt lane minute_stats queue_counts queue_counts_turn worker worker_app fleet obstacle refused \
                         schema_migrations",
                execute: &[READING],
            },
        }
    }

    fn functions(self) -> Vec<&'static str> {
        let lists = self.privileges().execute.iter();
        lists.flat_map(|list| names(list)).collect()
    }

    /// A transaction that an operator may run again.
    pub(crate) fn script(self, role: &str) -> String {
        format!("begin;\n{}commit;\n", self.grants(role))
    }

    pub(super) fn grants(self, role: &str) -> String {
        let privileges = self.privileges();
        let role = quoted(role);
        let qualified = |names: Vec<&str>| format!("signaling.{}", names.join(", signaling."));
        let mut granted = vec![
            "usage on schema signaling".to_owned(),
            format!("select on {}", qualified(names(privileges.select))),
            format!("execute on function {}", qualified(self.functions())),
        ];
        if !privileges.columns.is_empty() {
            granted.push(format!("{} on signaling.outbox", privileges.columns));
        }
        let grant = |privilege: String| format!("grant {privilege} to {role};\n");
        granted.into_iter().map(grant).collect()
    }
}

/// True for a function that only producers, operators or readers call.
pub(super) fn is_for_people(function: &str) -> bool {
    let may_call = |kind: &RoleKind| kind.functions().contains(&function);
    !may_call(&RoleKind::Worker) && RoleKind::value_variants().iter().any(may_call)
}

impl Outbox {
    /// Grants a role the privileges of a kind, in one transaction. The role keeps its other privileges. Returns whether the
    /// role may log in.
    pub(crate) async fn grant(&self, kind: RoleKind, role: &str) -> anyhow::Result<bool> {
        let work = async |transaction: &mut PgConnection| {
            transaction.execute(PRIVILEGES_LOCK).await?;
            let found = query("select rolcanlogin from pg_roles where rolname = $1").bind(role);
            let found = values(transaction, found).await?.pop();
            let may_log_in = found.with_context(|| {
                let name = quoted(role);
                format!("there is no role {role}: create it first, with `create role {name} login password '...'`")
            })?;
            // Without ownership, Postgres would only warn and grant nothing.
            let foreign = query(include_str!("foreign_owner.sql"));
            let foreign: Vec<(String, String)> = rows(transaction, foreign).await?;
            if let Some((user, owner)) = foreign.first() {
                bail!(
                    "{user} can't grant privileges: log in as the owner of the schema signaling, {owner}, or have its owner run what --print shows"
                );
            }
            transaction
                .execute(AssertSqlSafe(kind.grants(role)))
                .await?;
            Ok(may_log_in)
        };
        self.pool.transaction(None, work).await
    }

    /// The privileges of a worker that the role of this connection lacks. Inherited privileges count.
    pub(crate) async fn missing_privileges(&self) -> Result<Vec<String>, sqlx::Error> {
        let missing = query(include_str!("missing_privileges.sql"))
            .bind(names(RoleKind::Worker.privileges().select))
            .bind(RoleKind::Worker.functions());
        self.read(async |session| values(session, missing).await)
            .await
    }
}

/// Without this lock, one of two sessions that change privileges of the same table or function at once would fail.
pub(super) const PRIVILEGES_LOCK: &str = "select pg_advisory_xact_lock(7310596821344203)";

/// The roles that were granted every existing function of a kind. A role with only some of them is of no kind, because the
/// next `worker migrate` must not grant it more than its owner did.
pub(super) async fn roles_by_kind(
    connection: &mut PgConnection,
) -> Result<Vec<(RoleKind, String)>, sqlx::Error> {
    let mut found = Vec::new();
    for &kind in RoleKind::value_variants() {
        let roles = query(include_str!("roles_by_kind.sql"))
            .bind(kind.functions())
            .bind(kind != RoleKind::Producer);
        let roles = values(connection, roles).await?;
        found.extend(roles.into_iter().map(|role| (kind, role)));
    }
    Ok(found)
}
