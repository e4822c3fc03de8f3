//! Notifications of inserts, while a worker is idle.

use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::outbox::Outbox;
use crate::outbox::pool::{CONNECT_TIMEOUT, within};

/// The channel on which the trigger `notify_workers` notifies, with the app as its payload.
const CHANNEL: &str = "signaling_wakeup";

/// A connection that receives notifications.
#[derive(Debug)]
pub(crate) struct WakeupListener(PgListener);

impl Outbox {
    /// Begins to listen, on a connection of its own.
    pub(crate) async fn listen(&self) -> Result<WakeupListener, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(self.options().clone());
        within(CONNECT_TIMEOUT, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // A lost connection must show: notifications of the meantime are lost.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(WakeupListener(listener))
        })
        .await
    }
}

impl WakeupListener {
    /// Waits for a notification, and returns its app. None if the connection was lost: listen anew.
    pub(crate) async fn recv(&mut self) -> Result<Option<String>, sqlx::Error> {
        let notification = self.0.try_recv().await?;
        Ok(notification.map(|notification| notification.payload().to_owned()))
    }

    /// Fails if the connection is dead, which may not show otherwise: then listen anew.
    pub(crate) async fn check(&mut self) -> Result<(), sqlx::Error> {
        within(CONNECT_TIMEOUT, self.0.execute("select")).await?;
        Ok(())
    }
}
