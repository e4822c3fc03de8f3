//! The control API under `/_simulator/`: reads the ledger and replaces the fault rules over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};

use super::api::ApiState;
use super::ledger::{Call, Summary};

const MAX_LISTED_CALLS: u64 = 1_000;

const HELP: &str = "\
The simulated Signaling API.

GET /_simulator/ledger  totals: calls, statuses, duplicates, the fullest second
GET /_simulator/calls   the last 1000 calls
PUT /_simulator/faults  replace the fault rules, one on each line, such as
                        500:share=0.01
                        slow=250ms:destination=slow-
";

pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route("/_simulator/", get(HELP))
        .route("/_simulator/ledger", get(summary))
        .route("/_simulator/calls", get(calls))
        .route("/_simulator/faults", put(set_faults))
}

async fn summary(State(api): State<Arc<ApiState>>) -> Json<Summary> {
    Json(api.ledger.summary())
}

async fn calls(State(api): State<Arc<ApiState>>) -> Json<Vec<Call>> {
    let received = api.ledger.summary().calls;
    let unlisted = received.saturating_sub(MAX_LISTED_CALLS);
    Json(api.ledger.calls_after(unlisted))
}

async fn set_faults(
    State(api): State<Arc<ApiState>>,
    rules: String,
) -> Result<StatusCode, (StatusCode, String)> {
    let rules = rules
        .lines()
        .map(str::parse)
        .collect::<anyhow::Result<_>>()
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}\n")))?;
    *api.faults.lock() = rules;
    Ok(StatusCode::NO_CONTENT)
}
