//! The lane of one app in this process: what its loop, its deliveries, the poller and the recorder share.
//!
//! Workers of other processes share only the lane's row in `signaling.lane`: see `row.rs`.

pub(super) mod circuit_breaker;
mod in_flight;
mod lane_log;
mod outage_grace;
mod row;
mod scan_position;
mod schedule;
pub(super) mod stats;

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::liveness::Heartbeat;
use crate::config::Timing;
use crate::outbox::{AppReport, Batch, Hold, HoldKind, HoldResult, NextDue, Outbox, ScanPosition};
use crate::pace::DbTime;
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::signaling::Client;
use crate::telemetry::failure_log::FailureLog;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::traces::Traces;
use circuit_breaker::{CircuitBreaker, Decision, Transition};
pub(super) use in_flight::{CapacityPermit, InFlight, OpenCall};
use lane_log::{log_returned, log_stepped_aside};
use outage_grace::OutageGrace;
use row::LaneRow;
pub(super) use row::OpenReason;
use scan_position::ScanState;
use schedule::Schedule;
use stats::LaneStats;

/// The parts of a process that all its lanes use.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Arc<Outbox>,
    /// Worker name written to `claimed_by`. Informational; never compared.
    pub(super) name: String,
    pub(super) environment: Option<String>,
    pub(super) timing: Timing,
    pub(super) proxies: ProxyVariables,
    pub(super) retry: RetryPolicy,
    /// True while the listener has a connection, so that inserts can notify this process.
    pub(super) listening: AtomicBool,
    /// Since when the recorder lags. Meanwhile no lane claims.
    pub(super) recorder_lag: watch::Sender<Option<Instant>>,
    /// One outage is logged once, although the claims of all lanes fail.
    pub(super) database_failures: FailureLog,
    pub(super) traces: Option<Traces>,
    /// Hashes destinations for the circuit breaker.
    pub(super) hasher: RandomState,
    pub(super) shutdown: CancellationToken,
}

impl Shared {
    /// The estimated time of the database; 1970 before the first claim.
    pub(super) fn now(&self) -> DbTime {
        let clock = self.outbox.clock().get();
        clock.map_or(DbTime::from_micros(0), |clock| clock.at(Instant::now()))
    }

    /// The time for decisions that end a message. For a minute after a step of the database's clock, it is the earlier of
    /// the times before and after the step.
    pub(super) fn steady_now(&self) -> DbTime {
        let now = self.now();
        self.steady_time().map_or(now, |time| time.min(now))
    }

    fn steady_time(&self) -> Option<DbTime> {
        let clock = self.outbox.clock();
        clock.ended_before(Instant::now(), self.timing.lease)
    }
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) app: String,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) in_flight: Arc<InFlight>,
    pub(super) client: Arc<Client>,
    pub(super) shared: Arc<Shared>,
    pub(super) row: LaneRow,
    pub(super) breaker: Mutex<CircuitBreaker>,
    pub(super) schedule: Mutex<Schedule>,
    pub(super) scan: Mutex<ScanState>,
    pub(super) outage_grace: Mutex<OutageGrace>,
    pub(super) stats: LaneStats,
    /// Messages of claims up to this moment go back without an attempt if they still wait for their slot.
    pub(super) released_at: Mutex<Option<Instant>>,
    /// Wakes the loop to claim.
    pub(super) wakeup: Notify,
    /// Wakes the idle loop to read its schedule again.
    pub(super) rescheduled: Notify,
    pub(super) delivery_panics: LogThrottle,
    refused: LogThrottle,
}

/// The part of a finished attempt that changes the lane.
#[derive(Debug)]
pub(super) struct AttemptReport {
    pub(super) transition: Transition,
    pub(super) sent_at: DbTime,
    pub(super) error: String,
    pub(super) retry_after: Duration,
    pub(super) probe: Option<Uuid>,
}

