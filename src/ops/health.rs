//! Readiness: whether this process can send messages, and if not, why. A pause of an app and an outage of the API fail no
//! check, because another process could not send the app's messages either.

use std::fmt::Write as _;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use hyper::StatusCode;

use super::OpsState;
use super::auth::Authenticated;
use crate::error_text::database_error_text;
use crate::outbox::{Outbox, SchemaError};
use crate::sanitize;
use crate::worker::OpenLanes;

/// Less than the `timeoutSeconds` of the readiness probe in `docker/kubernetes/worker.yaml`.
pub(super) const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);
/// A response within this time on the worker's other connections shows that the database is available, even if the monitoring
/// pool has no free connection.
const RECENT: Duration = Duration::from_secs(5);
const MAX_RECORDER_LAG: Duration = Duration::from_secs(5);
const MAX_DETAIL_CHARS: usize = 300;

pub(super) type Check = Result<&'static str, String>;

/// `GET /readyz`. A probe needs no token. Without one the response omits the details, because errors name hosts, users
/// and apps.
pub(super) async fn readyz(
    State(state): State<OpsState>,
    Extension(Authenticated(is_authenticated)): Extension<Authenticated>,
) -> (StatusCode, String) {
    let lane = state.lanes.get().and_then(|lanes| lanes.first());
    let lag = lane.and_then(|lane| lane.recorder_lag());
    let process = if state.shutdown.is_cancelled() {
        Err("shutting down: the worker claims no more messages".into())
    } else {
        Ok("running")
    };
    let [database, schema] = database_checks(&state).await;
    let (mut status, mut text) = (StatusCode::OK, String::new());
    for (name, check) in [
        ("process", process),
        ("database", database),
        ("schema", schema),
        ("recorder", recorder(lag)),
        ("lanes", lanes(&state.lanes, lag.is_some())),
    ] {
        if check.is_err() {
            status = StatusCode::SERVICE_UNAVAILABLE;
        }
        let result = if check.is_ok() { "ok  " } else { "FAIL" };
        let detail = match check {
            check if is_authenticated => check.map_or_else(|error| error, str::to_owned),
            Ok(_) => "ok".into(),
            Err(_) => "failed. The details need the token".into(),
        };
        let detail = sanitize::text(&detail, MAX_DETAIL_CHARS);
        writeln!(text, "{result} {name}: {detail}").ok();
    }
    (status, text)
}

/// True if the database has just responded on the worker's other connections.
pub(super) fn has_responded_lately(outbox: &Outbox) -> bool {
    let last = outbox.last_response_at();
    last.is_some_and(|at| at.elapsed() < RECENT)
}

async fn database_checks(state: &OpsState) -> [Check; 2] {
    let Some(outbox) = state.outbox.get() else {
        let why = state.waiting_for.lock().clone();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let database = format!("not reached yet{why}");
        return [Err(database), Err("not checked yet".into())];
    };
    // Without the cache, a stranger's requests would keep the database busy, because they need no token.
    state.checks.get_or(query_database(outbox)).await
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
    match tokio::time::timeout(DATABASE_TIMEOUT, outbox.check_objects()).await {
        Ok(Ok(_)) => [Ok("available"), Ok("all migrations have run")],
        Ok(Err(SchemaError::Database(error))) => {
            [unavailable(database_error_text(&error)), last_schema]
        }
        Ok(Err(error)) => [Ok("available"), Err(error.to_string())],
        Err(_) => [
            unavailable(format!("no response within {DATABASE_TIMEOUT:?}")),
            last_schema,
        ],
    }
}

fn recorder(lag: Option<Duration>) -> Check {
    match lag.filter(|lag| *lag > MAX_RECORDER_LAG) {
        None => Ok("records outcomes"),
        Some(lag) => Err(format!(
            "has recorded no outcome for {} s, so the lanes claim no more messages",
            lag.as_secs()
        )),
    }
}

fn lanes(open: &OpenLanes, wait_for_recorder: bool) -> Check {
    let lanes = open.get().ok_or("not open yet")?;
    if wait_for_recorder {
        return Ok("waiting for the recorder");
    }
    let mut stuck = lanes
        .iter()
        .filter_map(|lane| Some((&lane.app, lane.heartbeat.stuck()?)));
    let Some((app, since)) = stuck.next() else {
        return Ok("all make progress");
    };
    let others = match stuck.count() {
        0 => String::new(),
        others => format!("; other apps without progress: {others}"),
    };
    Err(format!(
        "the app {app} has made no progress for {since}{others}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_may_lag_for_a_moment() {
        assert!(recorder(None).is_ok() && recorder(Some(Duration::from_secs(4))).is_ok());
        let lagging = recorder(Some(Duration::from_secs(6))).expect_err("too long");
        assert!(lagging.contains("no outcome for 6 s"), "{lagging}");
    }
}
