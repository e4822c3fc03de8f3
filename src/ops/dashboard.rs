//! The dashboard: pages that the server renders, for a person who wants to know whether messages go out, how fast, what
//! fails and why, and who may have to step in.
//!
//! A page is a handler that asks the [`Outbox`] and renders the answer with `maud`, which escapes what it prints. It
//! works without script; the script only fetches the same page again. What changes something is a form of its own,
//! which says what will happen, and a POST.

mod actions;
mod assets;
mod chart;
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
use axum::extract::DefaultBodyLimit;
use axum::routing::get;

use super::OpsState;
use crate::outbox::Outbox;
use error::PageError;

/// The most bytes of a form.
const MAX_FORM_BYTES: usize = 16 * 1024;

/// The pages, and what they need.
pub(crate) fn routes() -> Router<OpsState> {
    Router::new()
        .route("/", get(overview::show))
        .route("/messages", get(messages::show))
        .route("/messages/{id}", get(message::show))
        .route("/failures", get(failures::show))
        .merge(actions::routes())
        .merge(assets::routes())
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
}

/// The database, once it has been reached.
fn outbox(state: &OpsState) -> Result<&Arc<Outbox>, PageError> {
    state.outbox.get().ok_or(PageError::NotReached)
}
