//! Grants a role the privileges of its kind.

use anyhow::bail;
use sqlx::{AssertSqlSafe, Executor, PgConnection, query};

use super::privileges::{PRIVILEGES_LOCK, RoleKind};
use crate::outbox::Outbox;
use crate::outbox::one_off::rows;

impl Outbox {
    /// Grants a role the privileges of a kind, in one transaction. The role keeps its other privileges.
    pub(crate) async fn grant(&self, kind: RoleKind, role: &str) -> anyhow::Result<()> {
        let work = async |transaction: &mut PgConnection| {
            transaction.execute(PRIVILEGES_LOCK).await?;
            // Without ownership, Postgres would only warn and grant nothing.
            let foreign = query(
                "select current_user::text, pg_get_userbyid(owner)::text
                 from (select nspowner from pg_namespace where nspname = 'signaling'
                       union select relowner from pg_class where relnamespace = 'signaling'::regnamespace
                       union select proowner from pg_proc where pronamespace = 'signaling'::regnamespace) as owned (owner)
                 where not pg_has_role(owner, 'usage') limit 1",
            );
            let foreign: Vec<(String, String)> = rows(transaction, foreign).await?;
            if let Some((user, owner)) = foreign.first() {
                bail!(
                    "{user} can't grant privileges: log in as the owner of the schema signaling, {owner}, or have its owner run what --print shows"
                );
            }
            transaction
                .execute(AssertSqlSafe(kind.grants(role)))
                .await?;
            Ok(())
        };
        self.pool.transaction(None, work).await
    }
}
