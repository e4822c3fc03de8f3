//! One process of the fleet: a lane for each app, a recorder for all of them, and an ordered end.

mod claim_loop;
mod clock_follower;
mod delivery;
mod lane;
mod listener;
mod liveness;
mod maintenance;
mod panic_point;
mod poller;
mod recorder;
mod restart;
mod schema_watch;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::{AppConfig, WorkerConfig};
use crate::error_text::database_error_text;
use crate::outbox::{Outbox, SchemaError, WorkerIdentity, is_outage};
use crate::sanitize;
use crate::signaling::{Client, ClientSettings, InvalidClient};
pub(crate) use clock_follower::CLOCK_STEPS;
pub(crate) use lane::metrics::{CALL_DURATION, CALLS, MESSAGES_FINISHED, QUEUE_WAIT, SLOTS_MISSED};
use lane::{Lane, OpenReason};
pub(crate) use liveness::{LaneLiveness, Liveness, Stuck};
use maintenance::StatsFlusher;
use poller::PollAlarm;
use recorder::Recorder;
pub(crate) use restart::TASK_PANICS;
use restart::describe_tasks;
use tasks::{Tasks, run_recorder};

/// How often a database that is away while the work begins is tried.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// How much of its apps' names a worker says when it starts.
const MAX_ALIASES_CHARS: usize = 500;

/// How long a shutdown waits for the last stats to be written.
const LAST_STATS: Duration = Duration::from_secs(1);

/// Why a worker can't begin, or could not end in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    /// An app's client can't be made.
    #[error("the app {app:?}: {source}")]
    Client { app: String, source: InvalidClient },
    /// The database failed before the work began.
    #[error("the lanes can't be opened: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
    /// Functions, tables or columns were dropped while the worker ran.
    #[error(transparent)]
    Schema(SchemaError),
    /// A part of the worker has failed and can't be started again.
    #[error(
        "a part of the worker has failed, which is a defect: all outcomes are recorded; start the worker again, and report the `panicked` line before this one"
    )]
    Failed,
    /// Calls were still in flight, or not recorded, when the time for that was over.
    #[error(
        "{unfinished} messages were unfinished when the drain timeout of {drain_timeout:?} was over: they are due again when their leases end"
    )]
    NotDrained {
        unfinished: usize,
        /// The time that they had.
        drain_timeout: Duration,
    },
}

/// Works until `shutdown` is cancelled: then claims nothing more, gives back what is not sent, and finishes and
/// records what is in flight. Meanwhile `liveness` show how it fares.
///
/// # Errors
/// Where it can't begin, or the drain timeout ends before everything is recorded.
pub(crate) async fn run(
    config: WorkerConfig,
    outbox: Arc<Outbox>,
    liveness: Arc<Liveness>,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    let total_capacity = config.apps.iter().map(|app| app.max_in_flight).sum();
    let (records, inbox) = mpsc::channel(total_capacity);
    let deliveries = TaskTracker::new();
    let listening = Arc::new(AtomicBool::new(false));
    let (lag, recorder_lag) = watch::channel(None);
    let shared = Arc::new(lane::Shared {
        outbox: Arc::clone(&outbox),
        name: config.name.clone(),
        environment: config.environment.clone(),
        timing: config.timing,
        proxies: config.proxies,
        retry: config.retry,
        listening: Arc::clone(&listening),
        recorder_lag: recorder_lag.clone(),
        poll_alarm: PollAlarm::default(),
        failing: AtomicUsize::new(0),
        traces: config.traces,
    });

    let lanes = config
        .apps
        .into_iter()
        .map(|app| lane(app, &shared, &shutdown).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let opening = open_lanes(&lanes);
    match shutdown.run_until_cancelled(opening).await {
        Some(opened) => opened?,
        None => return Ok(()),
    }
    log_started(&config.name, &lanes, &outbox);

    describe_tasks();
    let recorder = Arc::new(Recorder::new(
        Arc::clone(&outbox),
        config.name.clone(),
        lag,
        inbox,
    ));
    let mut recording = tokio::spawn(run_recorder(Arc::clone(&recorder)));
    let tasks = Tasks {
        outbox: Arc::clone(&outbox),
        lanes: lanes.clone(),
        shutdown: shutdown.clone(),
    };
    let listener = tokio::spawn(tasks.clone().listener(listening));
    liveness.begin(
        lanes.iter().map(|lane| lane.liveness()).collect(),
        recorder_lag,
    );
    let mut loops = tasks.spawn_lanes(&records, &deliveries);
    drop(records);
    loops.spawn(tasks.clone().clock_follower());
    loops.spawn(tasks.clone().poller(config.timing.poll_interval));
    let identity = WorkerIdentity {
        id: Uuid::new_v4(),
        name: config.name,
        host: config.host,
        environment: config.environment,
        apps: lanes.iter().map(|lane| lane.app.clone()).collect(),
    };
    loops.spawn(tasks.clone().reporter(identity));
    let watching = schema_watch::until_unusable(Arc::clone(&outbox));
    let stats_flusher = Arc::new(StatsFlusher {
        outbox,
        lanes: lanes.clone(),
    });
    let mut stats_flushing = tokio::spawn(tasks.clone().stats_flusher(Arc::clone(&stats_flusher)));
    if let Some(retention) = config.retention {
        loops.spawn(tasks.clone().janitor(retention));
    }

    // Each task restarts after a panic, and none ends by itself. If one ends all the same, the process shuts down
    // gracefully, so that the recorder saves all outcomes.
    let failed = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        _ = &mut recording => Some(WorkerError::Failed),
        _ = loops.join_next() => Some(WorkerError::Failed),
        _ = &mut stats_flushing => Some(WorkerError::Failed),
        error = watching => Some(WorkerError::Schema(error)),
    };
    shutdown.cancel();
    tracing::debug!(
        event = "drain_started",
        "stopping: claims nothing more, finishes what is in flight"
    );
    listener.abort();
    let draining = drain(loops, deliveries, recording, recorder);
    let drained = tokio::time::timeout(config.drain_timeout, draining);
    if drained.await.is_err() {
        let unfinished = lanes.iter().map(|lane| lane.in_flight()).sum();
        return Err(WorkerError::NotDrained {
            unfinished,
            drain_timeout: config.drain_timeout,
        });
    }
    save_last_stats(stats_flushing, &stats_flusher).await;
    if let Some(error) = failed {
        return Err(error);
    }
    tracing::info!(event = "worker_stopped", "stopped: everything is recorded");
    Ok(())
}

