//! The privileges of each kind of role: the SQL that grants them, and which of them a role lacks.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, PgConnection};

use super::grant::RoleName;
use crate::outbox::Outbox;

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleKind {
    /// Inserts, reads and cancels messages.
    Producer,
    /// Delivers messages by the functions of the protocol, and writes no table.
    Worker,
    /// Pauses, resumes, limits, retries and cancels, and reads like a reader.
    Operator,
    /// Reads what becomes of messages, without their content.
    Reader,
}

/// The privileges of a kind.
struct Privileges {
    /// The kind in a sentence, for the head of the script.
    about: &'static str,
    /// Columns of the outbox that the role inserts.
    insert: &'static [&'static str],
    /// Columns of the outbox that the role reads, if it may not read all.
    select_columns: &'static [&'static str],
    select: &'static [&'static str],
    execute: &'static [&'static str],
}

const PRODUCER: Privileges = Privileges {
    about: "A producer: inserts messages, reads them and their outcomes, cancels them.",
    insert: &[
        "app",
        "sender",
        "destination",
        "channel_name",
        "payload",
        "wait_for_ack",
        "enable_offline_messaging",
        "enable_historical_messaging",
        "due_at",
        "expires_at",
        "max_attempts",
        "at_most_once",
        "dedupe_key",
        "traceparent",
    ],
    select_columns: &[],
    select: &["outbox", "attempt", "delivery", "delivery_status"],
    execute: &["cancel", "protocol_version"],
};

const WORKER: Privileges = Privileges {
    about: "A worker: delivers messages by the functions of the protocol, and writes no table.",
    insert: &[],
    select_columns: &[],
    select: &[
        "outbox",
        "attempt",
        "lane",
        "wakeup",
        "delivery",
        "delivery_status",
        "retention",
        "minute_stats",
        "queue_counts",
        "queue_counts_turn",
        "schema_migrations",
    ],
    execute: &[
        "open_lane",
        "next_due",
        "claim",
        "record",
        "release",
        "expire",
        "hold",
        "release_hold",
        "throttle",
        "reserve_slot",
        "delete_finished",
        "add_minute_stats",
        "refresh_queue_counts",
        "slot_rate",
        "present_rate",
        "calls",
        "peak_rate",
        "protocol_version",
    ],
};

/// All but the payload, and the dedupe key and the traceparent, which producers may make of it.
const READABLE_COLUMNS: &[&str] = &[
    "id",
    "app",
    "sender",
    "destination",
    "channel_name",
    "wait_for_ack",
    "enable_offline_messaging",
    "enable_historical_messaging",
    "due_at",
    "expires_at",
    "max_attempts",
    "at_most_once",
    "created_at",
    "status",
    "attempts",
    "claim_id",
    "claimed_by",
    "sent_at",
    "finished_at",
    "http_status",
    "request_id",
    "error",
];

const READABLE_TABLES: &[&str] = &[
    "delivery_status",
    "attempt",
    "lane",
    "minute_stats",
    "queue_counts",
    "queue_counts_turn",
    "schema_migrations",
];

const OPERATOR: Privileges = Privileges {
    about: "An operator: pauses, resumes, limits, retries and cancels, and reads like a reader.",
    insert: &[],
    select_columns: READABLE_COLUMNS,
    select: READABLE_TABLES,
    execute: &[
        "pause",
        "resume",
        "set_limit",
        "retry",
        "cancel",
        "refresh_queue_counts",
        "slot_rate",
        "present_rate",
        "calls",
        "peak_rate",
        "protocol_version",
    ],
};

const READER: Privileges = Privileges {
    about: "A reader: reads what becomes of messages and how each app is doing, without the content of messages.",
    insert: &[],
    select_columns: READABLE_COLUMNS,
    select: READABLE_TABLES,
    execute: &[
        "refresh_queue_counts",
        "slot_rate",
        "present_rate",
        "calls",
        "peak_rate",
        "protocol_version",
    ],
};

impl RoleKind {
    const ALL: [Self; 4] = [Self::Producer, Self::Worker, Self::Operator, Self::Reader];

