//! One process of the fleet: a lane for each app, a recorder for all of them, and an ordered end.

mod claim_loop;
mod clock_follower;
mod delivery;
mod lane;
mod listener;
mod liveness;
mod maintenance;
mod poller;
mod recorder;
mod restart;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{AppConfig, WorkerConfig};
use crate::error_text::database_error_text;
use crate::outbox::{AdaptiveTimeout, Outbox, is_outage};
use crate::sanitize;
use crate::signaling::{Client, ClientSettings, InvalidClient};
use crate::telemetry::log_throttle::LogThrottle;
use claim_loop::ClaimLoop;
pub(crate) use clock_follower::CLOCK_STEPS;
pub(crate) use lane::metrics::{
    CALL_DURATION, CALLS, LANE_PANICS, MESSAGES_FINISHED, QUEUE_WAIT, SLOTS_MISSED,
};
use lane::{Lane, LaneSearch};
pub(crate) use liveness::{Liveness, Stuck};
use maintenance::{Reporter, StatsFlusher, delete_finished};
use poller::{PollAlarm, Poller};
use recorder::{Delivered, Recorder};
use restart::restart_after_panics;

/// How often a database that is away while the work begins is tried.
const DATABASE_RETRY: Duration = Duration::from_secs(1);
/// How much of its apps' names a worker says when it starts.
const MAX_ALIASES_CHARS: usize = 500;

/// How much of a panic's text is logged.
const MAX_PANIC_CHARS: usize = 300;

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
    /// A part of the worker has failed: a defect, told of by what it has printed.
    #[error(
        "a part of the worker has failed: start it again, and report what it printed before this"
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

    let recorder = Recorder {
        outbox: Arc::clone(&outbox),
        name: config.name.clone(),
        timeout: AdaptiveTimeout::default(),
        lag,
        late: LogThrottle::default(),
        refused: LogThrottle::default(),
    };
    let mut recorder = tokio::spawn(recorder.run(inbox));
    let listener = tokio::spawn(listener::run(
        Arc::clone(&outbox),
        lanes.clone(),
        listening,
        shutdown.clone(),
    ));
    liveness.begin(
        lanes.iter().map(|lane| lane.liveness()).collect(),
        recorder_lag,
    );
    let mut loops = spawn_lanes(&lanes, &records, &deliveries, &shutdown);
    drop(records);
    let poller = Poller::new(&outbox, &lanes, config.timing.poll_interval);
    loops.spawn(poller.run(shutdown.clone()));
    let reporter = Reporter::new(&outbox, &lanes, config.name, config.host);
    loops.spawn(reporter.run(shutdown.clone()));
    let stats_flusher = Arc::new(StatsFlusher {
        outbox: Arc::clone(&outbox),
        lanes: lanes.clone(),
    });
    let mut stats_flushing = tokio::spawn(Arc::clone(&stats_flusher).run(shutdown.clone()));
    if let Some(retention) = config.retention {
        let deleting = delete_finished(outbox, lanes.clone(), retention, shutdown.clone());
        loops.spawn(deleting);
    }

    // None of these ends by itself: if one does, it has failed, and the process is of no use without it.
    let failed = tokio::select! {
        biased;
        () = shutdown.cancelled() => false,
        _ = &mut recorder => true,
        _ = loops.join_next() => true,
        _ = &mut stats_flushing => true,
    };
    if failed {
        shutdown.cancel();
        return Err(WorkerError::Failed);
    }
    tracing::debug!(
        event = "drain_started",
        "stopping: claims nothing more, finishes what is in flight"
    );
    listener.abort();
    let drained = tokio::time::timeout(config.drain_timeout, async {
        while loops.join_next().await.is_some() {}
        deliveries.close();
        deliveries.wait().await;
        recorder.await.ok();
    });
    if drained.await.is_err() {
        let unfinished = lanes.iter().map(|lane| lane.in_flight()).sum();
        return Err(WorkerError::NotDrained {
            unfinished,
            drain_timeout: config.drain_timeout,
        });
    }
    save_last_stats(stats_flushing, &stats_flusher).await;
    tracing::info!(event = "worker_stopped", "stopped: everything is recorded");
    Ok(())
}

fn spawn_lanes(
    lanes: &[Arc<Lane>],
    records: &mpsc::Sender<Delivered>,
    deliveries: &TaskTracker,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    for lane in lanes {
        loops.spawn(run_lane(
            Arc::clone(lane),
            records.clone(),
            deliveries.clone(),
            shutdown.clone(),
        ));
    }
    loops.spawn(clock_follower::run(lanes.to_vec(), shutdown.clone()));
    loops
}

/// Runs the loop of a lane until the shutdown, also where it panics: the other lanes go on meanwhile.
async fn run_lane(
    lane: Arc<Lane>,
    records: mpsc::Sender<Delivered>,
    deliveries: TaskTracker,
    shutdown: CancellationToken,
) {
    let start = || {
        let claim_loop = ClaimLoop::new(Arc::clone(&lane), records.clone(), deliveries.clone());
        claim_loop.run(shutdown.clone())
    };
    restart_after_panics(start, &shutdown, |panic| {
        lane.stats.panicked();
        tracing::error!(
            event = "lane_panicked",
            app = lane.app,
            error = sanitize::text(&panic.to_string(), MAX_PANIC_CHARS),
            "the loop of this lane has failed, which is a defect: it is started again. Please report it"
        );
    })
    .await;
}

/// Saves the last stats, but does not wait long for a database that fails.
async fn save_last_stats(flushing: JoinHandle<()>, stats_flusher: &StatsFlusher) {
    let saving = async {
        flushing.await.ok();
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

/// Lanes that are opened at once. One after the other, a thousand apps would wait for a thousand round trips.
const OPENED_AT_ONCE: usize = 4;

/// Makes sure that each app has its lane, also where the database is away while the work begins.
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
    while let Err(error) = lane.open(LaneSearch::Starting).await {
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
