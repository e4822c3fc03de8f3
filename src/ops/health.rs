//! Readiness: whether this process can send messages, and if not, why.
//!
//! A pause of an app and an outage of the API are notes and no failed checks, because another process could not send
//! the app's messages either.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hyper::header::ACCEPT;
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;

use super::OpsState;
use super::auth::Authenticated;
use super::fleet::{Cached, with_retries};
use crate::error_text::database_error_text;
use crate::outbox::{AppLane, AsideWorker, LaneState, Outbox, SchemaError};
use crate::sanitize;
use crate::worker::{Lane, Liveness, Stuck};

const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);
/// The worker has connections of its own. A response to them that is no older shows that the database is available,
/// although the monitoring pool may have no free connection.
const RECENT: Duration = Duration::from_secs(5);
const MAX_RECORDER_LAG: Duration = Duration::from_secs(5);
const MAX_DETAIL_CHARS: usize = 300;

/// The last checks of the database and of its schema.
pub(super) type DatabaseChecks = Cached<[Check; 2]>;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    checks: Vec<Check>,
    notes: Vec<String>,
}

/// `GET /readyz`. A probe needs no token. Without one the response omits the details, because errors name hosts, users
/// and apps.
pub(super) async fn readyz(
    State(state): State<OpsState>,
    authenticated: Option<Extension<Authenticated>>,
    headers: HeaderMap,
) -> Response {
    // One after the other, they would exceed the timeout of a probe during an outage.
    let (database, notes) = tokio::join!(database_checks(&state), notes(&state));
    let mut report = report(&state, database, notes);
    if authenticated.is_none() {
        report.omit_details();
    }
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        (status, Json(report)).into_response()
    } else {
        (status, report.text()).into_response()
    }
}

impl Report {
    fn omit_details(&mut self) {
        for check in &mut self.checks {
            let detail = if check.ok {
                "ok"
            } else {
                "failed. The details need the token"
            };
            check.detail = detail.into();
        }
        self.notes.clear();
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Check { name, ok, detail } in &self.checks {
            let result = if *ok { "ok  " } else { "FAIL" };
            writeln!(text, "{result} {name}: {detail}").ok();
        }
        for note in &self.notes {
            writeln!(text, "note {note}").ok();
        }
        text
    }
}

/// True if the database has responded to the worker's own connections a moment ago.
pub(super) fn has_responded_lately(outbox: &Outbox) -> bool {
    let last = outbox.last_response_at();
    last.is_some_and(|at| at.elapsed() < RECENT)
}

fn check(name: &'static str, result: Result<&str, String>) -> Check {
    let ok = result.is_ok();
    let detail = result.map_or_else(|error| error, str::to_owned);
    Check {
        name,
        ok,
        detail: sanitize::text(&detail, MAX_DETAIL_CHARS),
    }
}

async fn database_checks(state: &OpsState) -> [Check; 2] {
    let Some(outbox) = state.outbox.get() else {
        let why = state.waiting_for.why().map(|why| format!(": {why}"));
        let database = format!("not reached yet{}", why.unwrap_or_default());
        let schema = "not checked yet".into();
        return [
            check("database", Err(database)),
            check("schema", Err(schema)),
        ];
    };
    state.database_checks.get_or(query_database(outbox)).await
}

async fn query_database(outbox: &Outbox) -> [Check; 2] {
    let unavailable = |why: String| {
        if has_responded_lately(outbox) {
            Ok("available to the worker, without a free connection for this check")
        } else {
            Err(format!("unavailable: {why}"))
        }
    };
    let last_schema = Ok("up to date at the last check");
    let checking = with_retries(|| outbox.check_objects());
    let (database, schema) = match tokio::time::timeout(DATABASE_TIMEOUT, checking).await {
        Ok(Ok(_)) => (Ok("available"), Ok("all migrations have run")),
        Ok(Err(SchemaError::Database(error))) => {
            let advice = outbox
                .login_advice(&error)
                .map(|advice| format!(": {advice}"));
            let error = database_error_text(&error) + &advice.unwrap_or_default();
            (unavailable(error), last_schema)
        }
        Ok(Err(error)) => (Ok("available"), Err(error.to_string())),
        Err(_) => (unavailable("no response within 3 s".into()), last_schema),
    };
    [check("database", database), check("schema", schema)]
}

