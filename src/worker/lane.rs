//! The lane of one app in this process: what its loop, its deliveries, the poller and the recorder share.
//!
//! Other workers share only the lane's row in `signaling.lane`: see `row.rs`.

pub(super) mod circuit_breaker;
mod heartbeat;
mod in_flight;
mod lane_log;
mod outage_grace;
mod poll_plan;
mod row;
pub(super) mod stats;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{AppConfig, UsageError, WorkerConfig};
use crate::outbox::{AppReport, BEGINNING, Batch, Hold, HoldKind, NextDue, Outbox, ScanPosition};
use crate::pace::DbTime;
use crate::signaling::Client;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::log_throttle::LogThrottle;
use circuit_breaker::{CircuitBreaker, Transition};
use heartbeat::Heartbeat;
pub(super) use in_flight::{CapacityPermit, InFlight, OpenCall};
use lane_log::LaneLog;
use outage_grace::OutageGrace;
use poll_plan::PollPlan;
pub(super) use row::AttemptReport;
use stats::LaneStats;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Arc<Outbox>,
    /// Without the apps: each lane has its own.
    pub(super) config: WorkerConfig,
    /// True while the listener has a connection, so that inserts can notify this process.
    pub(super) listening: AtomicBool,
    /// Since when the recorder lags. Meanwhile no lane claims.
    pub(super) recorder_lag: watch::Sender<Option<Instant>>,
    /// Wakes the poller, because a lane needs a poll sooner.
    pub(super) poll_planned: Notify,
    /// One outage is logged once, although the claims of all lanes fail.
    pub(super) database_failures: FailureLog,
    pub(super) hasher: RandomState,
    pub(super) shutdown: CancellationToken,
}

impl Shared {
    /// The estimated time of the database; 1970 before the first claim.
    pub(super) fn now(&self) -> DbTime {
        let clock = self.outbox.clock().get();
        clock.map_or(DbTime::default(), |clock| clock.at(Instant::now()))
    }

    /// The time for decisions that end a message. For a minute after a step of the database's clock, it is the earlier of
    /// the times before and after the step.
    pub(super) fn steady_now(&self) -> DbTime {
        let now = self.now();
        self.steady_time().map_or(now, |time| time.min(now))
    }

    fn steady_time(&self) -> Option<DbTime> {
        let clock = self.outbox.clock();
        clock.ended_before(Instant::now(), self.config.timing.lease())
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) app: String,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) in_flight: Arc<InFlight>,
    pub(super) client: Arc<Client>,
    pub(super) shared: Arc<Shared>,
    /// One permit: while another session has locked the lane's row, this worker's writers tie up one connection only.
    row_writer: Semaphore,
    update_failures: FailureLog,
    log: LaneLog,
    pub(super) delivery_panics: LogThrottle,
    pub(super) breaker: Mutex<CircuitBreaker>,
    pub(super) polls: Mutex<PollPlan>,
    pub(super) outage_grace: Mutex<OutageGrace>,
    pub(super) stats: LaneStats,
    /// Messages of claims up to this moment are released if they still wait for their slot.
    pub(super) released_at: Mutex<Option<Instant>>,
    /// Wakes the loop to claim.
    pub(super) wakeup: Notify,
    /// Wakes the idle loop to read when its next message is due.
    pub(super) rescheduled: Notify,
}

impl Lane {
    pub(super) fn new(config: AppConfig, shared: Arc<Shared>) -> Result<Arc<Self>, UsageError> {
        let app = config.alias.clone();
        let in_flight = Arc::new(InFlight::new(config.max_in_flight));
        let client = Client::new(config, shared.config.timing)
            .map_err(|error| UsageError(format!("the app {app:?}: {error}")))?;
        Ok(Arc::new(Self {
            heartbeat: Heartbeat::new(Instant::now(), Duration::ZERO),
            in_flight,
            client,
            shared,
            row_writer: Semaphore::new(1),
            update_failures: FailureLog::default(),
            log: LaneLog::new(&app),
            delivery_panics: LogThrottle::default(),
            breaker: Mutex::new(CircuitBreaker::new(Instant::now())),
            polls: Mutex::default(),
            outage_grace: Mutex::default(),
            stats: LaneStats::new(&app),
            released_at: Mutex::default(),
            wakeup: Notify::new(),
            rescheduled: Notify::new(),
            app,
        }))
    }

    pub(super) fn plan_poll(&self, now: Instant) -> Instant {
        let is_listening = self.shared.listening.load(Ordering::Relaxed);
        let poll_interval = self.shared.config.timing.poll_interval;
        self.polls.lock().plan(now, is_listening, poll_interval)
    }

    pub(super) fn poll_soon(&self) {
        self.polls.lock().poll_soon();
        self.shared.poll_planned.notify_one();
    }

