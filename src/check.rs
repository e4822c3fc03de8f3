//! `worker check`: whether everything that a worker needs is there. Facts are gathered elsewhere ([`crate::outbox`],
//! [`crate::signaling`], [`probe`]); what they mean, and what to do, is decided here by pure functions.

pub mod api;
pub mod database;
pub mod probe;
pub mod settings;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// A worker works, but not as well as it could, or not for long.
    Warn,
    /// A worker does not work.
    Fail,
}

/// What was found out about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about.
    pub subject: &'static str,
    /// The app that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            subject,
            app: None,
            found: found.into(),
            advice: None,
        }
    }

    /// It works, but.
    pub fn warn(
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

    /// It does not work.
    pub fn fail(
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
    pub fn fail_as_told(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Fail,
            ..Self::ok(subject, found)
        }
    }

    /// About one app.
    #[must_use]
    pub fn of_app(self, app: &str) -> Self {
        Self {
            app: Some(app.to_owned()),
            ..self
        }
    }
}
