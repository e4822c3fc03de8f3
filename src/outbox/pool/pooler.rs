//! Detects a pooler in transaction mode, such as PgBouncer.

use std::collections::HashSet;

use sqlx::{Connection, Executor, Row};

use super::within;
use crate::outbox::servers::{CONNECT_TIMEOUT, Servers};

/// Settings of each direct session.
///
/// - `idle_session_timeout`: a server that ends idle sessions would fail the next statement of a quiet app.
/// - `tcp_keepalives_*`: the server's probes keep firewalls from forgetting a quiet connection, and end the session of a
///   worker whose host has died.
/// - `client_connection_check_interval`: Postgres ends a statement soon after the client has closed the connection. Only
///   servers on Linux are sure to accept it.
pub(in crate::outbox) const SESSION_GUARDS: &str = "
    set tcp_keepalives_idle = 30; set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3;
    set idle_session_timeout = 0;
    select pg_catalog.set_config('client_connection_check_interval', '1000', false)
    where pg_catalog.version() operator(pg_catalog.~) 'linux'";
/// The same setting, for each transaction behind a pooler.
const TRANSACTION_GUARD: &str = "; set local client_connection_check_interval = 1000";

/// Compares the server processes of two connections that are open at once. Each direct connection has a process of its own;
/// a pooler in transaction mode lends processes out. The statements have no parameters, so that any pooler can pass them on.
/// Behind a pooler, returns the settings for each transaction.
pub(in crate::outbox) async fn detect(
    servers: &Servers,
) -> Result<Option<&'static str>, sqlx::Error> {
    let mut connections = [servers.connect().await?, servers.connect().await?];
    within(CONNECT_TIMEOUT, async {
        let mut processes = [HashSet::new(), HashSet::new()];
        // Not in turn, because a pooler that lends its processes in turn would give each connection the same one every time.
        for index in [0, 1, 1, 0, 0, 1] {
            let pid = connections[index].fetch_one("select pg_backend_pid()");
            processes[index].insert(pid.await?.try_get::<i32, _>(0)?);
        }
        let is_shared = processes.iter().any(|pids| pids.len() > 1) || processes[0] == processes[1];
        let is_linux = "select pg_catalog.version() operator(pg_catalog.~) 'linux'";
        let is_linux = connections[0].fetch_one(is_linux).await?.try_get(0)?;
        for connection in connections {
            connection.close().await?;
        }
        Ok(is_shared.then_some(if is_linux { TRANSACTION_GUARD } else { "" }))
    })
    .await
}
