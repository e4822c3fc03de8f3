//! Receives notifications of inserts while a worker is idle.

use std::time::{Duration, Instant};

use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::outbox::Outbox;
use crate::outbox::pool::connection_manager::expires_at;
use crate::outbox::pool::pooler::session_guards;
use crate::outbox::pool::within;
use crate::outbox::servers::CONNECT_TIMEOUT;

/// The channel on which the trigger `notify_workers` notifies, with the app as its payload.
const CHANNEL: &str = "signaling_wakeup";

#[derive(Debug)]
pub(crate) struct WakeupListener {
    listener: PgListener,
    expires_at: Instant,
}

impl Outbox {
    /// Listens on a connection of its own.
    pub(crate) async fn listen(&self) -> Result<WakeupListener, sqlx::Error> {
        let open = async |options| {
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .connect_lazy_with(options);
            PgListener::connect_with(&pool).await
        };
        let mut listener = self.servers().open(open).await?;
        // Without this, sqlx would reconnect silently, and notifications would be lost unnoticed.
        listener.eager_reconnect(false);
        within(CONNECT_TIMEOUT, async {
            listener.execute(session_guards()).await?;
            listener.listen(CHANNEL).await
        })
        .await?;
        Ok(WakeupListener {
            listener,
            expires_at: expires_at(self.max_age),
        })
    }
}

impl WakeupListener {
    /// The rest of the connection's life. Zero if it is too old.
    pub(crate) fn time_left(&self) -> Duration {
        self.expires_at.saturating_duration_since(Instant::now())
    }

    /// Waits for a notification, and returns its app. None if the connection was lost: call `listen` again.
    pub(crate) async fn recv(&mut self) -> Result<Option<String>, sqlx::Error> {
        let notification = self.listener.try_recv().await?;
        Ok(notification.map(|notification| notification.payload().to_owned()))
    }

    /// Fails if the connection is dead. Without this check, a connection that a firewall has dropped would wait for ever.
    pub(crate) async fn check(&mut self) -> Result<(), sqlx::Error> {
        within(CONNECT_TIMEOUT, self.listener.execute("select")).await?;
        Ok(())
    }
}
