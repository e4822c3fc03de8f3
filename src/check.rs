//! Findings of `worker check`. The queries of [`crate::outbox`] and the test connections in [`api`] gather facts. Pure
//! functions judge the facts and advise the operator.

pub(crate) mod api;
pub(crate) mod lane;
pub(crate) mod schema;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use serde::Serialize;
use strum::IntoStaticStr;

use crate::outbox::{Problem, ProblemCheck};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    /// The worker runs, but an operator should act.
    Warn,
    /// Producers can't insert, or messages of an app can't be sent as promised.
    #[strum(serialize = "FAIL")]
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) subject: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
    pub(crate) found: String,
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

    #[must_use]
    pub(crate) fn of_app(self, app: &str) -> Self {
        Self {
            app: Some(app.to_owned()),
            ..self
        }
    }
}

pub(crate) fn problems(check: &ProblemCheck, problems: &[Problem]) -> Finding {
    if problems.is_empty() {
        return Finding::ok(check.subject, check.ok);
    }
    let found = list(problems, |problem| problem.found.clone());
    let statements: Vec<_> = problems
        .iter()
        .filter_map(|problem| Some(format!(" {};", problem.statement.as_ref()?)))
        .collect();
    let advice = check.advice.to_owned() + &statements.concat();
    if problems.iter().any(|problem| problem.fails) {
        Finding::fail(check.subject, found, advice)
    } else {
        Finding::warn(check.subject, found, advice)
    }
}

fn list<T>(items: impl IntoIterator<Item = T>, text: impl FnMut(T) -> String) -> String {
    let texts: Vec<_> = items.into_iter().map(text).collect();
    texts.join("; ")
}
