//! Who is in the way of a migration: as much of it as helps to find the session, and never what it runs.

use std::fmt;

use sqlx::{AssertSqlSafe, FromRow, PgConnection, query};

use crate::outbox::one_off::rows;

/// A session that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct LockHolder {
    /// Its process; 0 is a prepared transaction.
    pub(crate) pid: i32,
    /// Its user, if the database tells.
    pub(crate) user: Option<String>,
    pub(crate) application: Option<String>,
    /// What it does, as in `idle in transaction`.
    pub(crate) state: Option<String>,
    /// Since when its transaction is open, in RFC 3339.
    pub(crate) since: Option<String>,
    /// Whether it is a background process that cleans up.
    pub(crate) is_autovacuum: bool,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return formatter.write_str("a prepared transaction (see pg_prepared_xacts)");
        }
        let mut known = Vec::new();
        if self.is_autovacuum {
            known.push("autovacuum, which ends by itself".to_owned());
        }
        let named = [("user", &self.user), ("application", &self.application)];
        for (name, value) in named {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                known.push(format!("{name} {value:?}"));
            }
        }
        known.extend(self.state.clone());
        if let Some(since) = &self.since {
            known.push(format!("its transaction began at {since}"));
        }
        write!(formatter, "process {}", self.pid)?;
        if !known.is_empty() {
            write!(formatter, " ({})", known.join(", "))?;
        }
        Ok(())
    }
}

/// Names holders in a sentence.
pub(super) fn listed(holders: &[LockHolder]) -> String {
    if holders.is_empty() {
        return "sessions that have ended since".into();
    }
    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
    holders.join("; ")
}

/// The processes that a process waits for.
pub(super) const BLOCKING: &str = "select unnest(pg_blocking_pids($1::int)) as pid";
/// The processes that hold an advisory lock.
pub(super) const HOLDING_ADVISORY: &str = "select pid from pg_locks
     where locktype = 'advisory' and granted and objsubid = 1
       and database = (select oid from pg_database where datname = current_database())
       and classid::bigint << 32 | objid::bigint = $1";

/// What the views of Postgres tell of some processes. Of other users' sessions that is little, unless one may see them.
pub(super) async fn lock_holders(
    connection: &mut PgConnection,
    pids: &str,
    parameter: i64,
) -> Result<Vec<LockHolder>, sqlx::Error> {
    let holders = format!(
        "select holder.pid, usename::text as user, application_name as application, state,
                to_char(xact_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as since,
                coalesce(backend_type = 'autovacuum worker', false) as is_autovacuum
         from (select distinct pid from ({pids}) as holders) as holder
         left join pg_stat_activity as activity on activity.pid = holder.pid
         order by xact_start, holder.pid limit 5"
    );
    rows(connection, query(AssertSqlSafe(holders)).bind(parameter)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_told_of_with_what_is_known_of_it() {
        let unknown = LockHolder {
            pid: 17,
            user: None,
            application: None,
            state: None,
            since: None,
            is_autovacuum: false,
        };
        let known = LockHolder {
            user: Some("app".into()),
            application: Some("psql".into()),
            state: Some("idle in transaction".into()),
            since: Some("2030-01-31T12:00:00Z".into()),
            ..unknown.clone()
        };
        let prepared = LockHolder {
            pid: 0,
            ..unknown.clone()
        };
        assert_eq!(unknown.to_string(), "process 17");
        assert_eq!(
            known.to_string(),
            "process 17 (user \"app\", application \"psql\", idle in transaction, its transaction began at 2030-01-31T12:00:00Z)"
        );
        assert!(prepared.to_string().contains("pg_prepared_xacts"));
    }
}