fn report(state: &OpsState, database: [Check; 2], notes: Vec<String>) -> Report {
    let process = if state.shutdown.is_cancelled() {
        Err(
            "shutting down: the worker claims no more messages, and finishes those in flight"
                .into(),
        )
    } else {
        Ok("running")
    };
    let lagging_since = state.liveness.recorder_lagging_since();
    let lag = lagging_since.map(|since| since.elapsed());
    let mut checks = vec![check("process", process)];
    checks.extend(database);
    checks.push(check("recorder", recorder(lag)));
    checks.push(lanes(&state.liveness, lag.is_some()));
    Report {
        ready: checks.iter().all(|check| check.ok),
        checks,
        notes,
    }
}

fn recorder(lag: Option<Duration>) -> Result<&'static str, String> {
    match lag.filter(|lag| *lag > MAX_RECORDER_LAG) {
        None => Ok("saves results"),
        Some(lag) => {
            let lag_s = lag.as_secs();
            Err(format!(
                "has saved no result for {lag_s} s, so the lanes claim no more messages"
            ))
        }
    }
}

fn lanes(liveness: &Liveness, wait_for_recorder: bool) -> Check {
    let result = match liveness.lanes() {
        None => Err("not open yet".into()),
        Some(_) if wait_for_recorder => Ok("waiting for the recorder"),
        Some(lanes) => {
            let stuck = |lane: &Arc<Lane>| Some((lane.app.clone(), lane.heartbeat.stuck()?));
            stuck_lanes(&lanes.iter().filter_map(stuck).collect::<Vec<_>>())
        }
    };
    check("lanes", result)
}

fn stuck_lanes(stuck: &[(String, Stuck)]) -> Result<&'static str, String> {
    let Some((app, first)) = stuck.first() else {
        return Ok("all make progress");
    };
    let mut detail = format!(
        "no progress of the app {app} for {} s",
        first.silent_for.as_secs()
    );
    if let Some(error) = &first.error {
        detail = format!("{detail}: {error}");
    }
    let others = stuck.len() - 1;
    if others > 0 {
        detail = format!("{detail}; no progress of {others} others");
    }
    Err(detail)
}

/// Notes about the apps that this process serves.
async fn notes(state: &OpsState) -> Vec<String> {
    let (Some(outbox), Some(served)) = (state.outbox.get(), state.liveness.lanes()) else {
        return Vec::new();
    };
    let apps = state.fleet.lanes(outbox).await;
    let mut notes = Vec::new();
    for AppLane { app, lane, .. } in apps.as_deref().unwrap_or_default() {
        let is_served = served.iter().any(|lane| lane.app == *app);
        let Some(lane) = lane.as_ref().filter(|_| is_served) else {
            continue;
        };
        notes.extend(note(lane.state()).map(|note| format!("the app {app} is {note}")));
        for AsideWorker {
            name,
            since,
            reason,
        } in &lane.workers.aside
        {
            notes.push(format!(
                "the worker {name} has stepped aside from the app {app} since {since}: {reason}"
            ));
        }
    }
    notes
}

fn note(state: LaneState) -> Option<&'static str> {
    Some(match state {
        // This worker serves the app, and is about to report so.
        LaneState::NoWorker | LaneState::Sending => return None,
        LaneState::OtherEnvironment => {
            "of another environment than its workers, which refuse the app: see `worker status`"
        }
        LaneState::Slowed => "slowed by a 429",
        LaneState::Waiting => "waiting, as the API has asked",
        LaneState::Paused => "paused by an operator",
        LaneState::Unauthorized => "unauthorized: the API refuses its credentials",
        LaneState::Unavailable => "unavailable: the API fails or can't be reached",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_may_lag_for_a_moment() {
        assert!(recorder(None).is_ok() && recorder(Some(Duration::from_secs(4))).is_ok());
        let lagging = recorder(Some(Duration::from_secs(6))).expect_err("too long");
        assert!(lagging.contains("no result for 6 s"), "{lagging}");
    }

    #[test]
    fn the_first_stuck_lane_is_named_with_its_error() {
        let stuck = |app: &str| {
            let error = Some("refused".to_owned());
            let silent_for = Duration::from_secs(70);
            (app.to_owned(), Stuck { silent_for, error })
        };
        assert!(stuck_lanes(&[]).is_ok());
        assert_eq!(
            stuck_lanes(&[stuck("one"), stuck("two")]).expect_err("stuck"),
            "no progress of the app one for 70 s: refused; no progress of 1 others"
        );
    }
}
