//! Notifications of inserts, while a worker is idle.

use std::time::{Duration, Instant};

use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::outbox::Outbox;
use crate::outbox::pool::within;
use crate::outbox::servers::{CONNECT_TIMEOUT, SESSION_GUARDS};
use crate::retry::shortened_at_random;

/// The channel on which the trigger `notify_workers` notifies, with the app as its payload.
const CHANNEL: &str = "signaling_wakeup";

/// A connection that receives notifications.
#[derive(Debug)]
pub(crate) struct WakeupListener {
    listener: PgListener,
    opened_at: Instant,
    max_age: Duration,
}

impl Outbox {
    /// Begins to listen, on a connection of its own.
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
            listener.execute(SESSION_GUARDS).await?;
            listener.listen(CHANNEL).await
        })
        .await?;
        Ok(WakeupListener {
            listener,
            opened_at: Instant::now(),
            max_age: shortened_at_random(self.max_age()),
        })
    }
}

impl WakeupListener {
    /// How long the connection may still be used; zero if it is too old.
    pub(crate) fn time_left(&self) -> Duration {
        self.max_age.saturating_sub(self.opened_at.elapsed())
    }

    /// Waits for a notification, and returns its app. None if the connection was lost: listen anew.
    pub(crate) async fn recv(&mut self) -> Result<Option<String>, sqlx::Error> {
        let notification = self.listener.try_recv().await?;
        Ok(notification.map(|notification| notification.payload().to_owned()))
    }

    /// Fails if the connection is dead, which may not show otherwise: then listen anew.
    pub(crate) async fn check(&mut self) -> Result<(), sqlx::Error> {
        within(CONNECT_TIMEOUT, self.listener.execute("select")).await?;
        Ok(())
    }
}
