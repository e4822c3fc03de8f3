//! Detects a pooler in transaction mode, such as PgBouncer.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row};

use super::within;
use crate::outbox::servers::{CONNECT_TIMEOUT, Servers};

/// True if the server accepts `client_connection_check_interval`, by which Postgres ends a statement soon after the client has
/// closed the connection. Only servers on Linux are sure to accept it.
const CHECKS_CLIENTS: &str = "pg_catalog.version() operator(pg_catalog.~) 'linux'";

/// Settings of each direct session.
///
/// - `idle_session_timeout`: a server that ends idle sessions would fail the next statement of a quiet app.
/// - `tcp_keepalives_*`: the server's probes keep firewalls from forgetting a quiet connection, and end the session of a
///   worker whose host has died.
/// - `client_connection_check_interval`: see [`CHECKS_CLIENTS`].
pub(in crate::outbox) fn session_guards() -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3; \
         set idle_session_timeout = 0; \
         select pg_catalog.set_config('client_connection_check_interval', '1000', false) where {CHECKS_CLIENTS}"
    ))
}

#[derive(Debug, Clone, Copy)]
pub(in crate::outbox) struct Pooler {
    /// Sets `client_connection_check_interval` in each transaction, where the servers accept it.
    pub(super) guard: &'static str,
}

impl Pooler {
    /// Compares the server processes of two connections that are open at once. Each direct connection has a process of its
    /// own; a pooler in transaction mode lends processes out. The statements have no parameters, so that any pooler can
    /// pass them on.
    pub(in crate::outbox) async fn detect(servers: &Servers) -> Result<Option<Self>, sqlx::Error> {
        let first = servers.connect().await?;
        // The same server again, because processes of different servers may have the same number.
        let options = servers.options()?;
        within(CONNECT_TIMEOUT, async {
            compare([first, options.connect().await?]).await
        })
        .await
    }
}

async fn compare(mut connections: [PgConnection; 2]) -> Result<Option<Pooler>, sqlx::Error> {
    let mut processes = [HashSet::new(), HashSet::new()];
    // Not in turn, because a pooler that lends its processes in turn would give each connection the same one every time.
    for index in [0, 1, 1, 0, 0, 1] {
        let pid = connections[index].fetch_one("select pg_backend_pid()");
        processes[index].insert(pid.await?.try_get::<i32, _>(0)?);
    }
    let is_shared = processes.iter().any(|pids| pids.len() > 1) || processes[0] == processes[1];
    let query = AssertSqlSafe(format!("select {CHECKS_CLIENTS}"));
    let guard = if connections[0].fetch_one(query).await?.try_get(0)? {
        "; set local client_connection_check_interval = 1000"
    } else {
        ""
    };
    for connection in connections {
        connection.close().await?;
    }
    Ok(is_shared.then_some(Pooler { guard }))
}
