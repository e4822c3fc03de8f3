//! The ops server: health, metrics and the dashboard, for the people and programs that look after the worker.

pub mod pages;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::routing::get;

use crate::outbox::Outbox;

/// What the handlers share.
#[derive(Debug, Clone, Default)]
pub struct OpsState {
    /// The database, as soon as it has been reached for the first time.
    pub outbox: Arc<OnceLock<Arc<Outbox>>>,
}

/// Everything that is served.
pub fn router(state: OpsState) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .merge(pages::routes())
        .with_state(state)
}
