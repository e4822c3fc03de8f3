//! Starts the tasks of a worker. Each task starts again after a panic, until the shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claim_loop::ClaimLoop;
use super::clock_follower;
use super::lane::Lane;
use super::listener;
use super::maintenance::{Reporter, StatsFlusher, delete_finished};
use super::poller::Poller;
use super::recorder::{Delivered, Recorder};
use super::restart::{Task, restart_after_panics};
use crate::outbox::{Outbox, WorkerIdentity};

/// The parts of the worker that several tasks share.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) outbox: Arc<Outbox>,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) shutdown: CancellationToken,
}

impl Tasks {
    /// Starts the loops of all lanes.
    pub(super) fn spawn_lanes(
        &self,
        records: &mpsc::Sender<Delivered>,
        deliveries: &TaskTracker,
    ) -> JoinSet<()> {
        let mut loops = JoinSet::new();
        for lane in &self.lanes {
            let (lane, records) = (Arc::clone(lane), records.clone());
            loops.spawn(self.clone().lane(lane, records, deliveries.clone()));
        }
        loops
    }

    async fn lane(
        self,
        lane: Arc<Lane>,
        records: mpsc::Sender<Delivered>,
        deliveries: TaskTracker,
    ) {
        let start = || {
            let claim_loop = ClaimLoop::new(Arc::clone(&lane), records.clone(), deliveries.clone());
            claim_loop.run(self.shutdown.clone())
        };
        restart_after_panics(Task::Lane, Some(&lane.app), &self.shutdown, start, || ()).await;
    }

    pub(super) async fn listener(self, listening: Arc<AtomicBool>) {
        let start = || {
            listener::run(
                Arc::clone(&self.outbox),
                self.lanes.clone(),
                Arc::clone(&listening),
                self.shutdown.clone(),
            )
        };
        // The poller then polls more often.
        let on_panic = || listening.store(false, Ordering::Relaxed);
        restart_after_panics(Task::Listener, None, &self.shutdown, start, on_panic).await;
    }

    pub(super) async fn poller(self, poll_interval: Duration) {
        let start = || {
            let poller = Poller::new(&self.outbox, &self.lanes, poll_interval);
            poller.run(self.shutdown.clone())
        };
        restart_after_panics(Task::Poller, None, &self.shutdown, start, || ()).await;
    }

    /// A restarted reporter keeps the identity: with a new one, this worker would count twice.
    pub(super) async fn reporter(self, identity: WorkerIdentity) {
        let start = || {
            let reporter = Reporter::new(&self.outbox, &self.lanes, identity.clone());
            reporter.run(self.shutdown.clone())
        };
        restart_after_panics(Task::Reporter, None, &self.shutdown, start, || ()).await;
    }

    /// The receiver outlives a panic, so a step during the restart is not lost.
    pub(super) async fn clock_follower(self) {
        let steps = self.outbox.clock().steps();
        let start =
            || clock_follower::run(self.lanes.clone(), steps.clone(), self.shutdown.clone());
        restart_after_panics(Task::ClockFollower, None, &self.shutdown, start, || ()).await;
    }

    pub(super) async fn stats_flusher(self, stats_flusher: Arc<StatsFlusher>) {
        let start = || Arc::clone(&stats_flusher).run(self.shutdown.clone());
        restart_after_panics(Task::StatsFlusher, None, &self.shutdown, start, || ()).await;
    }

    pub(super) async fn janitor(self, retention: Duration) {
        let start = || {
            delete_finished(
                Arc::clone(&self.outbox),
                self.lanes.clone(),
                retention,
                self.shutdown.clone(),
            )
        };
        restart_after_panics(Task::Janitor, None, &self.shutdown, start, || ()).await;
    }
}

/// Runs until all deliveries are recorded. A shutdown does not end this task, because deliveries still send outcomes.
pub(super) async fn run_recorder(recorder: Arc<Recorder>) {
    let never = CancellationToken::new();
    let start = || recorder.run();
    let on_panic = || recorder.mark_lagging();
    restart_after_panics(Task::Recorder, None, &never, start, on_panic).await;
}