    /// This process put a message back: without an attempt, or for a retry. The loop claims it when it is due.
    pub(super) fn put_back(&self, due_at: DbTime, id: i64, is_retry: bool) {
        self.polls.lock().put_back(due_at, id, is_retry);
        self.rescheduled.notify_one();
    }

    /// Leases and expiries up to this time of the database are over; none before the first claim. A lease that ended later
    /// may still be in use, because its worker could not record during an outage, or because the clock was set.
    pub(super) fn ended_before(&self) -> Option<DbTime> {
        let lost_before = self.outage_grace.lock().lost_before;
        let steady_time = self.shared.steady_time();
        steady_time.into_iter().chain(lost_before).min()
    }

    /// Forgets remembered times after a step of the database's clock, because they are times of another clock.
    pub(super) fn clock_stepped(&self) {
        self.release_unsent();
        self.polls.lock().position = BEGINNING;
        self.poll_soon();
        self.wakeup.notify_one();
    }

    /// Releases each message that waits for its slot: none of them is sent after this.
    pub(super) fn release_unsent(&self) {
        *self.released_at.lock() = Some(Instant::now());
    }

    pub(super) fn report(&self) -> AppReport {
        let breaker = self.breaker.lock();
        AppReport {
            app: self.app.clone(),
            accepted: breaker.accepted_messages,
            failed: breaker.failed_attempts,
            is_doubting: breaker.is_doubting(),
            aside_reason: breaker.aside_reason().map(str::to_owned),
        }
    }

    pub(super) fn claimed(&self, from: ScanPosition, batch: &Batch) {
        self.outage_grace.lock().answered(batch.at, Instant::now());
        self.heartbeat.beat(Duration::ZERO);
        self.stats.ended_uncalled(batch.at, batch.ended);
        self.log.refused(batch.refused);
        self.observe_hold(batch.at, batch.hold);
        self.log.rate(batch.throttled_per_s, Duration::ZERO);
        self.polls.lock().claimed(from, batch);
        self.shared.poll_planned.notify_one();
    }

    pub(super) fn idle(&self, batch: &Batch) {
        let now = Instant::now();
        self.polls.lock().idle(batch, now);
        self.plan_poll(now);
        self.shared.poll_planned.notify_one();
        let took_nothing = batch.hold.is_none() && batch.messages.is_empty();
        let is_done = took_nothing && self.in_flight.count() == 0;
        if is_done && self.breaker.lock().nothing_due(now) == Transition::Doubt {
            self.release_unsent();
        }
    }

    pub(super) fn polled(&self, next_due: &NextDue) {
        self.observe_hold(next_due.at, next_due.hold);
        // An operator restored another database beneath this worker. The loop opens the lane, which logs the refusal.
        let hold = next_due.hold.map(|hold| hold.kind);
        let environment_changed =
            hold == Some(HoldKind::OtherEnvironment) && !self.is_of_other_environment();
        if self.polls.lock().polled(next_due) || environment_changed {
            self.wakeup.notify_one();
        } else {
            self.rescheduled.notify_one();
        }
    }

    fn observe_hold(&self, at: DbTime, hold: Option<Hold>) {
        let kind = hold.map(|hold| hold.kind);
        let reason = kind.map(|_| self.breaker.lock().reason.clone());
        if !self.log.hold(at, kind, &reason.unwrap_or_default()) {
            return;
        }
        match kind {
            Some(HoldKind::Unauthorized | HoldKind::Unavailable) => self.breaker.lock().lane_held(),
            Some(HoldKind::Paused | HoldKind::OtherEnvironment) => {}
            None => self.breaker.lock().lane_free(Instant::now()),
        }
    }

    /// Applies the counters of the other workers, which may end this worker's doubt.
    pub(super) async fn observe_others(&self, accepted: u64, serving: u32) {
        let mut report = AttemptReport::default();
        {
            let mut breaker = self.breaker.lock();
            report.transition = breaker.observe_others(accepted, serving, Instant::now());
            report.error.clone_from(&breaker.reason);
        }
        self.apply_transition(&report).await;
        self.in_flight.changed.notify_one();
    }

    /// For how long the recorder has saved no outcomes, or has saved them slowly.
    pub(crate) fn recorder_lag(&self) -> Option<Duration> {
        let since = *self.shared.recorder_lag.borrow();
        since.map(|since| since.elapsed())
    }

    /// True if the app belongs to another environment: this worker must change none of its rows.
    pub(super) fn is_of_other_environment(&self) -> bool {
        self.log.is_of_other_environment()
    }

    pub(super) fn log_refused(&self, messages: usize) {
        self.log.refused(messages);
    }
}
