//! The lane of one app: what its loop and its deliveries share.

pub(super) mod circuit_breaker;
mod destinations;
mod fleet_state;
mod lane_log;
pub(super) mod metrics;
mod minute_buffer;
mod opening;
mod outage_grace;
mod scan_position;
mod schedule;
mod silence;
mod stats;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::liveness::{Heartbeat, LaneLiveness};
use super::poller::PollAlarm;
use crate::config::Timing;
use crate::message::Message;
use crate::outbox::{AppReport, Batch, Claimed, HoldKind, NextDue, Outbox, ScanPosition};
use crate::pace::DbTime;
use crate::proxy::ProxyVariables;
use crate::retry::RetryPolicy;
use crate::signaling::Client;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::traces::Traces;
use circuit_breaker::CircuitBreaker;
use destinations::Destinations;
pub(super) use fleet_state::AttemptReport;
use lane_log::LaneLog;
pub(super) use opening::OpenReason;
use outage_grace::OutageGrace;
use scan_position::ScanState;
pub(super) use schedule::Schedule;
use silence::OpenCalls;
use stats::LaneStats;

/// What all lanes of a process share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Arc<Outbox>,
    /// Worker name written to `claimed_by`. Informational; never compared.
    pub(super) name: String,
    pub(super) environment: Option<String>,
    pub(super) timing: Timing,
    pub(super) proxies: ProxyVariables,
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

