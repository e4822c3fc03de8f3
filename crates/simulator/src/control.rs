//! The control API under `/_simulator/`: reads the ledger and replaces the fault rules over HTTP.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;

use super::api::ApiState;
use super::ledger::{Call, Summary};

const MAX_LISTED_CALLS: usize = 1_000;

const HELP: &str = "\
The simulated Signaling API.

GET /_simulator/ledger           totals: calls, statuses, duplicates, the fullest second
GET /_simulator/calls?after=SEQ  at most 1000 calls after number SEQ (0)
PUT /_simulator/faults           replace the fault rules, one on each line, such as
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: u64,
}

async fn calls(State(api): State<Arc<ApiState>>, Query(page): Query<Page>) -> Json<Vec<Call>> {
    Json(api.ledger.calls_after(page.after, MAX_LISTED_CALLS))
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
