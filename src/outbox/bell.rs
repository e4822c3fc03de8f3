//! The doorbell: inserts ring it while a worker sleeps.

use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::Outbox;
use super::line::{CONNECT_DEADLINE, within};

/// The channel on which the trigger `ring_bell` notifies, with the app as its payload.
const CHANNEL: &str = "signaling_bell";

/// A connection that hears the bell.
#[derive(Debug)]
pub struct Bell(PgListener);

impl Outbox {
    /// Begins to listen, on a connection of its own.
    ///
    /// # Errors
    /// Where the database can't be reached.
    pub async fn listen(&self) -> Result<Bell, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(self.options().clone());
        within(CONNECT_DEADLINE, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            // A lost connection is to be known of: what rang meanwhile was not heard.
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Bell(listener))
        })
        .await
    }
}

impl Bell {
    /// Waits for a ring; the app for which it rang. None if the connection was lost: listen anew.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn heard(&mut self) -> Result<Option<String>, sqlx::Error> {
        Ok(self
            .0
            .try_recv()
            .await?
            .map(|notification| notification.payload().to_owned()))
    }

    /// Makes sure that the connection still carries something: one that is silent may be dead.
    ///
    /// # Errors
    /// Where it is: listen anew.
    pub async fn check(&mut self) -> Result<(), sqlx::Error> {
        within(CONNECT_DEADLINE, self.0.execute("select")).await?;
        Ok(())
    }
}
