//! The dashboard: pages that the server renders.

use axum::Router;

use super::OpsState;

/// The pages, and what they need.
pub fn routes() -> Router<OpsState> {
    Router::new()
}