    fn privileges(self) -> &'static Privileges {
        match self {
            Self::Producer => &PRODUCER,
            Self::Worker => &WORKER,
            Self::Operator => &OPERATOR,
            Self::Reader => &READER,
        }
    }

    /// The SQL that makes a role one of this kind: a transaction that may be run again.
    pub(crate) fn script(self, role: &RoleName) -> String {
        let about = self.privileges().about;
        format!("-- {about}\nbegin;\n{}commit;\n", self.grants(role))
    }

    /// The grants of the script.
    pub(super) fn grants(self, role: &RoleName) -> String {
        let role = role.quoted();
        let privileges = self.privileges();
        let qualified = |names: &[&str]| {
            let names: Vec<String> = names
                .iter()
                .map(|name| format!("signaling.{name}"))
                .collect();
            names.join(", ")
        };
        let mut grants = format!("grant usage on schema signaling to {role};\n");
        for (privilege, columns) in [
            ("insert", privileges.insert),
            ("select", privileges.select_columns),
        ] {
            if !columns.is_empty() {
                let columns = columns.join(", ");
                writeln!(
                    grants,
                    "grant {privilege} ({columns}) on signaling.outbox to {role};"
                )
                .ok();
            }
        }
        let (tables, functions) = (qualified(privileges.select), qualified(privileges.execute));
        writeln!(grants, "grant select on {tables} to {role};").ok();
        writeln!(grants, "grant execute on function {functions} to {role};").ok();
        grants
    }
}

impl Outbox {
    /// The privileges of a kind that the role of this connection lacks, in words. Postgres is asked, so privileges by way
    /// of other roles count. The schema has to be up to date.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn missing_privileges(
        &self,
        kind: RoleKind,
    ) -> Result<Vec<String>, sqlx::Error> {
        let privileges = kind.privileges();
        self.read(async |session| {
            let may_look: bool = sqlx::query_scalar(
                "select coalesce(has_schema_privilege(to_regnamespace('signaling'), 'usage'), false)",
            )
            .persistent(false)
            .fetch_one(&mut **session)
            .await?;
            if !may_look {
                return Ok(vec!["usage on the schema signaling".to_owned()]);
            }
            sqlx::query_scalar(
                "select 'insert (' || name || ') on signaling.outbox' from unnest($1::text[]) as name
                 where not has_column_privilege('signaling.outbox', name, 'insert')
                 union all
                 select 'select (' || name || ') on signaling.outbox' from unnest($2::text[]) as name
                 where not has_column_privilege('signaling.outbox', name, 'select')
                 union all
                 select 'select on signaling.' || name from unnest($3::text[]) as name
                 where not coalesce(has_table_privilege(to_regclass('signaling.' || name), 'select'), false)
                 union all
                 select 'execute on function signaling.' || name from unnest($4::text[]) as name
                 where not coalesce(has_function_privilege(to_regproc('signaling.' || name), 'execute'), false)",
            )
            .persistent(false)
            .bind(privileges.insert)
            .bind(privileges.select_columns)
            .bind(privileges.select)
            .bind(privileges.execute)
            .fetch_all(&mut **session)
            .await
        })
        .await
    }
}

/// Grants each role that is of a kind by one of its privileges the others of that kind.
pub(super) async fn refresh_privileges(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for kind in RoleKind::ALL {
        let roles: Vec<String> = match kind {
            RoleKind::Worker => grantees_of_function("claim", connection).await?,
            RoleKind::Operator => grantees_of_function("pause", connection).await?,
            RoleKind::Producer => grantees_of_table("outbox", "INSERT", connection).await?,
            RoleKind::Reader => grantees_of_table("minute_stats", "SELECT", connection).await?,
        };
        for role in roles {
            if let Ok(role) = role.parse() {
                sqlx::raw_sql(AssertSqlSafe(kind.grants(&role)))
                    .execute(&mut *connection)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn grantees_of_function(
    name: &str,
    connection: &mut PgConnection,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select rolname::text from pg_proc, aclexplode(proacl) as acl, pg_roles
         where pg_proc.oid = to_regproc('signaling.' || $1) and pg_roles.oid = grantee and grantee <> proowner",
    )
    .bind(name)
    .fetch_all(connection)
    .await
}

async fn grantees_of_table(
    name: &str,
    privilege: &str,
    connection: &mut PgConnection,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select distinct rolname::text
         from (select relowner, aclexplode(relacl) as acl from pg_class
               where oid = to_regclass('signaling.' || $1)
               union all
               select relowner, aclexplode(attacl) from pg_class join pg_attribute on attrelid = pg_class.oid
               where pg_class.oid = to_regclass('signaling.' || $1)) as granted, pg_roles
         where pg_roles.oid = (acl).grantee and (acl).grantee <> relowner and (acl).privilege_type = $2",
    )
    .bind(name)
    .bind(privilege)
    .fetch_all(connection)
    .await
}
