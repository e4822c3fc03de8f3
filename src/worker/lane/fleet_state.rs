//! Writes what this worker has found out about an app to the lane's row, for all workers: holds, probes, 429s.

use std::time::{Duration, Instant};

use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Lane;
use super::circuit_breaker::{Decision, Transition};
use super::lane_log::{log_returned, log_stepped_aside};
use crate::error_text::database_error_text;
use crate::outbox::{Hold, HoldKind, HoldResult, is_outage};
use crate::pace::DbTime;

/// The part of a finished attempt that changes the lane.
#[derive(Debug)]
pub(in crate::worker) struct AttemptReport {
    pub(in crate::worker) transition: Transition,
    pub(in crate::worker) sent_at: DbTime,
    pub(in crate::worker) error: String,
    pub(in crate::worker) retry_after: Duration,
    pub(in crate::worker) probe: Option<Uuid>,
}

impl Lane {
    /// Writes the consequence of an attempt to the lane's row.
    pub(in crate::worker) async fn apply(&self, report: &AttemptReport) {
        match (report.transition, report.probe) {
            (Transition::Throttle, _) => {
                self.throttle(report.sent_at, report.retry_after).await;
            }
            (Transition::Release, Some(probe)) => self.release_hold(probe).await,
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

    /// Applies a change of the circuit breaker to this worker.
    pub(in crate::worker) fn breaker_has_changed(&self, transition: Transition) {
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
            Transition::Release | Transition::Return => self.capacity_changed.notify_one(),
        }
    }

    /// Carries out the decision that ends this worker's doubts.
    pub(in crate::worker) async fn decide(&self, decision: Decision) {
        match decision {
            Decision::Hold { kind, reason } => self.hold(kind, &reason, None).await,
            Decision::TryAgain => self.breaker().try_again(Instant::now()),
            Decision::StepAside { reason } => {
                log_stepped_aside(&self.app, &reason);
                self.breaker().step_aside(reason, Instant::now());
            }
            Decision::Return => {
                log_returned(&self.app);
                self.breaker().return_to_app(Instant::now());
            }
        }
        self.capacity_changed.notify_one();
    }

    /// A claim or a look shows whether the lane is held.
    pub(super) fn observe_hold(&self, hold: Option<Hold>) {
        match hold.map(|hold| hold.kind) {
            Some(HoldKind::Unauthorized | HoldKind::Unavailable) => self.breaker().lane_held(),
            Some(HoldKind::Paused | HoldKind::OtherEnvironment) => {}
            None => self.breaker().lane_free(Instant::now()),
        }
    }

    /// Holds the app for all workers.
    async fn hold(&self, kind: HoldKind, reason: &str, probe: Option<Uuid>) {
        let _permit = self.write_permit().await;
        let outbox = &self.shared.outbox;
        let mut tries = Tries::of(probe);
        let held = loop {
            let held = outbox.hold(&self.app, kind, reason, probe).await;
            if held.is_ok() || !tries.another(&self.shutdown).await {
                break held;
            }
        };
        match held {
            Ok(HoldResult::TooSoon) => self.breaker().hold_refused(Instant::now()),
            Ok(result) => {
                self.breaker().lane_held();
                // The next probe is made when this pause is over.
                self.look_soon();
                if result == HoldResult::Held {
                    // Cuts the API's own text from the log, because it may repeat the message. The lane's row has it.
                    let reason = reason.split(": ").next().unwrap_or_default();
                    self.log().held(&self.app, self.now(), kind, reason);
                }
            }
            Err(error) => self.log_failure("held", &error),
        }
    }

    /// Slows the app for the whole fleet.
    async fn throttle(&self, sent_at: DbTime, retry_after: Duration) {
        let asks_for_pause = retry_after > Duration::ZERO;
        if asks_for_pause {
            self.release_unsent();
        }
        // Of many 429s at once, one cuts the rate. A Retry-After is always written, even while the row is locked.
        let _permit = if asks_for_pause {
            self.write_permit().await
        } else if let Ok(permit) = self.row_writer.try_acquire() {
            Some(permit)
        } else {
            return;
        };
        let mut tries = Tries(if asks_for_pause { MOST_TRIES } else { 0 });
        let outbox = &self.shared.outbox;
        let throttled = loop {
            let throttled = outbox.throttle(&self.app, sent_at, retry_after).await;
            if throttled.is_ok() || !tries.another(&self.shutdown).await {
                break throttled;
            }
        };
        match throttled {
            Ok(Some(rate_per_s)) => {
                self.release_unsent();
                self.log()
                    .slowed(&self.app, self.now(), rate_per_s, retry_after);
            }
            Ok(None) => {}
            Err(error) => self.log_failure("slowed", &error),
        }
    }

    /// The right to write the lane's row: while another session has locked the row, that ties up one connection.
    async fn write_permit(&self) -> Option<SemaphorePermit<'_>> {
        self.row_writer.acquire().await.ok()
    }

    /// Releases a probe that made no call, so that another message can probe.
    pub(in crate::worker) async fn release_probe(&self, probe: Uuid) {
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
        let _permit = self.write_permit().await;
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

    fn log_failure(&self, what: &str, error: &sqlx::Error) {
        let (app, error_text) = (&self.app, database_error_text(error));
        // The claim loop already logs database outages.
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

/// Tries of writing the result of a probe: until the end of the probe's lease, all workers wait for it.
const MOST_TRIES: u32 = 8;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The tries that are left.
struct Tries(u32);

impl Tries {
    /// Several for a probe. Others need no more than one: the next attempts lead to the same.
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