impl Lane {
    pub(super) fn new(
        app: String,
        client: Arc<Client>,
        limit_per_s: f64,
        max_in_flight: usize,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            heartbeat: Heartbeat::new(),
            in_flight: Arc::new(InFlight::new(max_in_flight)),
            client,
            row: LaneRow::new(app.clone(), limit_per_s, Arc::clone(&shared)),
            shared,
            breaker: Mutex::new(CircuitBreaker::new(Instant::now())),
            schedule: Mutex::default(),
            scan: Mutex::default(),
            outage_grace: Mutex::default(),
            stats: LaneStats::new(&app),
            released_at: Mutex::default(),
            wakeup: Notify::new(),
            rescheduled: Notify::new(),
            delivery_panics: LogThrottle::default(),
            refused: LogThrottle::default(),
            app,
        }
    }

    pub(super) fn wake(&self) {
        self.wakeup.notify_one();
    }

    /// Makes the poller scan this lane soon, because due messages may be anywhere.
    pub(super) fn poll_soon(&self) {
        let now = Instant::now();
        self.scan.lock().scan_soon();
        self.schedule.lock().poll_soon(now);
    }

    pub(super) fn plan_poll(&self, now: Instant) -> Instant {
        let is_listening = self.shared.listening.load(Ordering::Relaxed);
        let poll_interval = self.shared.timing.poll_interval;
        let mut schedule = self.schedule.lock();
        schedule.plan_poll(now, is_listening, poll_interval)
    }

    /// This process put a message back: without an attempt, or for a retry. The loop claims it when it is due.
    pub(super) fn put_back(&self, due_at: DbTime, id: i64, is_retry: bool) {
        self.scan.lock().include(due_at, id, is_retry);
        self.schedule.lock().add_due(due_at);
        self.rescheduled.notify_one();
    }

    /// Leases and expiries up to this time of the database are over; none before the first claim. A lease that ended later
    /// may still be in use, because its worker could not record during an outage, or because the clock was set.
    pub(super) fn ended_before(&self) -> Option<DbTime> {
        let lost_before = self.outage_grace.lock().lost_before();
        let steady_time = self.shared.steady_time();
        steady_time.into_iter().chain(lost_before).min()
    }

    /// Forgets remembered times after a step of the database's clock, because they are times of another clock.
    pub(super) fn clock_stepped(&self) {
        self.release_unsent();
        self.scan.lock().restart();
        self.poll_soon();
        self.wake();
    }

    /// Releases each message that waits for its slot: none of them is sent after this.
    pub(super) fn release_unsent(&self) {
        *self.released_at.lock() = Some(Instant::now());
    }

    /// The counters of this lane for the other workers.
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

    /// Applies a claim that began at `from`.
    pub(super) fn claimed(&self, from: ScanPosition, batch: &Batch) {
        self.outage_grace.lock().answered(batch.at, Instant::now());
        self.heartbeat.beat(Duration::ZERO);
        self.stats.ended_uncalled(batch.at, batch.ended);
        self.log_refused(batch.refused);
        self.observe_hold(batch.hold);
        self.row.log_claim(batch);
        self.scan.lock().claimed(from, batch);
    }

    /// The loop is idle after this claim.
    pub(super) fn idle(&self, batch: &Batch) {
        let now = Instant::now();
        self.schedule.lock().idle(batch, now);
        self.plan_poll(now);
        if batch.hold.is_none() && batch.messages.is_empty() && self.in_flight.count() == 0 {
            let transition = self.breaker.lock().nothing_due(now);
            self.apply_transition(transition);
        }
    }

    /// Applies the result of a poll.
    pub(super) fn polled(&self, next_due: &NextDue) {
        if self.schedule.lock().polled(next_due) {
            self.wake();
        } else {
            self.rescheduled.notify_one();
        }
        self.observe_hold(next_due.hold);
        let is_logged = self.row.log_hold(next_due.at, next_due.hold);
        // An operator restored another database beneath this worker. The loop opens the lane, which logs the refusal.
        let environment_changed = next_due
            .hold
            .is_some_and(|hold| hold.kind == HoldKind::OtherEnvironment)
            && !self.row.is_refused();
        if is_logged && environment_changed {
            self.wake();
        }
    }

    fn observe_hold(&self, hold: Option<Hold>) {
        match hold.map(|hold| hold.kind) {
            Some(HoldKind::Unauthorized | HoldKind::Unavailable) => self.breaker.lock().lane_held(),
            Some(HoldKind::Paused | HoldKind::OtherEnvironment) => {}
            None => self.breaker.lock().lane_free(Instant::now()),
        }
    }

    /// Opens the lane again if its row was deleted, or if the row names another environment.
    pub(super) async fn open(&self, reason: OpenReason) -> Result<(), sqlx::Error> {
        let is_open = self.row.open(reason).await?;
        // An operator has adopted the app by now.
        if is_open && reason == OpenReason::OtherEnvironment {
            self.wake();
        }
        Ok(())
    }

    /// Applies a change of the circuit breaker to this process.
    pub(super) fn apply_transition(&self, transition: Transition) {
        match transition {
            Transition::None | Transition::Throttle => {}
            Transition::Doubt => {
                self.release_unsent();
                tracing::debug!(
                    event = "worker_doubts",
                    app = self.app,
                    "calls of this worker fail: it claims nothing until it knows the results of other workers"
                );
            }
            Transition::Extend(_) => self.release_unsent(),
            Transition::Release | Transition::Return => self.in_flight.changed.notify_one(),
        }
    }

    /// Writes the consequence of an attempt to the lane's row.
    pub(super) async fn write_transition(&self, report: &AttemptReport) {
        match (report.transition, report.probe) {
            (Transition::Throttle, _) => {
                if report.retry_after > Duration::ZERO {
                    self.release_unsent();
                }
                if self.row.throttle(report.sent_at, report.retry_after).await {
                    self.release_unsent();
                }
            }
            (Transition::Release, Some(probe)) => self.row.release_hold(probe).await,
            (Transition::Extend(kind), Some(probe)) => {
                self.hold(kind, &report.error, Some(probe)).await;
            }
            (Transition::Return, _) => log_returned(&self.app),
            (
                Transition::None | Transition::Doubt | Transition::Release | Transition::Extend(_),
                _,
            ) => {}
        }
    }

    /// Applies the counters of the other workers, which may end this worker's doubt.
    pub(super) async fn observe_others(&self, accepted: u64, serving: u32) {
        let now = Instant::now();
        let decision = self.breaker.lock().observe_others(accepted, serving, now);
        match decision {
            Some(Decision::Hold { kind, reason }) => self.hold(kind, &reason, None).await,
            Some(Decision::SteppedAside { reason }) => log_stepped_aside(&self.app, &reason),
            Some(Decision::Returned) => log_returned(&self.app),
            None => {}
        }
        self.in_flight.changed.notify_one();
    }

    async fn hold(&self, kind: HoldKind, reason: &str, probe: Option<Uuid>) {
        match self.row.hold(kind, reason, probe).await {
            Some(HoldResult::TooSoon) => self.breaker.lock().hold_refused(Instant::now()),
            Some(HoldResult::Held | HoldResult::Extended | HoldResult::Other) => {
                self.breaker.lock().lane_held();
                // The poller finds the end of the hold's pause, when the next probe is due.
                self.poll_soon();
            }
            None => {}
        }
    }

    /// Releases a probe that made no call, so that another message can probe.
    pub(super) async fn release_probe(&self, probe: Uuid) {
        self.row.release_probe(probe).await;
        self.poll_soon();
    }

    /// Logs that a trigger or a constraint keeps messages from being claimed or ended.
    pub(super) fn log_refused(&self, messages: usize) {
        if messages > 0
            && let Some(suppressed) = self.refused.admit()
        {
            tracing::error!(
                event = "messages_refused",
                app = self.app,
                messages,
                suppressed,
                "a trigger or a constraint in the database refuses changes of these messages or takes seconds for each, so they are not sent; other messages are. `worker check` names the trigger or the constraint, and signaling.refused lists the messages. Correct it, and `worker resume` tries the messages at once"
            );
        }
    }
}
