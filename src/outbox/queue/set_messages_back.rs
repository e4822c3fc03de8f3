//! Brings times of messages back after the clock of the database was set back.

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
    /// Makes messages of an app due that would wait for as long as the clock was set back, some thousand in a statement.
    /// Returns how many.
    ///
    /// # Errors
    /// Where the database fails; the messages of earlier statements stay changed.
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
                let answer = self.pool().call(Statement::Lane, call).await?;
                let step: Step = answer.decode()?.pop().ok_or(sqlx::Error::RowNotFound)?;
                changed += u64::try_from(step.changed).unwrap_or(0);
                next = step.last_at.zip(step.last_id);
            }
        }
        Ok(changed)
    }
}
