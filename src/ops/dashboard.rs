//! The dashboard, for an operator who wants to know how fast messages are sent, which fail and why, and what to do.
//!
//! Each page is a handler that queries the [`Outbox`] and renders the rows with `maud`, which escapes all texts. Pages
//! work without script: the script only refreshes them. Each change is a POST of a form that says what will happen.

mod actions;
mod failures;
mod format;
mod layout;
mod message;
mod messages;
mod overview;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{get, post};

use super::OpsState;
use crate::outbox::Outbox;
use layout::PageError;

const ASSETS: [(&str, &str, &str); 3] = [
    (
        "/assets/dashboard.css",
        "text/css; charset=utf-8",
        include_str!("dashboard/assets/dashboard.css"),
    ),
    (
        "/assets/dashboard.js",
        "text/javascript; charset=utf-8",
        include_str!("dashboard/assets/dashboard.js"),
    ),
    (
        "/assets/icon.svg",
        "image/svg+xml",
        include_str!("dashboard/assets/icon.svg"),
    ),
];

pub(crate) fn routes() -> Router<OpsState> {
    let mut router = Router::new()
        .route("/", get(overview::show))
        .route("/messages", get(messages::show))
        .route("/messages/{id}", get(message::show))
        .route("/failures", get(failures::show))
        .route("/actions/pause", post(actions::pause))
        .route("/actions/resume", post(actions::resume))
        .route("/actions/limit", post(actions::limit))
        .route("/actions/cancel", post(actions::cancel))
        .route("/actions/retry", post(actions::retry))
        .route("/actions/retry-group", post(actions::retry_group));
    for (path, content_type, content) in ASSETS {
        router = router.route(path, get(([(CONTENT_TYPE, content_type)], content)));
    }
    router
}

fn outbox(state: &OpsState) -> Result<&Arc<Outbox>, PageError> {
    let error = "this worker has not reached the database yet";
    let outbox = state.outbox.get();
    outbox.ok_or_else(|| PageError(StatusCode::SERVICE_UNAVAILABLE, error.into()))
}