/// One app, as its loop and its deliveries see it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) app: String,
    pub(super) client: Arc<Client>,
    /// The configured limit of the fleet.
    limit_per_s: f64,
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
    /// Bounds the log of attempts that panicked.
    pub(super) delivery_panics: LogThrottle,
    /// Bounds the log of messages that the database refuses to change.
    refused: LogThrottle,
    breaker: Mutex<CircuitBreaker>,
    /// Wakes a loop that waits for a place, or for the circuit breaker.
    pub(super) capacity_changed: Notify,
    destinations: Mutex<Destinations>,
    open_calls: Mutex<OpenCalls>,
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
        limit_per_s: f64,
        max_in_flight: usize,
        shared: Arc<Shared>,
        shutdown: &CancellationToken,
    ) -> Self {
        let now = Instant::now();
        Self {
            stats: LaneStats::new(&app),
            heartbeat: Arc::new(Heartbeat::new()),
            app,
            client,
            limit_per_s,
            shared,
            capacity: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            wakeup: Notify::new(),
            rescheduled: Notify::new(),
            schedule: Mutex::default(),
            unsent_released_at: Mutex::default(),
            row_writer: Semaphore::new(1),
            log: Mutex::default(),
            delivery_panics: LogThrottle::default(),
            refused: LogThrottle::default(),
            breaker: Mutex::new(CircuitBreaker::new(now)),
            capacity_changed: Notify::new(),
            destinations: Mutex::default(),
            open_calls: Mutex::new(OpenCalls::new(now)),
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

    /// Whose fault failed attempts are.
    pub(super) fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn destinations(&self) -> MutexGuard<'_, Destinations> {
        self.destinations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_calls(&self) -> MutexGuard<'_, OpenCalls> {
        self.open_calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// The counters of this lane, for the other workers.
    pub(super) fn report(&self) -> AppReport {
        let breaker = self.breaker();
        AppReport {
            app: self.app.clone(),
            accepted: breaker.accepted_messages(),
            failed: breaker.failed_attempts(),
            is_doubting: breaker.is_doubting(),
            aside_reason: breaker.aside_reason().map(str::to_owned),
        }
    }

    /// Takes in that a claim has found nothing that is due.
    pub(super) fn nothing_due(&self, batch: &Batch) {
        if batch.hold.is_none() && batch.messages.is_empty() && self.in_flight() == 0 {
            let transition = self.breaker().nothing_due(Instant::now());
            self.breaker_has_changed(transition);
        }
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
        // The first claim reads the clock. Before that, this returns 1970.
        self.shared
            .outbox
            .clock()
            .get()
            .map_or(DbTime::from_micros(0), |clock| clock.at(Instant::now()))
    }

    /// Leases and expiries up to this time of the database are over; none before the first claim. A lease that ended later
    /// may still be in use, because its worker could not record during an outage, or because the clock was set.
    pub(super) fn over_before(&self) -> Option<DbTime> {
        let lost_before = self.outage_grace().lost_before();
        self.steady_time().into_iter().chain(lost_before).min()
    }

    /// The present time of the database, or an earlier one if the clock was set a moment ago. Decisions that end a message
    /// use this time.
    pub(super) fn steady_now(&self) -> DbTime {
        let now = self.now();
        self.steady_time().map_or(now, |time| time.min(now))
    }

    fn steady_time(&self) -> Option<DbTime> {
        let clock = self.shared.outbox.clock();
        clock.over_before(Instant::now(), self.shared.timing.lease)
    }

    /// Forgets remembered times after a step of the database's clock, because they are times of another clock.
    pub(super) fn clock_stepped(&self) {
        self.release_unsent();
        self.scan_state().restart();
        self.schedule().look_soon(Instant::now());
        self.shared.poll_alarm.set(Instant::now());
        self.wake();
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

    fn log(&self) -> MutexGuard<'_, LaneLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process writes the lane's row at present: then it says itself what that changes.
    fn is_writing_row(&self) -> bool {
        self.row_writer.available_permits() == 0
    }

    /// A claim shows in which state the lane is.
    pub(super) fn observe_claim(&self, batch: &Batch) {
        self.observe_hold(batch.hold);
        if !self.is_writing_row() {
            let mut log = self.log();
            log.seen_rate(&self.app, batch.at, batch.throttled_per_s);
            log.seen(&self.app, batch.at, batch.hold.map(|hold| hold.kind));
        }
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

    /// Takes in when the next messages are due.
    pub(super) fn observe_next_due(&self, next_due: &NextDue) {
        if self.schedule().observe_next_due(next_due) {
            self.wake();
        } else {
            self.rescheduled.notify_one();
        }
        self.observe_hold(next_due.hold);
        if !self.is_writing_row() {
            let hold = next_due.hold.map(|hold| hold.kind);
            self.log().seen(&self.app, next_due.at, hold);
            // An operator restored another database beneath this worker. The loop opens the lane, which logs the refusal.
            if hold == Some(HoldKind::OtherEnvironment) && !self.is_refused() {
                self.wake();
            }
        }
    }
}

/// A message's place in the lane, from its claim until it is recorded.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    /// The destination or channel, if the place counts for it.
    target: Option<String>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// A place for a message; false if its destination has half of the places already, so that the message has to go back.
    /// None if all places are taken.
    pub(super) fn take(lane: &Arc<Lane>, claimed: &Claimed) -> Option<(Self, bool)> {
        let permit = Arc::clone(&lane.capacity).try_acquire_owned().ok()?;
        let target = claimed
            .message
            .as_ref()
            .ok()
            .map(|message| message.target.name());
        let is_free =
            target.is_none_or(|target| lane.destinations().enter(target, lane.max_in_flight));
        let place = Self {
            lane: Arc::clone(lane),
            target: target.filter(|_| is_free).map(str::to_owned),
            permit: Some(permit),
        };
        Some((place, is_free))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let lane = &self.lane;
        if let Some(target) = &self.target {
            lane.destinations().leave(target, lane.max_in_flight);
        }
        // The loop must not wake before the place is free.
        drop(self.permit.take());
        lane.capacity_changed.notify_one();
    }
}

/// A call that is open, or about to connect, if it does not wait for a receiver: see [`OpenCalls`].
pub(super) struct OpenCall<'lane>(Option<&'lane Lane>);

impl<'lane> OpenCall<'lane> {
    pub(super) fn begin(lane: &'lane Lane, message: &Message) -> Self {
        if message.options.wait_for_ack {
            return Self(None);
        }
        lane.open_calls().began(Instant::now());
        Self(Some(lane))
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if let Some(lane) = self.0 {
            lane.open_calls().ended();
        }
    }
}
