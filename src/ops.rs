//! The ops server: health, metrics and the dashboard, for the people and programs that look after the worker. It is
//! there before the database is, and until the last message is recorded.

mod auth;
mod connection_limit;
mod dashboard;
mod fleet;
mod health;
mod metrics;
mod readiness;
mod server;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::outbox::Outbox;
use crate::worker::Liveness;
pub(crate) use auth::Access;
use fleet::Fleet;
use health::Health;
use metrics::Metrics;
pub(crate) use server::{OpsError, OpsServer, OpsSettings};

#[derive(Debug, Clone, Default)]
pub(crate) struct OpsState {
    /// The database, as soon as it has been reached for the first time.
    pub(crate) outbox: Arc<OnceLock<Arc<Outbox>>>,
    /// What the worker shows of itself.
    pub(crate) liveness: Arc<Liveness>,
    /// Cancelled when the worker begins to end.
    pub(crate) shutdown: CancellationToken,
    /// Why the database can't be used yet.
    pub(crate) waiting_for: Waiting,
    pub(crate) access: Access,
    health: Arc<Health>,
    fleet: Arc<Fleet>,
    metrics: Option<Arc<Metrics>>,
}

/// What a worker that starts waits for, in a sentence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Option<String>>>);

impl Waiting {
    /// It waits, because of this.
    pub(crate) fn because(&self, why: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    fn why(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Everything that is served, behind the guard.
pub(crate) fn router(state: OpsState) -> Router {
    let auth = auth::Auth::new(state.access.clone());
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .merge(auth::routes())
        .merge(dashboard::routes())
        .with_state(state)
        // Outermost, so that it also stands before what does not exist.
        .layer(from_fn_with_state(auth, auth::authenticate))
}
