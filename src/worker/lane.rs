//! The lane of one app in this process: what its loop, its deliveries, the poller and the recorder share.
//!
//! Other workers share only the lane's row in `signaling.lane`: see `row.rs`.

pub(super) mod circuit_breaker;
mod in_flight;
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
pub(super) use in_flight::{CapacityPermit, InFlight, OpenCall};
use outage_grace::OutageGrace;
use poll_plan::PollPlan;
pub(super) use row::AttemptReport;
use stats::LaneStats;

/// How much later than promised a lane may beat before it counts as stuck. More than a claim of a slow database takes.
const GRACE: Duration = Duration::from_secs(15);

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
    logged: Mutex<LoggedState>,
    throttled: FailureLog,
    update_failures: FailureLog,
    refused: LogThrottle,
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

/// The last beat of a lane's loop, the longest time until the next beat, and the last database error since. The loop beats when
/// the database has answered a claim or a poll. A loop that gets no answer counts as stuck.
#[derive(Debug)]
pub(crate) struct Heartbeat(Mutex<(Instant, Duration, String)>);

impl Heartbeat {
    /// The lane makes progress at `at`, and waits no longer than `wait` before the next beat.
    pub(super) fn new(at: Instant, wait: Duration) -> Self {
        Self(Mutex::new((at, wait, String::new())))
    }

    pub(super) fn beat(&self, wait: Duration) {
        *self.0.lock() = (Instant::now(), wait, String::new());
    }

    pub(super) fn failed(&self, error: &str) {
        self.0.lock().2 = format!("; last database error: {error}");
    }

    /// The time since the last beat, and the last error since, as text. None until the next beat is overdue.
    pub(crate) fn stuck(&self) -> Option<String> {
        let (at, wait, error) = &*self.0.lock();
        let silent_for = at.elapsed();
        (silent_for > *wait + GRACE).then(|| format!("{} s{error}", silent_for.as_secs()))
    }
}

/// Lane state that this process has logged. Each change is logged once, whether this worker caused it or another one did.
#[derive(Debug, Default)]
struct LoggedState {
    /// A claim or a poll with an earlier time shows an older state.
    as_of: DbTime,
    hold: Option<HoldKind>,
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
            logged: Mutex::default(),
            throttled: FailureLog::default(),
            update_failures: FailureLog::default(),
            refused: LogThrottle::default(),
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
        self.log_refused(batch.refused);
        self.observe_hold(batch.at, batch.hold);
        self.log_rate(batch.throttled_per_s, Duration::ZERO);
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
        let environment_changed = hold == Some(HoldKind::OtherEnvironment) && !self.is_refused();
        if self.polls.lock().polled(next_due) || environment_changed {
            self.wakeup.notify_one();
        } else {
            self.rescheduled.notify_one();
        }
    }

    fn observe_hold(&self, at: DbTime, hold: Option<Hold>) {
        let kind = hold.map(|hold| hold.kind);
        self.log_hold(at, kind);
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
    pub(crate) fn is_refused(&self) -> bool {
        self.logged.lock().hold == Some(HoldKind::OtherEnvironment)
    }

    /// Logs the hold that a claim or a poll shows, if it is a change.
    fn log_hold(&self, at: DbTime, hold: Option<HoldKind>) {
        let mut logged = self.logged.lock();
        // `open` logs another environment.
        if at <= logged.as_of || hold == Some(HoldKind::OtherEnvironment) {
            return;
        }
        logged.as_of = at;
        let app = &self.app;
        let before = std::mem::replace(&mut logged.hold, hold);
        match hold {
            _ if before == hold => {}
            Some(kind @ (HoldKind::Unavailable | HoldKind::Unauthorized)) => {
                let cause = if kind == HoldKind::Unauthorized {
                    "refuses the credentials. Check the app's key and secret, token or certificate"
                } else {
                    "fails or can't be reached"
                };
                let reason = self.breaker.lock().reason.clone();
                let reason = match without_api_text(&reason) {
                    "" => "reported by another worker: see `worker status`",
                    reason => reason,
                };
                tracing::warn!(
                    event = "lane_held",
                    app,
                    hold = kind.into_str(),
                    reason,
                    "lane held: the API {cause}. Messages wait; the worker tries one call at a time, and sends again when the API responds normally"
                );
            }
            Some(HoldKind::Paused | HoldKind::OtherEnvironment) => tracing::info!(
                event = "lane_paused",
                app,
                "lane paused by an operator: no call starts until `worker resume`. `worker status` shows the operator and the reason"
            ),
            None => tracing::info!(
                event = "lane_released",
                app,
                hold = before.map(<&str>::from),
                "lane released: sending again"
            ),
        }
    }

    /// Logs the lane's rate, if it is a change. None: the full rate.
    fn log_rate(&self, throttled_per_s: Option<f64>, retry_after: Duration) {
        match throttled_per_s {
            Some(rate_per_s) if self.throttled.failed() => tracing::warn!(
                event = "lane_throttled",
                app = self.app,
                rate_per_s = format!("{rate_per_s:.1}"),
                retry_after = %humantime::format_duration(retry_after),
                "lane throttled: the API answers 429; the rate climbs back by itself. If this lasts, another program uses the same app ID, or WORKER_RATE is above the limit"
            ),
            None if self.throttled.succeeded() => tracing::info!(
                event = "lane_rate_restored",
                app = self.app,
                "lane back at its full rate"
            ),
            Some(_) | None => {}
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
                "a trigger or a constraint in the database refuses changes of these messages or takes seconds for each, so they are not sent; other messages are. signaling.refused lists the messages, and `\\d signaling.outbox` in psql the triggers and constraints. Correct the trigger or the constraint, and `worker resume` tries the messages at once"
            );
        }
    }
}

/// Removes the API's text after the colon, because that text may repeat the message.
fn without_api_text(error: &str) -> &str {
    error.split_once(": ").map_or(error, |(cause, _)| cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_stuck_when_its_promised_beat_is_overdue() {
        let wait = Duration::from_secs(20);
        for (ago, is_stuck) in [(wait, false), (wait + GRACE, true)] {
            let at = Instant::now().checked_sub(ago).expect("a time");
            let heartbeat = Heartbeat::new(at, wait);
            heartbeat.failed("refused");
            let stuck = is_stuck.then_some("35 s; last database error: refused".into());
            assert_eq!(heartbeat.stuck(), stuck);
            heartbeat.beat(wait);
            assert_eq!(heartbeat.0.lock().2, "", "the error is over");
        }
    }
}
