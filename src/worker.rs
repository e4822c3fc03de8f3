//! One process of the fleet: a lane for each app, a recorder for all of them, background tasks, and a graceful shutdown.
//!
//! A message takes this way: `claim_loop` claims it, `delivery` sends it in its slot, and `recorder` saves the outcome.

mod claim_loop;
mod clock_follower;
mod delivery;
mod janitor;
mod lane;
mod listener;
mod panic_point;
mod poller;
mod recorder;
mod reporter;
mod restart;
mod schema_watch;
mod stats_flusher;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{TryStreamExt, stream};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::{UsageError, WorkerConfig};
use crate::error_text::database_error_text;
use crate::outbox::{Outbox, SchemaError, is_outage};
use crate::sanitize;
use crate::telemetry::failure_log::FailureLog;
use claim_loop::ClaimLoop;
pub(crate) use clock_follower::CLOCK_STEPS;
pub(crate) use lane::Lane;
use lane::Shared;
pub(crate) use lane::stats::{CALL_DURATION, CALLS, MESSAGES_FINISHED, QUEUE_WAIT, SLOTS_MISSED};
use recorder::Recorder;
pub(crate) use restart::TASK_PANICS;
use restart::{count_panics, restart_after_panics};

const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// How long a shutdown waits for the last stats to be saved, and for the worker to leave the registry.
const LAST_STATEMENTS_TIMEOUT: Duration = Duration::from_secs(1);
/// Lanes that open concurrently. In sequence, a thousand apps would wait for a thousand round trips.
const OPENED_AT_ONCE: usize = 4;

/// The lanes, for the ops server. Empty until they are open.
pub(crate) type OpenLanes = OnceLock<Vec<Arc<Lane>>>;

/// Why a worker can't start, or did not stop gracefully.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error("{0}")]
    Client(#[from] UsageError),
    #[error("the lanes can't be opened: {}", database_error_text(.0))]
    Database(#[from] sqlx::Error),
    /// A person dropped functions, tables or columns while the worker ran.
    #[error(transparent)]
    Schema(SchemaError),
    #[error(
        "{unfinished} messages were unfinished when the drain timeout of {drain_timeout:?} was over: when their leases end, they are due again, and at-most-once messages end as unknown"
    )]
    NotDrained {
        unfinished: usize,
        drain_timeout: Duration,
    },
}

struct Process {
    shared: Arc<Shared>,
    lanes: BTreeMap<String, Arc<Lane>>,
    /// Stays the same when the reporter restarts. With a new ID, this worker would count as two.
    id: Uuid,
}

/// Sends messages until `shutdown` is cancelled. The worker then claims nothing more, releases messages that are not sent,
/// and records the outcomes of those in flight.
///
/// Fails if the worker can't start, or if the drain timeout ends before all outcomes are recorded.
pub(crate) async fn run(
    mut config: WorkerConfig,
    outbox: Arc<Outbox>,
    open: Arc<OpenLanes>,
    shutdown: CancellationToken,
) -> Result<(), WorkerError> {
    let apps = std::mem::take(&mut config.apps);
    let shared = Arc::new(Shared {
        outbox,
        config,
        listening: AtomicBool::new(false),
        recorder_lag: watch::Sender::new(None),
        poll_planned: Notify::new(),
        database_failures: FailureLog::default(),
        hasher: RandomState::new(),
        shutdown: shutdown.clone(),
    });
    let mut lanes = BTreeMap::new();
    for app in apps {
        lanes.insert(app.alias.clone(), Lane::new(app, Arc::clone(&shared))?);
    }
    match shutdown.run_until_cancelled(open_lanes(&lanes)).await {
        Some(opened) => opened?,
        None => return Ok(()),
    }
    let apps: Vec<_> = lanes.keys().map(String::as_str).collect();
    tracing::info!(
        event = "worker_started",
        worker = shared.config.name,
        version = env!("CARGO_PKG_VERSION"),
        apps = sanitize::text(&apps.join(", "), 500),
        pooler = shared.outbox.has_pooler(),
        traces = shared.config.traces.is_some(),
        "worker started"
    );
    // `set` can't fail, because a process opens its lanes once.
    open.set(lanes.values().cloned().collect()).ok();
    let process = Arc::new(Process {
        shared,
        lanes,
        id: Uuid::new_v4(),
    });

    count_panics("delivery", 0);
    let tasks = TaskTracker::new();
    spawn_tasks(&process, &tasks);
    let until_unusable = schema_watch::until_unusable(&process.shared.outbox);
    let unusable = shutdown.run_until_cancelled(until_unusable).await;
    shutdown.cancel();
    tasks.close();
    let drain_timeout = process.shared.config.drain_timeout;
    let drained = tokio::time::timeout(drain_timeout, tasks.wait()).await;
    let last_statements = async {
        stats_flusher::save(&process).await.ok();
        let outbox = &process.shared.outbox;
        outbox.retire_worker(process.id).await.ok();
    };
    let last_statements = tokio::time::timeout(LAST_STATEMENTS_TIMEOUT, last_statements);
    last_statements.await.ok();
    let in_flight = process.lanes.values().map(|lane| lane.in_flight.count());
    let unfinished = in_flight.sum();
    // With nothing in flight, the remaining tasks only wait for answers of the database. So an idle worker stops without an
    // error while its database hangs.
    if drained.is_err() && unfinished > 0 {
        return Err(WorkerError::NotDrained {
            unfinished,
            drain_timeout,
        });
    }
    if let Some(error) = unusable {
        return Err(WorkerError::Schema(error));
    }
    tracing::info!(event = "worker_stopped", "stopped: everything is recorded");
    Ok(())
}

