//! Corrects due times of messages after the database's clock was set back.

use std::time::Duration;

use sqlx::FromRow;

use crate::outbox::pool::Call;
use crate::outbox::pool::statement::Statement;
use crate::outbox::{Outbox, interval};
use crate::pace::DbTime;

#[derive(FromRow)]
struct Step {
    changed: i32,
    last_at: Option<DbTime>,
    last_id: Option<i64>,
}

impl Outbox {
    /// Corrects the due times of an app's messages, some thousand in a statement. Without this, the messages would wait for
    /// as long as the clock was set back. Returns the number of changed messages.
    ///
    /// # Errors
    /// If the database fails. Changes of earlier statements stay.
    pub(crate) async fn set_messages_back(
        &self,
        app: &str,
        lease: Duration,
    ) -> Result<u64, sqlx::Error> {
        let mut changed = 0;
        for of_retries in [false, true] {
            let mut next = Some((DbTime::BEGINNING, 0));
            while let Some((after_at, after_id)) = next {
                let call = Call::new("set_messages_back")
                    .with("app", app)
                    .with("lease", interval(lease))
                    .with("of_retries", of_retries)
                    .with("after_at", after_at)
                    .with("after_id", after_id);
                let response = self.pool().call(Statement::Lane, call).await?;
                let step: Step = response.decode()?.pop().ok_or(sqlx::Error::RowNotFound)?;
                changed += u64::try_from(step.changed).unwrap_or(0);
                next = step.last_at.zip(step.last_id);
            }
        }
        Ok(changed)
    }
}
