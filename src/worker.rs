//! One process of the fleet: a lane for each app, a recorder for all of them, background tasks, and a graceful shutdown.
//!
//! A message takes this way: `claim_loop` claims it, `delivery` sends it in its slot, and `recorder` saves the outcome.

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

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, stream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::{AppConfig, UsageError, WorkerConfig};
use crate::error_text::database_error_text;
use crate::outbox::{Outbox, SchemaError, WorkerIdentity, is_outage};
use crate::sanitize;
use crate::signaling::Client;
use crate::telemetry::failure_log::FailureLog;
use claim_loop::ClaimLoop;
pub(crate) use clock_follower::CLOCK_STEPS;
pub(crate) use lane::Lane;
use lane::Shared;
pub(crate) use lane::stats::{CALL_DURATION, CALLS, MESSAGES_FINISHED, QUEUE_WAIT, SLOTS_MISSED};
pub(crate) use liveness::{Liveness, Stuck};
use maintenance::{janitor, reporter, stats_flusher};
use recorder::Recorder;
pub(crate) use restart::TASK_PANICS;
use restart::{register_counters, restart_after_panics};

const DATABASE_RETRY: Duration = Duration::from_secs(1);
const MAX_LOGGED_ALIASES_CHARS: usize = 500;
/// How long a shutdown waits for the last stats to be saved.
const LAST_STATS_TIMEOUT: Duration = Duration::from_secs(1);
/// Lanes that open concurrently. In sequence, a thousand apps would wait for a thousand round trips.
const OPENED_AT_ONCE: usize = 4;

/// Why a worker can't start, or did not stop gracefully.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("the app {app:?}: {source}")]
    Client { app: String, source: UsageError },
    #[error("the lanes can't be opened: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
    /// A person dropped functions, tables or columns while the worker ran.
    #[error(transparent)]
    Schema(SchemaError),
    #[error(
        "a part of the worker has failed, which is a defect: all outcomes are recorded; start the worker again, and report the `panicked` line before this one"
    )]
    Failed,
    #[error(
        "{unfinished} messages were unfinished when the drain timeout of {drain_timeout:?} was over: they are due again when their leases end"
    )]
    NotDrained {
        unfinished: usize,
        drain_timeout: Duration,
    },
}

/// The parts of a process that all its tasks use.
struct Process {
    shared: Arc<Shared>,
    /// In the order of their apps.
    lanes: Vec<Arc<Lane>>,
}

impl Process {
    fn lane(&self, app: &str) -> Option<&Arc<Lane>> {
        let by_app = |lane: &Arc<Lane>| lane.app.as_str().cmp(app);
        let index = self.lanes.binary_search_by(by_app).ok()?;
        self.lanes.get(index)
    }
}

