//! The metrics for Prometheus: counters of this process, and gauges of the fleet from the database.

use std::error::Error;

use axum::extract::State;
use axum::response::IntoResponse;
use hyper::header::CONTENT_TYPE;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use strum::VariantArray;

use super::{OpsState, health};
use crate::outbox::{AppStatus, LaneState, STATEMENT_DURATION, STATEMENT_ERRORS};
use crate::stats::BOUNDS_S;
use crate::telemetry::{self, LOG_LINES_DROPPED};
use crate::worker::{
    CALL_DURATION, CALLS, CLOCK_STEPS, MESSAGES_FINISHED, QUEUE_WAIT, SLOTS_MISSED, TASK_PANICS,
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

/// Describes metrics by a macro of the crate `metrics`, with a line for each name and its help.
macro_rules! describe {
    ($describe:ident: $($name:ident $help:literal)*) => {
        $($describe!($name, $help);)*
    };
}

pub(super) fn install() -> Result<PrometheusHandle, Box<dyn Error + Send + Sync>> {
    let recorder = PrometheusBuilder::new().set_buckets(&BOUNDS_S)?;
    let handle = recorder.install_recorder()?;
    describe! { describe_counter:
        CALLS "Calls of this process, by outcome."
        MESSAGES_FINISHED "Messages that this process finished, by status."
        SLOTS_MISSED "Slots without a call: they had passed, the lease ended too soon, or the host was suspended."
        TASK_PANICS "Panics in tasks of this process. Each is a defect. A panic of a delivery fails one attempt; the process restarts any other task."
        CLOCK_STEPS "Steps of the database's clock that this process noticed."
        LOG_LINES_DROPPED "Log lines that this process dropped, because the reader of standard error was too slow or a write failed."
        STATEMENT_ERRORS "Statements of this process that failed or timed out."
    }
    describe! { describe_histogram:
        CALL_DURATION "Time from the start of a call to the end of its response."
        QUEUE_WAIT "Time from a message's due time, normally its insert, to the start of its first call."
        STATEMENT_DURATION "Time of each statement with a response, with the wait for a connection."
    }
    describe! { describe_gauge:
        IN_FLIGHT "Messages that this process has claimed and not recorded yet."
        BUILD_INFO "1, with the worker's version."
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
    Collector::default().describe();
    Ok(handle)
}

pub(super) async fn metrics(State(state): State<OpsState>) -> impl IntoResponse {
    for lane in state.lanes.get().into_iter().flatten() {
        gauge!(IN_FLIGHT, "app" => lane.app.clone()).set(count(lane.in_flight.count() as u64));
    }
    counter!(LOG_LINES_DROPPED).absolute(telemetry::dropped_lines() as u64);
    Collector::default().collect();
    let process = state.metrics.as_ref().map(PrometheusHandle::render);
    let fleet = state.fleet_metrics.get_or(fleet(&state)).await;
    let text = process.unwrap_or_default() + &fleet;
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text)
}

async fn fleet(state: &OpsState) -> String {
    let (mut apps, mut is_up) = (None, false);
    if let Some(outbox) = state.outbox.get() {
        // If a scrape took longer than Prometheus waits, the alert SignalingWorkerDown would fire.
        let lanes = tokio::time::timeout(health::DATABASE_TIMEOUT, outbox.lanes(None)).await;
        apps = lanes.ok().and_then(Result::ok);
        is_up = apps.is_some() || health::has_responded_lately(outbox);
    }
    render_fleet(is_up, apps.as_deref().unwrap_or_default())
}

/// Fleet metrics are identical on every worker. Each scrape has a recorder of its own, which keeps no series of a
/// deleted app and no value from before an outage.
fn render_fleet(is_up: bool, apps: &[AppStatus]) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        describe! { describe_gauge:
            DATABASE_UP "1 if the database responds, else 0."
            BACKLOG "Pending messages of the fleet by state, at the last count."
            BACKLOG_SAMPLE_AGE "Age of the last count of the pending messages."
            OLDEST_MESSAGE_AGE "Age of the oldest pending message at the last count, without scheduled ones; 0 if there is none."
            UNSERVED "Pending messages at the last count of apps that no worker has ever served, for the first 100 such apps."
            LIMIT "The app's limit of calls per second for the fleet: the operator's, or else WORKER_RATE."
            RATE "Slots per second of the app's lane while no hold and no pause stops it."
            LANE_STATE "1 for the present state of the app's lane, else 0."
            WORKERS_ALIVE "Workers that serve the app and have reported within 30 seconds."
            WORKERS_ASIDE "Workers among these that have stepped aside because their own calls fail."
        }
        gauge!(DATABASE_UP).set(u32::from(is_up));
        apps.iter().for_each(set_app);
        if let Some(counted_ago_s) = apps.iter().find_map(|app| app.pending.counted_ago_s) {
            let unserved = apps.iter().filter(|app| app.lane.is_none());
            let unserved = unserved.map(|app| app.pending.backlog() + app.pending.scheduled);
            gauge!(BACKLOG_SAMPLE_AGE).set(counted_ago_s);
            gauge!(UNSERVED).set(count(unserved.sum()));
        }
    });
    recorder.handle().render()
}

fn set_app(status: &AppStatus) {
    let (app, pending) = (&status.app, &status.pending);
    // Producers can misspell any number of names. An app without a lane gets no series.
    let Some(lane) = &status.lane else {
        return;
    };
    let set = |name: &'static str, value: f64| gauge!(name, "app" => app.clone()).set(value);
    set(WORKERS_ALIVE, lane.workers.alive.into());
    set(WORKERS_ASIDE, lane.workers.aside.into());
    set(LIMIT, lane.limit_per_s);
    set(RATE, lane.rate_per_s);
    let present = lane.state();
    for &state in LaneState::VARIANTS {
        gauge!(LANE_STATE, "app" => app.clone(), "state" => state.into_str())
            .set(u32::from(state == present));
    }
    if pending.counted_ago_s.is_some() {
        set(OLDEST_MESSAGE_AGE, pending.oldest_s.unwrap_or(0.0));
        for (state, messages) in pending.by_state() {
            gauge!(BACKLOG, "app" => app.clone(), "state" => state).set(count(messages));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}
