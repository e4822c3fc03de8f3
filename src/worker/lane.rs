//! The lane of one app: what its loop and its deliveries share.

mod circuit_breaker;
mod lane_log;
pub(super) mod metrics;
mod minute_buffer;
mod outage_grace;
mod scan_position;
mod schedule;
mod stats;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::liveness::{Heartbeat, LaneLiveness};
use super::poller::PollAlarm;
use crate::config::Timing;
use crate::error_text::database_error_text;
use crate::outbox::{Batch, HoldKind, NextDue, Outbox, ScanPosition, is_outage};
use crate::outcome::{MAX_RETRY_AFTER, Outcome};
use crate::pace::DbTime;
use crate::retry::RetryPolicy;
use crate::signaling::{Client, RetryAfter};
use crate::telemetry::traces::Traces;
use circuit_breaker::{CircuitBreaker, Transition};
use lane_log::LaneLog;
use outage_grace::OutageGrace;
use scan_position::ScanState;
pub(super) use schedule::Schedule;
use stats::LaneStats;

/// What all lanes of a process share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Arc<Outbox>,
    /// Worker name written to `claimed_by`. Informational; never compared.
    pub(super) name: String,
    pub(super) timing: Timing,
    pub(super) retry: RetryPolicy,
    /// Whether this process is notified of inserts at present.
    pub(super) listening: Arc<AtomicBool>,
    pub(super) poll_alarm: PollAlarm,
    /// Since when the recorder is behind: then nothing is claimed.
    pub(super) recorder_lag: watch::Receiver<Option<Instant>>,
    /// How many lanes have a database that fails, so that one of them says it for all.
    pub(super) failing: AtomicUsize,
    /// Where traces go, if they are asked for.
    pub(super) traces: Option<Traces>,
}

/// What a call said of the API's state.
#[derive(Debug)]
pub(super) struct AttemptReport {
    pub(super) outcome: Outcome,
    pub(super) transition: Transition,
    pub(super) sent_at: DbTime,
    pub(super) error: String,
    pub(super) probe: Option<Uuid>,
}

/// One app, as its loop and its deliveries see it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) app: String,
    pub(super) client: Arc<Client>,
    pub(super) shared: Arc<Shared>,
    /// A permit for each message from its claim until it is recorded: what bounds memory and connections.
    pub(super) capacity: Arc<Semaphore>,
    pub(super) max_in_flight: usize,
    /// Wakes the loop: something is due.
    pub(super) wakeup: Notify,
    /// Has the idle loop read its schedule again.
    pub(super) rescheduled: Notify,
    schedule: Mutex<Schedule>,
    /// When the messages that wait for their slots were last to be given back: those of earlier claims.
    unsent_released_at: Mutex<Option<Instant>>,
    /// One permit, for who writes the lane's row: so that a row which somebody has locked ties up one connection.
    row_writer: Semaphore,
    log: Mutex<LaneLog>,
    pub(super) health: CircuitBreaker,
    pub(super) stats: LaneStats,
    pub(super) heartbeat: Arc<Heartbeat>,
    outage_grace: Mutex<OutageGrace>,
    scan_state: Mutex<ScanState>,
    shutdown: CancellationToken,
}

