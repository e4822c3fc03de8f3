//! Receives notifications of inserts while a worker is idle.

use std::io;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Connection, Executor};

use crate::outbox::Outbox;
use crate::outbox::pool::connection_manager::{SESSION_GUARDS, expires_at};
use crate::outbox::pool::{CLOSE_TIMEOUT, within};
use crate::outbox::servers::CONNECT_TIMEOUT;

/// The channel on which the trigger `notify_workers` notifies, with the app as its payload.
const CHANNEL: &str = "signaling_wakeup";
/// The worker checks a silent connection, because it would wait for ever on one that a firewall has dropped.
const CHECK_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct WakeupListener {
    listener: PgListener,
    expires_at: Instant,
}

impl Outbox {
    /// Listens on a connection of its own.
    pub(crate) async fn listen(&self) -> Result<WakeupListener, sqlx::Error> {
        // The first connection only finds the host that takes writes.
        let (connection, options) = self.servers().connect().await?;
        within(CLOSE_TIMEOUT, connection.close()).await.ok();
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.servers().connect_timeout())
            .connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await?;
        // Without this, sqlx would reconnect silently, and notifications would be lost unnoticed.
        listener.eager_reconnect(false);
        within(CONNECT_TIMEOUT, async {
            listener.execute(SESSION_GUARDS).await?;
            listener.listen(CHANNEL).await
        })
        .await?;
        Ok(WakeupListener {
            listener,
            expires_at: expires_at(self.pool.manager().max_age),
        })
    }
}

impl WakeupListener {
    /// Waits for a notification, and returns its app. None once the connection is too old. Then and after an error, call
    /// `listen` again.
    pub(crate) async fn recv(&mut self) -> Result<Option<String>, sqlx::Error> {
        while let Some(time_left) = self.expires_at.checked_duration_since(Instant::now()) {
            let wait = CHECK_AFTER.min(time_left);
            if let Ok(received) = tokio::time::timeout(wait, self.listener.try_recv()).await {
                let lost = || io::Error::new(io::ErrorKind::ConnectionAborted, "it was closed");
                let notification = received?.ok_or_else(lost)?;
                return Ok(Some(notification.payload().to_owned()));
            }
            within(CONNECT_TIMEOUT, self.listener.execute("select")).await?;
        }
        Ok(None)
    }
}