/// Spawns the tasks of the process, and lets the lanes spawn deliveries. Each task restarts after a panic.
fn spawn_tasks(process: &Arc<Process>, tasks: &TaskTracker) {
    let max_in_flight = process.lanes.values().map(|lane| lane.in_flight.max).sum();
    let (records, inbox) = mpsc::channel(max_in_flight);
    let shared = Arc::clone(&process.shared);
    let recorder = Mutex::new(Recorder::new(Arc::clone(&shared), inbox));
    tasks.spawn(async move {
        // A shutdown does not end the recorder, because deliveries still send outcomes.
        let never = CancellationToken::new();
        let start = || async { recorder.lock().await.run().await };
        let on_panic = || recorder::mark_lagging(&shared);
        restart_after_panics("recorder", None, &never, start, on_panic).await;
    });
    for lane in process.lanes.values().cloned() {
        let (records, deliveries) = (records.clone(), tasks.clone());
        tasks.spawn(async move {
            let start =
                || ClaimLoop::new(Arc::clone(&lane), records.clone(), deliveries.clone()).run();
            let shutdown = &lane.shared.shutdown;
            restart_after_panics("lane", Some(&lane.app), shutdown, start, || ()).await;
        });
    }
    spawn_background(process, tasks, "clock_follower", clock_follower::run);
    spawn_background(process, tasks, "listener", listener::run);
    spawn_background(process, tasks, "poller", poller::run);
    spawn_background(process, tasks, "reporter", reporter::run);
    spawn_background(process, tasks, "janitor", janitor::run);
    spawn_background(process, tasks, "queue_counter", stats_flusher::count);
    let process = Arc::clone(process);
    tasks.spawn(async move {
        // A shutdown does not interrupt a save. The save has taken its stats out of memory, so they would be lost.
        let start = || stats_flusher::run(&process);
        let shutdown = &process.shared.shutdown;
        restart_after_panics("stats_flusher", None, shutdown, start, || ()).await;
    });
}

/// Spawns a task that a shutdown interrupts.
fn spawn_background<T: Future<Output = ()> + Send + 'static>(
    process: &Arc<Process>,
    tasks: &TaskTracker,
    task: &'static str,
    run: impl Fn(Arc<Process>) -> T + Send + Sync + 'static,
) {
    let process = Arc::clone(process);
    tasks.spawn(async move {
        let start = || run(Arc::clone(&process));
        let shutdown = &process.shared.shutdown;
        let running = restart_after_panics(task, None, shutdown, start, || ());
        shutdown.run_until_cancelled(running).await;
    });
}

/// Makes sure that each app has its lane. Retries while the database is unavailable.
async fn open_lanes(lanes: &BTreeMap<String, Arc<Lane>>) -> Result<(), WorkerError> {
    let failures = &FailureLog::default();
    let open = |lane: Arc<Lane>| async move {
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
    };
    stream::iter(lanes.values().cloned().map(Ok))
        .try_for_each_concurrent(OPENED_AT_ONCE, open)
        .await
}