impl Lane {
    pub(super) fn new(
        app: String,
        client: Arc<Client>,
        max_in_flight: usize,
        shared: Arc<Shared>,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            stats: LaneStats::new(&app),
            heartbeat: Arc::new(Heartbeat::new()),
            app,
            client,
            shared,
            capacity: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            wakeup: Notify::new(),
            rescheduled: Notify::new(),
            schedule: Mutex::default(),
            unsent_released_at: Mutex::default(),
            row_writer: Semaphore::new(1),
            log: Mutex::default(),
            health: CircuitBreaker::default(),
            outage_grace: Mutex::default(),
            scan_state: Mutex::default(),
            shutdown: shutdown.clone(),
        }
    }

    /// Messages between their claim and their record.
    pub(super) fn in_flight(&self) -> usize {
        self.max_in_flight - self.capacity.available_permits()
    }

    /// What others may see of it.
    pub(super) fn liveness(&self) -> LaneLiveness {
        LaneLiveness {
            app: self.app.clone(),
            heartbeat: Arc::clone(&self.heartbeat),
            capacity: Arc::clone(&self.capacity),
            max_in_flight: self.max_in_flight,
        }
    }

    /// How it fares with the database.
    pub(super) fn outage_grace(&self) -> MutexGuard<'_, OutageGrace> {
        self.outage_grace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// From where on its claims look for messages.
    pub(super) fn scan_state(&self) -> MutexGuard<'_, ScanState> {
        self.scan_state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The schedule of the idle loop and the poller.
    pub(super) fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the loop: something is due.
    pub(super) fn wake(&self) {
        self.wakeup.notify_one();
    }

    /// Has the poller look at this lane as soon as it can.
    pub(super) fn look_soon(&self) {
        let now = Instant::now();
        self.scan_state().look_soon();
        self.schedule().look_soon(now);
        self.shared.poll_alarm.set(now);
    }

    /// Takes in how far a claim has come that began at `from`. The poller may have to look at the rest sooner.
    pub(super) fn scan_claimed(&self, from: ScanPosition, batch: &Batch) {
        let mut scan = self.scan_state();
        scan.claimed(from, batch);
        self.shared.poll_alarm.set(scan.next_full_look());
    }

    /// Takes in that the loop is idle after a claim.
    pub(super) fn idle(&self, batch: &Batch) {
        let now = Instant::now();
        self.schedule().idle(batch, now);
        self.shared.poll_alarm.set(self.plan_poll(now));
    }

    /// Sets when the poller looks at this lane next, and returns that.
    pub(super) fn plan_poll(&self, now: Instant) -> Instant {
        let is_listening = self.shared.listening.load(Ordering::Relaxed);
        let poll_interval = self.shared.timing.poll_interval;
        self.schedule().plan_poll(now, is_listening, poll_interval)
    }

    /// Takes in that a message goes back to the queue: the loop wakes when it is due.
    pub(super) fn returned(&self, due_at: DbTime, id: i64, is_retry: bool) {
        self.scan_state().returned(due_at, id, is_retry);
        self.schedule().due_at(due_at);
        self.rescheduled.notify_one();
    }

    /// The present estimate of the database's time.
    pub(super) fn now(&self) -> DbTime {
        // A lane has claimed, and so read the clock, before anybody asks.
        self.shared
            .outbox
            .clock()
            .get()
            .map_or(DbTime::from_micros(0), |clock| clock.at(Instant::now()))
    }

    /// Gives back every message that waits for its slot: none of their calls starts after this.
    pub(super) fn release_unsent(&self) {
        *self.unsent_released_at() = Some(Instant::now());
    }

    /// When messages that waited for their slots were last given back.
    pub(super) fn unsent_released_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unsent_released_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Does for the whole fleet what follows from a call.
    pub(super) async fn apply(&self, report: &AttemptReport) {
        let AttemptReport { probe, sent_at, .. } = *report;
        // Before a probe that was answered 429 lets the others go on.
        if let Outcome::Throttled(retry_after) = &report.outcome {
            let asked = retry_after.map_or(Duration::ZERO, |RetryAfter(asked)| {
                asked.min(MAX_RETRY_AFTER)
            });
            self.throttle(sent_at, asked).await;
        }
        match (report.transition, probe) {
            (Transition::Release, Some(probe)) => self.release_hold(probe).await,
            (Transition::Hold(kind), _) => self.hold(kind, &report.error, probe).await,
            (Transition::None | Transition::Release, _) => {}
        }
    }

    /// Holds the app for the whole fleet: its messages are not at fault.
    pub(super) async fn hold(&self, kind: HoldKind, reason: &str, probe: Option<Uuid>) {
        self.release_unsent();
        // Of the many calls that fail together, one tells the fleet.
        let Some(_steering) = self.write_permit(probe.is_some()).await else {
            return;
        };
        let outbox = &self.shared.outbox;
        let mut tries = Tries::of(probe);
        let held = loop {
            let held = outbox.hold(&self.app, kind, reason, probe).await;
            if held.is_ok() || !tries.another(&self.shutdown).await {
                break held;
            }
        };
        match held {
            Ok(is_new) => {
                // The next probe is made when this pause is over.
                self.look_soon();
                if !is_new {
                    return;
                }
                // What the API says after that may repeat the message, and is in the lane's row.
                let reason = reason.split(": ").next().unwrap_or_default();
                self.log().held(&self.app, self.now(), kind, reason);
            }
            Err(error) => self.log_failure("held", &error),
        }
    }

    /// Slows the app for the whole fleet.
    async fn throttle(&self, sent_at: DbTime, retry_after: Duration) {
        if retry_after > Duration::ZERO {
            self.release_unsent();
        }
        let Some(_steering) = self.write_permit(false).await else {
            return;
        };
        match self
            .shared
            .outbox
            .throttle(&self.app, sent_at, retry_after)
            .await
        {
            Ok(Some(rate_per_s)) => {
                self.release_unsent();
                self.log()
                    .slowed(&self.app, self.now(), rate_per_s, retry_after);
            }
            Ok(None) => {}
            Err(error) => self.log_failure("slowed", &error),
        }
    }

    /// The right to write the lane's row. Who need not wait for it goes without.
    async fn write_permit(&self, waits: bool) -> Option<SemaphorePermit<'_>> {
        if waits {
            self.row_writer.acquire().await.ok()
        } else {
            self.row_writer.try_acquire().ok()
        }
    }

    fn log(&self) -> MutexGuard<'_, LaneLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process writes the lane's row at present: then it says itself what that changes.
    fn is_writing_row(&self) -> bool {
        self.row_writer.available_permits() == 0
    }

    /// Lets another message probe, where the one that was to did not make a call.
    pub(super) async fn release_probe(&self, probe: Uuid) {
        let outbox = &self.shared.outbox;
        let mut tries = Tries::of(Some(probe));
        while let Err(error) = outbox.release(&self.app, &[probe]).await {
            if tries.another(&self.shutdown).await {
                continue;
            }
            tracing::debug!(
                event = "probe_release_failed",
                app = self.app,
                error = database_error_text(&error),
                "a probe could not be given back: the next one is later"
            );
            break;
        }
        self.look_soon();
    }

    /// Lets the app go on for the whole fleet.
    async fn release_hold(&self, probe: Uuid) {
        let _steering = self.write_permit(true).await;
        let outbox = &self.shared.outbox;
        let mut tries = Tries::of(Some(probe));
        let released = loop {
            let released = outbox.release_hold(&self.app, probe).await;
            if released.is_ok() || !tries.another(&self.shutdown).await {
                break released;
            }
        };
        match released {
            Ok(true) => self.log().released(&self.app, self.now()),
            Ok(false) => {}
            Err(error) => self.log_failure("released", &error),
        }
    }

    /// A claim shows in which state the lane is.
    pub(super) fn observe_claim(&self, batch: &Batch) {
        if !self.is_writing_row() {
            let mut log = self.log();
            log.seen_rate(&self.app, batch.at, batch.throttled_per_s);
            log.seen(&self.app, batch.at, batch.hold.map(|hold| hold.kind));
        }
    }

    /// Takes in when the next messages are due.
    pub(super) fn observe_next_due(&self, next_due: &NextDue) {
        if self.schedule().observe_next_due(next_due) {
            self.wake();
        } else {
            self.rescheduled.notify_one();
        }
        if !self.is_writing_row() {
            let hold = next_due.hold.map(|hold| hold.kind);
            self.log().seen(&self.app, next_due.at, hold);
        }
    }

    fn log_failure(&self, what: &str, error: &sqlx::Error) {
        let (app, error_text) = (&self.app, database_error_text(error));
        // The loop says it of a database that is away.
        if is_outage(error) {
            tracing::debug!(
                event = "lane_update_failed",
                app,
                error = error_text,
                "the lane could not be {what}"
            );
        } else {
            tracing::warn!(
                event = "lane_update_failed",
                app,
                error = error_text,
                "the lane could not be {what}"
            );
        }
    }
}

/// How often what a probe has found out is told to a database that fails: nobody else will say it, and until the end of
/// its lease everybody waits for it.
const MOST_TRIES: u32 = 8;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The tries that are left.
struct Tries(u32);

impl Tries {
    /// Several for a probe. Others need no more than one: the next call that goes like them says the same.
    fn of(probe: Option<Uuid>) -> Self {
        Self(if probe.is_some() { MOST_TRIES - 1 } else { 0 })
    }

    /// Waits for the next try, if there is one. A shutdown does not wait for it.
    async fn another(&mut self, shutdown: &CancellationToken) -> bool {
        if self.0 == 0 {
            return false;
        }
        self.0 -= 1;
        let pause = tokio::time::sleep(TRY_AGAIN_AFTER);
        shutdown.run_until_cancelled(pause).await.is_some()
    }
}
