//! The ops server: health, metrics and the dashboard, for operators and monitoring. It starts before the worker has
//! reached the database, and serves until the worker has recorded its last message.

mod auth;
mod connection_limit;
mod dashboard;
mod fleet;
mod health;
mod metrics;
mod server;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::outbox::Outbox;
use crate::worker::Liveness;
pub(crate) use auth::Access;
use fleet::Fleet;
use health::DatabaseChecks;
use metrics::Metrics;
pub(crate) use server::{OpsError, OpsServer};

const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Default)]
pub(crate) struct OpsState {
    /// Empty until the worker has reached the database.
    pub(crate) outbox: Arc<OnceLock<Arc<Outbox>>>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) waiting_for: Waiting,
    pub(crate) access: Access,
    database_checks: Arc<DatabaseChecks>,
    fleet: Arc<Fleet>,
    metrics: Option<Arc<Metrics>>,
}

/// Why a worker that starts still waits for its database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Option<String>>>);

impl Waiting {
    pub(crate) fn because(&self, why: String) {
        *self.0.lock() = Some(why);
    }

    fn why(&self) -> Option<String> {
        let why = self.0.lock();
        why.clone()
    }
}

pub(crate) fn router(state: OpsState) -> Router {
    let access = state.access.clone();
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .merge(auth::routes())
        .merge(dashboard::routes())
        .with_state(state)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        // A layer of the whole router also covers paths without a route.
        .layer(from_fn_with_state(access, auth::authenticate))
}
