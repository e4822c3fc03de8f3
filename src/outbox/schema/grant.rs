//! Grants a role the privileges of its kind.

use sqlx::{AssertSqlSafe, Executor, PgConnection, query};

use super::privileges::{PRIVILEGES_LOCK, RoleKind, quoted, roles_by_kind};
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, values};

#[derive(Debug, Clone, Copy)]
pub(crate) struct GrantedRole {
    /// The role had all privileges of the kind before.
    pub(crate) had_kind: bool,
    pub(crate) may_log_in: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantError {
    #[error(
        "there is no role {role}: create it first, with `create role {};` and a way to log in, such as a password",
        quoted(role)
    )]
    NoSuchRole { role: String },
    #[error(
        "{user} can't grant privileges: log in as the owner of the schema signaling, {owner}, or have its owner run what --print shows"
    )]
    NotTheOwner { user: String, owner: String },
    #[error("the database failed: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
}

impl Outbox {
    /// Grants a role the privileges of a kind, in one transaction. The role keeps its other privileges.
    pub(crate) async fn grant(
        &self,
        kind: RoleKind,
        role: &str,
    ) -> Result<GrantedRole, GrantError> {
        let work = async |transaction: &mut PgConnection| {
            transaction.execute(PRIVILEGES_LOCK).await?;
            let found = query("select rolcanlogin from pg_roles where rolname = $1").bind(role);
            let Some(may_log_in) = values(transaction, found).await?.pop() else {
                return Err(GrantError::NoSuchRole { role: role.into() });
            };
            // Without ownership, Postgres would only warn and grant nothing.
            let foreign = query(
                "select current_user::text, pg_get_userbyid(owner)::text
                 from (select nspowner from pg_namespace where nspname = 'signaling'
                       union select relowner from pg_class where relnamespace = 'signaling'::regnamespace
                       union select proowner from pg_proc where pronamespace = 'signaling'::regnamespace) as owned (owner)
                 where not pg_has_role(owner, 'usage') limit 1",
            );
            if let Some((user, owner)) = rows(transaction, foreign).await?.pop() {
                return Err(GrantError::NotTheOwner { user, owner });
            }
            let before = roles_by_kind(transaction).await?;
            let grants = AssertSqlSafe(kind.grants(role));
            transaction.execute(grants).await?;
            Ok(GrantedRole {
                had_kind: before.contains(&(kind, role.to_owned())),
                may_log_in,
            })
        };
        self.pool.transaction(None, work).await
    }
}