/// Waits until no lane claims, no call is in flight and all outcomes are recorded.
async fn drain(
    mut loops: JoinSet<()>,
    deliveries: TaskTracker,
    recording: JoinHandle<()>,
    recorder: Arc<Recorder>,
) {
    while loops.join_next().await.is_some() {}
    deliveries.close();
    deliveries.wait().await;
    if !recording.is_finished() {
        recording.await.ok();
    }
    // Records the rest if the recorder's task ended early. Otherwise nothing is left.
    recorder.run().await;
}

/// Saves the last stats, but does not wait long for a database that fails.
async fn save_last_stats(flushing: JoinHandle<()>, stats_flusher: &StatsFlusher) {
    let saving = async {
        if !flushing.is_finished() {
            flushing.await.ok();
        }
        stats_flusher.write().await.ok();
    };
    tokio::time::timeout(LAST_STATS, saving).await.ok();
}

/// Says what works here from now on.
fn log_started(name: &str, lanes: &[Arc<Lane>], outbox: &Outbox) {
    let aliases: Vec<_> = lanes.iter().map(|lane| lane.app.as_str()).collect();
    tracing::info!(
        event = "worker_started",
        worker = name,
        version = env!("CARGO_PKG_VERSION"),
        apps = sanitize::text(&aliases.join(", "), MAX_ALIASES_CHARS),
        pooler = outbox.has_pooler(),
        traces = lanes
            .first()
            .is_some_and(|lane| lane.shared.traces.is_some()),
        "worker started"
    );
}

/// The lane of an app, with its client.
fn lane(
    app: AppConfig,
    shared: &Arc<lane::Shared>,
    shutdown: &CancellationToken,
) -> Result<Lane, WorkerError> {
    let client = Client::new(ClientSettings {
        base_urls: app.base_urls,
        ca_file: app.ca_file,
        app_id: app.app_id,
        credentials: app.credentials,
        proxies: shared.proxies.clone(),
        connect_timeout: shared.timing.connect_timeout,
        connection_max_age: shared.timing.connection_max_age,
        request_timeout: shared.timing.request_timeout,
        max_idle_connections: app.max_in_flight,
    })
    .map_err(|source| WorkerError::Client {
        app: app.alias.clone(),
        source,
    })?;
    Ok(Lane::new(
        app.alias,
        client,
        app.limit_per_s,
        app.max_in_flight,
        Arc::clone(shared),
        shutdown,
    ))
}

/// Lanes that open concurrently. In sequence, a thousand apps would wait for a thousand round trips.
const OPENED_AT_ONCE: usize = 4;

/// Makes sure that each app has its lane. Retries while the database is unavailable.
async fn open_lanes(lanes: &[Arc<Lane>]) -> Result<(), WorkerError> {
    let has_warned = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let open_some = async || {
        while let Some(lane) = lanes.get(next.fetch_add(1, Ordering::Relaxed)) {
            open_lane(lane, &has_warned).await?;
        }
        Ok::<(), WorkerError>(())
    };
    let opening = (0..OPENED_AT_ONCE).map(|_| open_some());
    futures_util::future::try_join_all(opening).await.map(drop)
}

async fn open_lane(lane: &Lane, has_warned: &AtomicBool) -> Result<(), WorkerError> {
    while let Err(error) = lane.open(OpenReason::Startup).await {
        if !is_outage(&error) {
            return Err(error.into());
        }
        if !has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                event = "lane_open_failed",
                app = lane.app,
                error = database_error_text(&error),
                "the lane can't be opened: trying again until it can"
            );
        }
        tokio::time::sleep(DATABASE_RETRY).await;
    }
    Ok(())
}
