//! `target_session_attrs`: the servers that the worker accepts.

use sqlx::{Executor, Postgres, Row};

use super::unusable;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requirement {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
}

/// Parses the parameter. The worker tries all hosts with the first requirement, then all hosts with the next one.
pub(super) fn parse(text: &str) -> Option<&'static [Requirement]> {
    Some(match text {
        "any" => &[Requirement::Any],
        "read-write" => &[Requirement::ReadWrite],
        "read-only" => &[Requirement::ReadOnly],
        "primary" => &[Requirement::Primary],
        "standby" => &[Requirement::Standby],
        "prefer-standby" => &[Requirement::Standby, Requirement::Any],
        _ => return None,
    })
}

impl Requirement {
    /// Fails with the reason if the server does not meet the requirement. `show` is safe under any `search_path`, because
    /// it calls no function.
    pub(super) async fn check<'c>(
        self,
        connection: impl Executor<'c, Database = Postgres>,
    ) -> Result<(), sqlx::Error> {
        let (show, required, objection) = match self {
            Self::Any => return Ok(()),
            Self::ReadWrite => ("show transaction_read_only", "off", "it takes no writes"),
            Self::ReadOnly => ("show transaction_read_only", "on", "it takes writes"),
            Self::Primary => ("show in_hot_standby", "off", "it is a standby"),
            Self::Standby => ("show in_hot_standby", "on", "it is no standby"),
        };
        let row = connection.fetch_one(show).await?;
        if row.try_get::<String, _>(0)? == required {
            return Ok(());
        }
        Err(unusable(format!("{objection} (target_session_attrs)")))
    }
}
