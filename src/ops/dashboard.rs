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
pub(super) use layout::PageError;

const STYLE: &str = include_str!("dashboard/assets/dashboard.css");
const SCRIPT: &str = include_str!("dashboard/assets/dashboard.js");
const ICON: &str = include_str!("dashboard/assets/icon.svg");

pub(crate) fn routes() -> Router<OpsState> {
    let asset = |content_type: &'static str, content: &'static str| {
        get(([(CONTENT_TYPE, content_type)], content))
    };
    let style = asset("text/css; charset=utf-8", STYLE);
    let script = asset("text/javascript; charset=utf-8", SCRIPT);
    Router::new()
        .route("/", get(overview::show))
        .route("/messages", get(messages::show))
        .route("/messages/{id}", get(message::show))
        .route("/failures", get(failures::show))
        .route("/actions/{action}", post(actions::act))
        .route("/assets/dashboard.css", style)
        .route("/assets/dashboard.js", script)
        .route("/assets/icon.svg", asset("image/svg+xml", ICON))
}

fn outbox(state: &OpsState) -> Result<&Arc<Outbox>, PageError> {
    let error = "this worker has not reached the database yet";
    let outbox = state.outbox.get();
    outbox.ok_or_else(|| PageError(StatusCode::SERVICE_UNAVAILABLE, error.into()))
}