/// Sends messages until `shutdown` is cancelled. The worker then claims nothing more, releases messages that are not sent,
/// and records the outcomes of those in flight.
///
/// # Errors
/// If the worker can't start, or if the drain timeout ends before all outcomes are recorded.
pub(crate) async fn run(
    config: WorkerConfig,
    outbox: Arc<Outbox>,
    liveness: Arc<Liveness>,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    let shared = Arc::new(Shared {
        outbox,
        name: config.name.clone(),
        environment: config.environment.clone(),
        timing: config.timing,
        proxies: config.proxies,
        retry: config.retry,
        listening: AtomicBool::new(false),
        poll_at: watch::Sender::new(Instant::now()),
        recorder_lag: watch::Sender::new(None),
        failing: AtomicUsize::new(0),
        traces: config.traces,
        hasher: RandomState::new(),
        shutdown: shutdown.clone(),
    });
    let lanes = config.apps.into_iter().map(|app| lane(app, &shared));
    let mut lanes = lanes.collect::<Result<Vec<_>, _>>()?;
    lanes.sort_by(|one, other| one.app.cmp(&other.app));
    match shutdown.run_until_cancelled(open_lanes(&lanes)).await {
        Some(opened) => opened?,
        None => return Ok(()),
    }
    let process = Arc::new(Process { shared, lanes });
    log_started(&process);
    register_counters();

    let max_in_flight = process.lanes.iter().map(|lane| lane.in_flight.max).sum();
    let (records, inbox) = mpsc::channel(max_in_flight);
    let recorder = Arc::new(Recorder::new(Arc::clone(&process.shared), inbox));
    let mut recording = tokio::spawn(run_recorder(Arc::clone(&recorder)));
    let deliveries = TaskTracker::new();
    let mut tasks = JoinSet::new();
    for lane in process.lanes.iter().cloned() {
        tasks.spawn(run_lane(lane, records.clone(), deliveries.clone()));
    }
    drop(records);
    liveness.begin(&process.lanes);
    tasks.spawn(run_listener(Arc::clone(&process)));
    // The receiver outlives a panic, so a step during a restart is not lost.
    let steps = process.shared.outbox.clock().steps();
    spawn(&mut tasks, &process, "clock_follower", move |process| {
        clock_follower::run(process, steps.clone())
    });
    spawn(&mut tasks, &process, "poller", poller::run);
    // A restarted reporter keeps the identity. With a new one, this worker would count twice.
    let identity = WorkerIdentity {
        id: Uuid::new_v4(),
        name: config.name,
        host: config.host,
        environment: config.environment,
        apps: process.lanes.iter().map(|lane| lane.app.clone()).collect(),
    };
    spawn(&mut tasks, &process, "reporter", move |process| {
        reporter::run(process, identity.clone())
    });
    if let Some(retention) = config.retention {
        spawn(&mut tasks, &process, "janitor", move |process| {
            janitor::run(process, retention)
        });
    }
    let mut saving_stats = JoinSet::new();
    let name = "stats_flusher";
    spawn(&mut saving_stats, &process, name, stats_flusher::run);

    let watching = schema_watch::until_unusable(&process.shared.outbox);
    // No task ends before the shutdown. If one ends all the same, the process shuts down gracefully, so that the recorder
    // saves all outcomes.
    let failed = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        _ = &mut recording => Some(WorkerError::Failed),
        _ = tasks.join_next() => Some(WorkerError::Failed),
        _ = saving_stats.join_next() => Some(WorkerError::Failed),
        error = watching => Some(WorkerError::Schema(error)),
    };
    shutdown.cancel();
    tracing::debug!(
        event = "drain_started",
        "stopping: claims nothing more, finishes what is in flight"
    );
    let draining = drain(tasks, deliveries, recording, recorder);
    let drained = tokio::time::timeout(config.drain_timeout, draining).await;
    if drained.is_err() {
        check_drained(&process.lanes, config.drain_timeout)?;
    }
    let saving = async {
        while saving_stats.join_next().await.is_some() {}
        stats_flusher::save(&process).await.ok();
    };
    tokio::time::timeout(LAST_STATS_TIMEOUT, saving).await.ok();
    if let Some(error) = failed {
        return Err(error);
    }
    tracing::info!(event = "worker_stopped", "stopped: everything is recorded");
    Ok(())
}

/// Spawns a background task that restarts after a panic.
fn spawn<T: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    process: &Arc<Process>,
    task: &'static str,
    mut run: impl FnMut(Arc<Process>) -> T + Send + 'static,
) {
    let process = Arc::clone(process);
    tasks.spawn(async move {
        let shutdown = &process.shared.shutdown;
        let start = || run(Arc::clone(&process));
        restart_after_panics(task, None, shutdown, start, || ()).await;
    });
}

async fn run_lane(
    lane: Arc<Lane>,
    records: mpsc::Sender<recorder::Delivered>,
    deliveries: TaskTracker,
) {
    let start = || ClaimLoop::new(Arc::clone(&lane), records.clone(), deliveries.clone()).run();
    let shutdown = &lane.shared.shutdown;
    restart_after_panics("lane", Some(&lane.app), shutdown, start, || ()).await;
}

