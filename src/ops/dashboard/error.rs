//! Pages for what can't be shown or done.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::layout::{Layout, Section};
use crate::error_text::database_error_text;
use crate::outbox::AdminError;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// The database has not been reached since this process started.
    #[error("the database has not been reached yet")]
    NotReached,
    #[error("the database failed: {}", database_error_text(.0))]
    Database(Arc<sqlx::Error>),
    /// What was asked for is not done, or nobody knows whether it is.
    #[error("{0}")]
    NotDone(AdminError),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// What was asked for makes no sense: what would.
    #[error("{0}")]
    Wrong(String),
}

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<AdminError> for PageError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Refused(_) => Self::Wrong(error.to_string()),
            AdminError::Database(_) | AdminError::Unknown(_) => Self::NotDone(error),
        }
    }
}

impl PageError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotReached | Self::Database(_) | Self::NotDone(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let waits = matches!(self, Self::NotReached | Self::Database(_));
        let title = match self {
            Self::NotReached => "Waiting for the database",
            Self::Database(_) => "The database can't be asked",
            Self::NotDone(AdminError::Unknown(_)) => "Done, or not",
            Self::NotDone(_) => "Not done",
            Self::Missing(_) => "Not found",
            Self::Wrong(_) => "That does not work",
        };
        let layout = Layout {
            title,
            section: Section::None,
            refreshes: waits,
        };
        let content = html! {
            h1 { (title) }
            section.panel {
                p { (sentence(&self.to_string())) }
                @if waits {
                    p { "The worker keeps trying. This page shows what is there as soon as the database answers." }
                } @else {
                    p { a href="/" { "Go to the overview" } }
                }
            }
        };
        (self.status(), layout.page(&html! {}, &content)).into_response()
    }
}

/// The same with a capital at its beginning and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    let end = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    format!("{}{}{end}", first.unwrap_or_default(), chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_a_sentence() {
        assert_eq!(sentence("there is no app 'x'"), "There is no app 'x'.");
        assert_eq!(sentence("Why?"), "Why?");
        assert_eq!(sentence(""), ".");
    }
}
