//! The page of a request that failed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;

use super::{format, layout};
use crate::error_text::database_error_text;
use crate::outbox::AdminError;

#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    #[error("this worker has not reached the database yet")]
    NotReached,
    #[error("the database failed: {0}")]
    Database(String),
    /// The database did not confirm a change.
    #[error("{0}")]
    NotDone(AdminError),
    #[error("{0}")]
    NotFound(String),
    /// The operator has asked for something impossible. The text says how to correct the request.
    #[error("{0}")]
    BadRequest(String),
}

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(database_error_text(&error))
    }
}

impl From<AdminError> for PageError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Refused(_) | AdminError::Forbidden(_) => {
                Self::BadRequest(error.to_string())
            }
            AdminError::Database(_) | AdminError::Unknown(_) => Self::NotDone(error),
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let (status, title) = match &self {
            Self::NotReached => (unavailable, "Waiting for the database"),
            Self::Database(_) => (unavailable, "The database is unavailable"),
            Self::NotDone(AdminError::Unknown(_)) => (unavailable, "Done, or not"),
            Self::NotDone(_) => (unavailable, "Not done"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "Not found"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "That does not work"),
        };
        let refreshes = matches!(self, Self::NotReached | Self::Database(_));
        let content = html! {
            h1 { (title) }
            section.panel {
                p { (format::sentence(&self.to_string())) }
                @if refreshes {
                    p { "The worker tries again. This page appears as soon as the database responds." }
                } @else {
                    p { a href="/" { "Go to the overview" } }
                }
            }
        };
        let page = layout::page(title, "", refreshes, &html! {}, &content);
        (status, page).into_response()
    }
}
