//! The metrics, as Prometheus reads them: what this process has counted, and how the fleet is doing.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use super::{OpsState, health};
use crate::outbox::{
    AppLane, LaneState, LaneStatus, Pending, STATEMENT_DURATION, STATEMENT_ERRORS,
};
use crate::stats::BOUNDS_S;
use crate::telemetry::{self, LOG_LINES_DROPPED};
use crate::worker::{
    CALL_DURATION, CALLS, CLOCK_STEPS, Liveness, MESSAGES_FINISHED, QUEUE_WAIT, SLOTS_MISSED,
    TASK_PANICS,
};

const IN_FLIGHT: &str = "signaling_in_flight_messages";
const BUILD_INFO: &str = "signaling_build_info";
const BACKLOG: &str = "signaling_backlog_messages";
const UNSERVED: &str = "signaling_unserved_messages";
const BACKLOG_SAMPLE_AGE: &str = "signaling_backlog_sample_age_seconds";
const OLDEST_MESSAGE_AGE: &str = "signaling_oldest_message_age_seconds";
const LIMIT: &str = "signaling_limit_calls_per_second";
const RATE: &str = "signaling_rate_calls_per_second";
const LANE_STATE: &str = "signaling_lane_state";
const WORKERS_ALIVE: &str = "signaling_workers_alive";
const WORKERS_ASIDE: &str = "signaling_workers_aside";
const DATABASE_UP: &str = "signaling_database_up";

/// Upper bounds of the buckets for statements, in seconds.
const STATEMENT_BOUNDS_S: [f64; 14] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
];
/// How often what has been observed is sorted into buckets: until then each is kept.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    /// The buckets can't be used.
    #[error(transparent)]
    Buckets(#[from] BuildError),
    /// There is a recorder already.
    #[error("metrics are recorded elsewhere already")]
    OpenConnections,
}

#[derive(Debug)]
pub(super) struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Records from now on what all parts of the process count.
    pub(super) fn install() -> Result<Self, MetricsError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(CALL_DURATION.into()), &BOUNDS_S)?
            .set_buckets_for_metric(Matcher::Full(QUEUE_WAIT.into()), &BOUNDS_S)?
            .set_buckets_for_metric(
                Matcher::Full(STATEMENT_DURATION.into()),
                &STATEMENT_BOUNDS_S,
            )?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| MetricsError::OpenConnections)?;
        describe();
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
        let process = Collector::default();
        process.describe();
        Ok(Self { handle, process })
    }

    /// Keeps what is recorded small, for ever.
    pub(super) async fn keep_up(&self) {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            self.handle.run_upkeep();
        }
    }

    fn render(&self, liveness: &Liveness) -> String {
        for lane in liveness.lanes().unwrap_or_default() {
            gauge!(IN_FLIGHT, "app" => lane.app.clone()).set(count(lane.in_flight() as u64));
        }
        counter!(LOG_LINES_DROPPED).absolute(telemetry::dropped_lines());
        self.process.collect();
        self.handle.render()
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(state): State<OpsState>) -> Response {
    let Some(metrics) = &state.metrics else {
        return (StatusCode::NOT_FOUND, "this process records no metrics\n").into_response();
    };
    let mut fleet = None;
    let mut is_up = false;
    if let Some(outbox) = state.outbox.get() {
        fleet = state.fleet.lanes(outbox).await;
        // Those who look on may have to wait while those who work are answered.
        is_up = fleet.is_some() || health::has_responded_lately(outbox);
    }
    let mut text = metrics.render(&state.liveness);
    text += &render_fleet(is_up, fleet.as_deref().unwrap_or_default());
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

fn describe() {
    describe_counter!(
        CALLS,
        Unit::Count,
        "Calls of this process, by what they came to."
    );
    describe_counter!(
        MESSAGES_FINISHED,
        Unit::Count,
        "Messages that ended in this process, by how."
    );
    describe_histogram!(
        CALL_DURATION,
        Unit::Seconds,
        "From the start of a call to the end of its answer."
    );
    describe_histogram!(
        QUEUE_WAIT,
        Unit::Seconds,
        "From when a message was due, normally its insert, to the start of its first call."
    );
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "Messages that this process has claimed and not recorded yet."
    );
    describe_counter!(
        SLOTS_MISSED,
        Unit::Count,
        "Slots that had passed before their calls could start."
    );
    describe_counter!(
        TASK_PANICS,
        Unit::Count,
        "Panics of parts of this process, each a defect. The part was started again."
    );
    describe_counter!(
        CLOCK_STEPS,
        Unit::Count,
        "Steps of the database's clock that this process has noticed."
    );
    describe_counter!(
        LOG_LINES_DROPPED,
        Unit::Count,
        "Lines of this process's log that were dropped, because nobody reads the log or it can't be written."
    );
    describe_histogram!(
        STATEMENT_DURATION,
        Unit::Seconds,
        "Answered statements of this process, with the wait for a connection."
    );
    describe_counter!(
        STATEMENT_ERRORS,
        Unit::Count,
        "Statements of this process that failed or were not answered in time."
    );
    describe_gauge!(BUILD_INFO, Unit::Count, "1, with the worker's version.");
}

