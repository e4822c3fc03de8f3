//! `worker check`: whether everything that a worker needs is there. Facts are gathered elsewhere ([`crate::outbox`],
//! [`crate::signaling`], [`probe`]); what they mean, and what to do, is decided here by pure functions.

pub(crate) mod additions;
pub(crate) mod api;
pub(crate) mod collations;
pub(crate) mod database;
pub(crate) mod environment;
pub(crate) mod fleet_connections;
pub(crate) mod objects;
pub(crate) mod probe;
pub(crate) mod sequences;
pub(crate) mod servers;
pub(crate) mod settings;
pub(crate) mod vacuum_holders;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    /// A worker works, but not as well as it could, or not for long.
    Warn,
    /// A worker does not work.
    Fail,
}

/// What was found out about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) subject: &'static str,
    /// The app that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
    pub(crate) found: String,
    /// Advice to the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Finding {
    pub(crate) fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            subject,
            app: None,
            found: found.into(),
            advice: None,
        }
    }

    pub(crate) fn warn(
        subject: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Warn,
            advice: Some(advice.into()),
            ..Self::ok(subject, found)
        }
    }

    pub(crate) fn fail(
        subject: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Fail,
            ..Self::warn(subject, found, advice)
        }
    }

    /// It does not work, and what was found says what to do.
    pub(crate) fn fail_as_told(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::ok(subject, found)
        }
    }

    #[must_use]
    pub(crate) fn of_app(self, app: &str) -> Self {
        Self {
            app: Some(app.to_owned()),
            ..self
        }
    }
}
