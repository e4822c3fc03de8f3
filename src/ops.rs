//! The ops server: health, metrics and the dashboard, for operators and monitoring. It starts before the worker has
//! reached the database, and serves until the worker has recorded its last message.

mod auth;
mod cached;
mod dashboard;
mod health;
mod metrics;
mod server;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use maud::Markup;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::outbox::Outbox;
use crate::worker::OpenLanes;
use auth::OpsToken;
use cached::Cached;
pub(crate) use server::{OpsArgs, OpsServer};

const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Default)]
pub(crate) struct OpsState {
    /// Empty until the worker has reached the database.
    pub(crate) outbox: Arc<OnceLock<Arc<Outbox>>>,
    pub(crate) lanes: Arc<OpenLanes>,
    pub(crate) shutdown: CancellationToken,
    /// Why a worker that starts still waits for its database.
    pub(crate) waiting_for: Arc<Mutex<Option<String>>>,
    checks: Arc<Cached<[health::Check; 2]>>,
    fleet_metrics: Arc<Cached<String>>,
    overview: Arc<Cached<Result<Markup, dashboard::PageError>>>,
    token: Option<Arc<OpsToken>>,
    metrics: Option<PrometheusHandle>,
}

pub(crate) fn router(state: OpsState) -> Router {
    let token = state.token.clone();
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .merge(dashboard::routes())
        .with_state(state)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        // A layer of the whole router also covers paths without a route.
        .layer(from_fn_with_state(token, auth::authenticate))
}