/// What is the same in every process. A recorder of its own, so that nothing is left of what the database said before.
fn render_fleet(is_up: bool, apps: &[AppLane]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe_gauge!(
            DATABASE_UP,
            Unit::Count,
            "Whether the database answers: 1, or 0."
        );
        gauge!(DATABASE_UP).set(u32::from(is_up));
        for AppLane { app, lane, pending } in apps {
            // What has no lane may be a mistake, and any number of them.
            if let Some(lane) = lane {
                set_lane(app, lane);
                set_backlog(app, pending);
            }
        }
        set_counted(apps);
    });
    recorder.handle().render()
}

fn set_counted(apps: &[AppLane]) {
    let Some(counted_ago_s) = apps.iter().find_map(|app| app.pending.counted_ago_s) else {
        return;
    };
    describe_gauge!(
        BACKLOG_SAMPLE_AGE,
        Unit::Seconds,
        "How long ago the messages of the fleet that are not final were counted."
    );
    describe_gauge!(
        UNSERVED,
        Unit::Count,
        "Messages of apps that no worker has ever served, as they were counted last; of the first 100 such apps."
    );
    let unserved = apps.iter().filter(|app| app.lane.is_none());
    let unserved = unserved.map(|app| app.pending.backlog() + app.pending.scheduled);
    gauge!(BACKLOG_SAMPLE_AGE).set(counted_ago_s);
    gauge!(UNSERVED).set(count(unserved.sum()));
}

fn set_backlog(app: &str, pending: &Pending) {
    if pending.counted_ago_s.is_none() {
        return;
    }
    describe_gauge!(
        BACKLOG,
        Unit::Count,
        "Messages of the fleet that are not final, as they were counted last."
    );
    describe_gauge!(
        OLDEST_MESSAGE_AGE,
        Unit::Seconds,
        "For how long the oldest message had waited at the last count that is not scheduled for later; 0 if there is none."
    );
    for (state, messages) in [
        ("queued", pending.queued),
        ("scheduled", pending.scheduled),
        ("retrying", pending.retrying),
        ("sending", pending.sending),
    ] {
        gauge!(BACKLOG, "app" => app.to_owned(), "state" => state).set(count(messages));
    }
    gauge!(OLDEST_MESSAGE_AGE, "app" => app.to_owned()).set(pending.oldest_s.unwrap_or(0.0));
}

fn set_lane(app: &str, lane: &LaneStatus) {
    describe_gauge!(
        LIMIT,
        Unit::CountPerSecond,
        "Calls a second that the API allows the app, over the fleet."
    );
    describe_gauge!(
        RATE,
        Unit::CountPerSecond,
        "Slots a second that are given out at present, over the fleet."
    );
    describe_gauge!(
        LANE_STATE,
        Unit::Count,
        "1 for the state of the app's lane, else 0."
    );
    describe_gauge!(
        WORKERS_ALIVE,
        Unit::Count,
        "Workers that serve the app and have reported within 30 seconds."
    );
    describe_gauge!(
        WORKERS_ASIDE,
        Unit::Count,
        "Of these workers, those that have stepped aside because their own calls fail."
    );
    gauge!(WORKERS_ALIVE, "app" => app.to_owned()).set(lane.workers.alive);
    gauge!(WORKERS_ASIDE, "app" => app.to_owned()).set(count(lane.workers.aside.len() as u64));
    gauge!(LIMIT, "app" => app.to_owned()).set(lane.limit_per_s);
    gauge!(RATE, "app" => app.to_owned()).set(lane.rate_per_s);
    let present = lane.state();
    for state in LaneState::ALL {
        gauge!(LANE_STATE, "app" => app.to_owned(), "state" => state.as_str())
            .set(u32::from(state == present));
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}
