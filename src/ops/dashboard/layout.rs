//! The frame around each page, and the page of a request that failed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::format;
use crate::error_text::database_error_text;
use crate::outbox::AdminError;

const REFRESH_EVERY_S: u32 = 3;
const TABS: [(&str, &str); 3] = [
    ("/", "Overview"),
    ("/messages", "Messages"),
    ("/failures", "Failures"),
];

/// The page, under one of the tabs or none. With `refreshes`, the script fetches `live` again every few seconds. The script
/// never replaces `fixed`, because a refresh must not take a form from under an operator.
pub(super) fn page(
    title: &str,
    tab: &str,
    refreshes: bool,
    fixed: &Markup,
    live: &Markup,
) -> Response {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · worker" }
                link rel="stylesheet" href="/assets/dashboard.css";
                link rel="icon" type="image/svg+xml" href="/assets/icon.svg";
                script src="/assets/dashboard.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "worker" }
                    nav aria-label="Pages" {
                        ul {
                            @for (path, name) in TABS {
                                li { a href=(path) aria-current=[(tab == path).then_some("page")] { (name) } }
                            }
                        }
                    }
                    p #contact role="status" {}
                }
                main #main tabindex="-1" {
                    (fixed)
                    div #live data-every-s=[refreshes.then_some(REFRESH_EVERY_S)] { (live) }
                }
            }
        }
    }
    .into_response()
}

/// The page of a request that failed, with the error.
#[derive(Debug, Clone)]
pub(in crate::ops) struct PageError(pub(super) StatusCode, pub(super) String);

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        let text = format!("the database failed: {}", database_error_text(&error));
        Self(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

impl From<AdminError> for PageError {
    fn from(error: AdminError) -> Self {
        let status = match error {
            AdminError::Refused(_) | AdminError::Forbidden(_) => StatusCode::BAD_REQUEST,
            AdminError::Database(_) | AdminError::Unknown(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let Self(status, text) = self;
        let title = match status {
            StatusCode::SERVICE_UNAVAILABLE => "The database is unavailable",
            StatusCode::INTERNAL_SERVER_ERROR => "Not confirmed",
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::CONFLICT => "Nothing was changed",
            _ => "The request was refused",
        };
        // Only for pages that a GET asks for. A refresh of an action's address would ask for a page that does not exist.
        let refreshes = status == StatusCode::SERVICE_UNAVAILABLE;
        let content = html! {
            h1 { (title) }
            section.panel {
                p { (format::sentence(&text)) }
                @if refreshes { p { "This page tries again by itself." } }
                @else { p { a href="/" { "Go to the overview" } } }
            }
        };
        let page = page(title, "", refreshes, &html! {}, &content);
        (status, page).into_response()
    }
}
