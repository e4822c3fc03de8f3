//! The dashboard, for an operator who wants to know how fast messages are sent, which fail and why, and what to do.
//!
//! Each page is a handler that queries the [`Outbox`] and renders the rows with `maud`, which escapes all texts. Pages
//! work without script: the script only refreshes them. Each change is a POST of a form that says what will happen.

mod actions;
mod assets;
mod error;
mod failures;
mod flash;
mod format;
mod layout;
mod message;
mod messages;
mod overview;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::OpsState;
use crate::outbox::Outbox;
use error::PageError;

pub(crate) fn routes() -> Router<OpsState> {
    Router::new()
        .route("/", get(overview::show))
        .route("/messages", get(messages::show))
        .route("/messages/{id}", get(message::show))
        .route("/failures", get(failures::show))
        .route("/actions/{action}", get(actions::ask).post(actions::act))
        .merge(assets::routes())
}

fn outbox(state: &OpsState) -> Result<&Arc<Outbox>, PageError> {
    state.outbox.get().ok_or(PageError::NotReached)
}
