//! `/readyz`: what readiness depends on is looked up here, and decided on in `readiness.rs`.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hyper::header::ACCEPT;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::Mutex;

use super::OpsState;
use super::auth::Authenticated;
use super::fleet::tried;
use super::readiness::{Database, Seen, report, seconds, text};
use crate::error_text::database_error_text;
use crate::outbox::{AsideWorker, LaneState, Outbox, SchemaError};
use crate::worker::{Liveness, Stuck};

/// How old a look at the database may be.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long the database may take for it.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// An answer to the worker itself that is no older says that the database is there, too: where it has no connection
/// left for those who look on, the worker still has its own.
const RECENT: Duration = Duration::from_secs(5);

/// What the database said last, and when that was.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<(Instant, Database)>>);

/// `GET /readyz`. Probes need no token; without it, they are not told what errors say.
pub(super) async fn readyz(
    State(state): State<OpsState>,
    authenticated: Option<Extension<Authenticated>>,
    headers: HeaderMap,
) -> Response {
    let database = state.health.database(&state).await;
    // Who is not answered is not asked twice.
    let notes = if database == Database::There {
        notes(&state).await
    } else {
        Vec::new()
    };
    let seen = Seen {
        is_ending: state.shutdown.is_cancelled(),
        database,
        lanes: lanes(&state.liveness),
        behind_for: state
            .liveness
            .recorder_lagging_since()
            .map(|since| since.elapsed()),
    };
    let mut report = report(seen, notes);
    if authenticated.is_none() {
        report.leave_out_details();
    }
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let wants_json = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if wants_json {
        (status, Json(report)).into_response()
    } else {
        (status, text(&report)).into_response()
    }
}

impl Health {
    async fn database(&self, state: &OpsState) -> Database {
        let Some(outbox) = state.outbox.get() else {
            return Database::NotYet(state.waiting_for.why());
        };
        let mut last = self.0.lock().await;
        if let Some((at, database)) = &*last
            && at.elapsed() < FRESH_FOR
        {
            return database.clone();
        }
        let database = look(outbox).await;
        *last = Some((Instant::now(), database.clone()));
        database
    }
}

/// Whether the worker itself has been answered a moment ago.
pub(super) fn has_responded_lately(outbox: &Outbox) -> bool {
    outbox
        .last_response_at()
        .is_some_and(|at| at.elapsed() < RECENT)
}

async fn look(outbox: &Outbox) -> Database {
    let why = match tokio::time::timeout(RESPONSE_TIMEOUT, tried(|| outbox.check_objects())).await {
        Ok(Ok(_)) => return Database::There,
        Ok(Err(SchemaError::Database(error))) => {
            let advice = outbox.login_advice(&error);
            let texts = [Some(database_error_text(&error)), advice];
            texts.into_iter().flatten().collect::<Vec<_>>().join(": ")
        }
        Ok(Err(error)) => return Database::Unmigrated(error.to_string()),
        Err(_) => format!("no answer within {}", seconds(RESPONSE_TIMEOUT)),
    };
    if has_responded_lately(outbox) {
        Database::AnswersWorker
    } else {
        Database::Away(why)
    }
}

fn lanes(liveness: &Liveness) -> Option<Vec<(String, Option<Stuck>)>> {
    let lanes = liveness.lanes()?.iter();
    Some(
        lanes
            .map(|lane| (lane.app.clone(), lane.heartbeat.stuck()))
            .collect(),
    )
}

/// What is the matter with this process's apps, by no fault of it.
async fn notes(state: &OpsState) -> Vec<String> {
    let (Some(outbox), Some(lanes)) = (state.outbox.get(), state.liveness.lanes()) else {
        return Vec::new();
    };
    let Some(apps) = state.fleet.lanes(outbox).await else {
        return Vec::new();
    };
    apps.iter()
        .filter(|app| lanes.iter().any(|lane| lane.app == app.app))
        .filter_map(|app| Some((app.app.as_str(), app.lane.as_ref()?)))
        .flat_map(|(app, lane)| {
            let says = match lane.state() {
                // This worker serves the app, and is about to report that it is alive.
                LaneState::NoWorker | LaneState::Sending => None,
                LaneState::OtherEnvironment => Some(
                    "of another environment than its workers: they refuse it, see `worker status`",
                ),
                LaneState::Slowed => Some("slowed by a 429"),
                LaneState::Waiting => Some("waiting, as the API asked"),
                LaneState::Paused => Some("paused by a person"),
                LaneState::Unauthorized => Some("unauthorized: the API refuses its credentials"),
                LaneState::Unavailable => {
                    Some("unavailable: the API can't be reached, or answers with errors")
                }
            };
            let state = says.map(|says| format!("the app {app} is {says}"));
            let aside = lane.workers.aside.iter().map(move |worker| {
                let AsideWorker {
                    name,
                    since,
                    reason,
                } = worker;
                format!(
                    "the worker {name} has stepped aside from the app {app} since {since}: {reason}"
                )
            });
            state.into_iter().chain(aside)
        })
        .collect()
}
