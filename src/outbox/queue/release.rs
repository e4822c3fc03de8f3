//! Gives back claims that made no attempt.

use uuid::Uuid;

use crate::outbox::Outbox;
use crate::outbox::pool::Call;
use crate::outbox::pool::statement::Statement;

impl Outbox {
    /// Gives back the messages of claims whose answers never came, and the probe of a held lane that made no attempt.
    /// Returns the claims that had messages.
    ///
    /// # Errors
    /// Where the database fails.
    pub(crate) async fn release(
        &self,
        app: &str,
        claim_ids: &[Uuid],
    ) -> Result<Vec<Uuid>, sqlx::Error> {
        let call = Call::new("release")
            .with("app", app)
            .with("claim_ids", claim_ids.to_vec());
        let answer = self.pool().call(Statement::Release, call).await?;
        let claims: Vec<(Uuid,)> = answer.decode()?;
        Ok(claims.into_iter().map(|(claim_id,)| claim_id).collect())
    }
}
