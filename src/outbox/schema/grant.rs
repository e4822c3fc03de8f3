//! Grants a role the privileges of its kind.

use std::fmt;
use std::str::FromStr;

use sqlx::{AssertSqlSafe, Executor, query};

use super::privileges::{PRIVILEGES_LOCK, RoleKind, roles_by_kind};
use crate::error_text::database_error_text;
use crate::outbox::Outbox;
use crate::outbox::one_off::{rows, values};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidRoleName(&'static str);

impl FromStr for RoleName {
    type Err = InvalidRoleName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Postgres would cut a longer name to that of another role.
        if !(1..=63).contains(&text.len()) {
            return Err(InvalidRoleName("a role's name has 1 to 63 bytes"));
        }
        if text.contains(char::is_control) {
            return Err(InvalidRoleName("a role's name has no control characters"));
        }
        // Postgres does not take these for roles, even in quotes.
        if ["public", "none"].contains(&text) {
            return Err(InvalidRoleName(
                "`public` and `none` are no roles: name a role, such as one made by `create role shop login`",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl RoleName {
    /// The name as an identifier of SQL.
    pub(super) fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

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
        role.quoted()
    )]
    NoSuchRole { role: RoleName },
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
        role: &RoleName,
    ) -> Result<GrantedRole, GrantError> {
        let mut transaction = self.pool().transaction(None).await?;
        transaction.execute(PRIVILEGES_LOCK).await?;
        let found = query("select rolcanlogin from pg_roles where rolname = $1").bind(&role.0);
        let Some(may_log_in) = values(&mut transaction, found).await?.pop() else {
            return Err(GrantError::NoSuchRole { role: role.clone() });
        };
        // Without ownership, Postgres would only warn and grant nothing.
        let foreign = query(
            "select current_user::text, pg_get_userbyid(owner)::text
             from (select nspowner from pg_namespace where nspname = 'signaling'
                   union select relowner from pg_class where relnamespace = 'signaling'::regnamespace
                   union select proowner from pg_proc where pronamespace = 'signaling'::regnamespace) as owned (owner)
             where not pg_has_role(owner, 'usage') limit 1",
        );
        if let Some((user, owner)) = rows(&mut transaction, foreign).await?.pop() {
            return Err(GrantError::NotTheOwner { user, owner });
        }
        let before = roles_by_kind(&mut transaction).await?;
        let had_kind = before.contains(&(kind, role.0.clone()));
        let grants = AssertSqlSafe(kind.grants(role));
        transaction.execute(grants).await?;
        transaction.finish().await?;
        Ok(GrantedRole {
            had_kind,
            may_log_in,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> RoleName {
        name.parse().expect("a name")
    }

    #[test]
    fn a_role_with_any_name_is_one_identifier() {
        assert_eq!(role("shop").quoted(), r#""shop""#);
        assert_eq!(role(r#"a"; drop--"#).quoted(), r#""a""; drop--""#);
        assert_eq!(role("Größe 1").quoted(), r#""Größe 1""#);
    }

    #[test]
    fn names_that_postgres_would_take_for_another_role_are_refused() {
        for name in ["", &"x".repeat(64), "a\nb", "public", "none"] {
            assert!(name.parse::<RoleName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(63).parse::<RoleName>().is_ok());
    }

    #[test]
    fn every_statement_grants_to_the_role_alone() {
        for kind in RoleKind::ALL {
            let statements = kind.grants(&role("some role"));
            for statement in statements.split(';').filter(|text| !text.trim().is_empty()) {
                let grantee = statement.rsplit(" to ").next();
                assert_eq!(grantee, Some(r#""some role""#), "{statement}");
            }
        }
    }
}
