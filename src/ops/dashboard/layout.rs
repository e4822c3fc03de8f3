//! The frame around each page, the notice of an action, and the page of a request that failed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

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

/// The notice of a finished action, on the page after it. The URL names the notice and does not contain its text,
/// because anyone can make up a link.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Flash {
    done: String,
    /// The number of messages that the action has changed.
    n: u64,
}

const NOTICES: [(&str, &str); 6] = [
    (
        "paused",
        "Paused. Calls in flight are finished. No other call starts until an operator resumes the app.",
    ),
    (
        "already-paused",
        "The app was paused already. Its sentence below names the operator.",
    ),
    (
        "resumed",
        "Resumed. The app's sentence below names any other obstacle.",
    ),
    ("limited", "The new limit holds on all hosts."),
    ("cancelled", "Cancelled."),
    (
        "not-cancelled",
        "Not cancelled: a worker sends the message now, or the message is finished.",
    ),
];

impl Flash {
    pub(super) fn markup(&self) -> Markup {
        let notice = NOTICES.iter().find(|(done, _)| *done == self.done);
        html! {
            @if let Some((_, text)) = notice {
                p.notice role="status" { (text) }
            } @else if self.done == "retried" {
                p.notice role="status" { (format::messages(self.n)) " will be sent again." }
            }
        }
    }
}

/// The page of a request that failed.
#[derive(Debug)]
pub(super) struct PageError {
    status: StatusCode,
    title: &'static str,
    text: String,
    /// The page appears by itself, as soon as the database responds.
    refreshes: bool,
}

impl PageError {
    fn new(status: StatusCode, title: &'static str, text: String) -> Self {
        Self {
            status,
            title,
            text,
            refreshes: false,
        }
    }

    pub(super) fn unavailable(text: String) -> Self {
        let title = "The database is unavailable";
        Self {
            refreshes: true,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, text)
        }
    }

    pub(super) fn not_found(text: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", text)
    }

    /// The text says how to correct the request.
    pub(super) fn bad_request(text: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "That does not work", text)
    }
}

impl From<sqlx::Error> for PageError {
    fn from(error: sqlx::Error) -> Self {
        let error = database_error_text(&error);
        Self::unavailable(format!("the database failed: {error}"))
    }
}

impl From<AdminError> for PageError {
    fn from(error: AdminError) -> Self {
        let text = error.to_string();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match error {
            AdminError::Refused(_) | AdminError::Forbidden(_) => Self::bad_request(text),
            AdminError::Database(_) => Self::new(unavailable, "Not done", text),
            AdminError::Unknown(_) => Self::new(unavailable, "Done, or not", text),
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let content = html! {
            h1 { (self.title) }
            section.panel {
                p { (format::sentence(&self.text)) }
                @if self.refreshes {
                    p { "The worker tries again. This page appears as soon as the database responds." }
                } @else {
                    p { a href="/" { "Go to the overview" } }
                }
            }
        };
        let page = page(self.title, "", self.refreshes, &html! {}, &content);
        (self.status, page).into_response()
    }
}
