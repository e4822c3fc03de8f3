//! `target_session_attrs`: which servers the worker accepts.

use sqlx::{Executor, Postgres, Row};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionAttributes {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// The state of a server that the attributes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerState {
    pub(super) is_standby: bool,
    pub(super) is_read_only: bool,
}

impl SessionAttributes {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "any" => Self::Any,
            "read-write" => Self::ReadWrite,
            "read-only" => Self::ReadOnly,
            "primary" => Self::Primary,
            "standby" => Self::Standby,
            "prefer-standby" => Self::PreferStandby,
            _ => return None,
        })
    }

    /// The passes over the hosts, each with the attribute that it requires.
    pub(super) fn rounds(self) -> &'static [Self] {
        match self {
            Self::Any => &[Self::Any],
            Self::ReadWrite => &[Self::ReadWrite],
            Self::ReadOnly => &[Self::ReadOnly],
            Self::Primary => &[Self::Primary],
            Self::Standby => &[Self::Standby],
            Self::PreferStandby => &[Self::Standby, Self::Any],
        }
    }

    /// True if at most one server satisfies the attribute. The worker then tries the host of the last connection first:
    /// an unreachable host before it would delay each new connection.
    pub(super) fn is_of_one_server(self) -> bool {
        matches!(self, Self::ReadWrite | Self::Primary)
    }

    /// The reason to reject a server; None to accept it.
    pub(super) fn objection(self, server: ServerState) -> Option<&'static str> {
        let (is_met, objection) = match self {
            Self::Any | Self::PreferStandby => (true, ""),
            Self::ReadWrite => (
                !server.is_read_only,
                "it takes no writes (target_session_attrs=read-write)",
            ),
            Self::ReadOnly => (
                server.is_read_only,
                "it takes writes (target_session_attrs=read-only)",
            ),
            Self::Primary => (
                !server.is_standby,
                "it is a standby (target_session_attrs=primary)",
            ),
            Self::Standby => (
                server.is_standby,
                "it is no standby (target_session_attrs=standby)",
            ),
        };
        (!is_met).then_some(objection)
    }
}

/// Queries a server's state. `show` is safe under any `search_path`, because it calls no function.
pub(super) async fn server_state<'c, C>(connection: C) -> Result<ServerState, sqlx::Error>
where
    C: Executor<'c, Database = Postgres>,
{
    let rows = connection
        .fetch_all("show in_hot_standby; show transaction_read_only")
        .await?;
    let is_on = |place: usize| -> Result<bool, sqlx::Error> {
        let row = rows.get(place).ok_or(sqlx::Error::RowNotFound)?;
        Ok(row.try_get::<String, _>(0)? == "on")
    };
    Ok(ServerState {
        is_standby: is_on(0)?,
        is_read_only: is_on(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_accepts_the_servers_that_libpq_accepts() {
        let state = |is_standby, is_read_only| ServerState {
            is_standby,
            is_read_only,
        };
        // A primary, one with default_transaction_read_only, a standby.
        let servers = [state(false, false), state(false, true), state(true, true)];
        for (text, expected) in [
            ("any", [true, true, true]),
            ("read-write", [true, false, false]),
            ("read-only", [false, true, true]),
            ("primary", [true, true, false]),
            ("standby", [false, false, true]),
            ("prefer-standby", [true, true, true]),
        ] {
            let attributes = SessionAttributes::parse(text).expect("a value");
            let last = attributes.rounds().last().expect("a round");
            let accepted = servers.map(|server| last.objection(server).is_none());
            assert_eq!(accepted, expected, "{text}");
        }
        let preferred = SessionAttributes::PreferStandby.rounds()[0];
        assert_eq!(preferred.objection(servers[2]), None);
        assert!(preferred.objection(servers[0]).is_some());
        assert_eq!(SessionAttributes::parse("master"), None);
    }
}