async fn run_listener(process: Arc<Process>) {
    let shared = &process.shared;
    // Without a listener, the poller polls more often.
    let on_panic = || shared.listening.store(false, Ordering::Relaxed);
    let start = || listener::run(Arc::clone(&process));
    restart_after_panics("listener", None, &shared.shutdown, start, on_panic).await;
}

/// Runs until all outcomes are recorded. A shutdown does not end this task, because deliveries still send outcomes.
async fn run_recorder(recorder: Arc<Recorder>) {
    let never = CancellationToken::new();
    let on_panic = || recorder.mark_lagging();
    restart_after_panics("recorder", None, &never, || recorder.run(), on_panic).await;
}

/// Waits until no lane claims, no call is in flight, and all outcomes are recorded.
async fn drain(
    mut tasks: JoinSet<()>,
    deliveries: TaskTracker,
    recording: JoinHandle<()>,
    recorder: Arc<Recorder>,
) {
    while tasks.join_next().await.is_some() {}
    deliveries.close();
    deliveries.wait().await;
    if !recording.is_finished() {
        recording.await.ok();
    }
    // Records the rest if the recorder's task ended early. Otherwise nothing is left.
    recorder.run().await;
}

/// Fails if messages are in flight when the drain timeout ends. Else only claims can be left that the database has not
/// answered. This worker has none of their messages, so it has lost nothing: an idle worker may stop while its database
/// hangs.
fn check_drained(lanes: &[Arc<Lane>], drain_timeout: Duration) -> Result<(), WorkerError> {
    let unfinished = lanes.iter().map(|lane| lane.in_flight.count()).sum();
    if unfinished > 0 {
        return Err(WorkerError::NotDrained {
            unfinished,
            drain_timeout,
        });
    }
    let waits = |lane: &&Arc<Lane>| lane.waits_for_claim.load(Ordering::Relaxed);
    let claims = lanes.iter().filter(waits).count();
    if claims > 0 {
        tracing::warn!(
            event = "claims_unanswered",
            claims,
            "the database has not answered a claim within the drain timeout. If the database carries the claim out all the same, its messages are due again when their leases end; none of them was called"
        );
    }
    Ok(())
}

fn log_started(process: &Process) {
    let aliases: Vec<_> = process.lanes.iter().map(|lane| lane.app.as_str()).collect();
    tracing::info!(
        event = "worker_started",
        worker = process.shared.name,
        version = env!("CARGO_PKG_VERSION"),
        apps = sanitize::text(&aliases.join(", "), MAX_LOGGED_ALIASES_CHARS),
        pooler = process.shared.outbox.has_pooler(),
        traces = process.shared.traces.is_some(),
        "worker started"
    );
}

fn lane(app: AppConfig, shared: &Arc<Shared>) -> Result<Arc<Lane>, WorkerError> {
    let alias = app.alias.clone();
    let (limit_per_s, max_in_flight) = (app.limit_per_s, app.max_in_flight);
    let client = Client::new(app, shared.timing, &shared.proxies);
    let client = client.map_err(|source| WorkerError::Client {
        app: alias.clone(),
        source,
    })?;
    let lane = Lane::new(
        alias,
        client,
        limit_per_s,
        max_in_flight,
        Arc::clone(shared),
    );
    Ok(Arc::new(lane))
}

/// Makes sure that each app has its lane. Retries while the database is unavailable.
async fn open_lanes(lanes: &[Arc<Lane>]) -> Result<(), WorkerError> {
    let failures = FailureLog::default();
    stream::iter(lanes.iter().cloned().map(Ok))
        .try_for_each_concurrent(OPENED_AT_ONCE, |lane| open_lane(lane, &failures))
        .await
}

async fn open_lane(lane: Arc<Lane>, failures: &FailureLog) -> Result<(), WorkerError> {
    while let Err(error) = lane.open(false).await {
        if !is_outage(&error) {
            return Err(error.into());
        }
        if failures.failed() {
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
