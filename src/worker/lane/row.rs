//! The lane's row in `signaling.lane`, through which all workers of an app share its state. Every claim reads the row, so a
//! change reaches each worker with its next claim. The states, as far as a claim is concerned:
//!
//! - **sending**: claims give out slots at the full rate.
//! - **slowed**: a 429 cut the rate by a fifth (`throttle.sql`), and the rate climbs back by itself (`present_rate.sql`). A
//!   `Retry-After` stops the lane until its end.
//! - **held** as `unavailable` or `unauthorized`: a worker's calls fail, and the API accepts no message of another worker
//!   (`hold.sql`). When the pause is over and a message is due, a claim makes the lane *probing*. Within ten seconds of a
//!   release no new hold begins.
//! - **probing**: one message is attempted (`choose_probe.sql`). If the probe fails, the lane is *held* again, and the pause
//!   doubles from 1 s to 4 s. If the API accepts, rejects or throttles it, the lane is *sending* (`release_hold.sql`). The
//!   outcome counts only while `probe_claim_id` names the probe's claim. If its worker dies, the next probe follows at the
//!   end of the lease.
//! - **paused** by an operator, until `worker resume`. Each other state goes on beneath the pause.
//! - **of another environment**: a copy of a database has the messages of its source. A worker of another environment gets
//!   no slots until an operator adopts the app (`adopt.sql`).
//! - **missing**: an operator or a test suite deleted the row. The loop makes the row again with the configured limit.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::Shared;
use super::lane_log::{LaneLog, without_api_text};
use crate::error_text::database_error_text;
use crate::outbox::{Batch, Hold, HoldKind, HoldResult, LaneOpening, is_outage};
use crate::pace::DbTime;

/// Tries of a write that all workers wait for: the result of a probe, or a `Retry-After`.
const TRIES: u32 = 8;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenReason {
    Startup,
    RowMissing,
    OtherEnvironment,
}

#[derive(Debug)]
pub(crate) struct LaneRow {
    app: String,
    limit_per_s: f64,
    shared: Arc<Shared>,
    /// One permit: while another session has locked the row, this worker's writers tie up one connection only.
    writer: Semaphore,
    log: Mutex<LaneLog>,
}

impl LaneRow {
    pub(super) fn new(app: String, limit_per_s: f64, shared: Arc<Shared>) -> Self {
        Self {
            log: Mutex::new(LaneLog::new(app.clone())),
            app,
            limit_per_s,
            shared,
            writer: Semaphore::new(1),
        }
    }

    /// Makes sure that the row exists and belongs to this worker's environment. If another environment owns the app, this
    /// worker sends no message of the app, and returns false. Its other apps go on.
    pub(super) async fn open(&self, reason: OpenReason) -> Result<bool, sqlx::Error> {
        let (app, limit_per_s) = (&self.app, self.limit_per_s);
        let environment = self.shared.environment.as_deref();
        let is_missing = reason == OpenReason::RowMissing;
        let outbox = &self.shared.outbox;
        let opening = outbox.open_lane(app, limit_per_s, environment, is_missing);
        match opening.await? {
            LaneOpening::Refused {
                environment,
                pending,
            } => {
                let now = self.shared.now();
                let mut log = self.log.lock();
                log.refused(now, environment.as_deref(), pending);
                return Ok(false);
            }
            LaneOpening::Named => tracing::info!(
                event = "lane_environment_set",
                app,
                environment,
                "the app belongs to this environment from now on: workers of another one refuse it"
            ),
            LaneOpening::Open | LaneOpening::Made => {}
        }
        if is_missing {
            tracing::warn!(
                event = "lane_missing",
                app,
                limit_per_s,
                "the row of this app in signaling.lane was deleted, and is made again with the configured limit. A pause, a hold and a limit that an operator had set are gone: repeat `worker pause` or `worker limit` if you need them"
            );
        }
        Ok(true)
    }

    /// True if the app belongs to another environment: this worker must change none of its rows.
    pub(crate) fn is_refused(&self) -> bool {
        self.log.lock().is_refused()
    }

    /// Logs the state that a claim shows.
    pub(super) fn log_claim(&self, batch: &Batch) {
        if !self.is_being_written() {
            let mut log = self.log.lock();
            log.observe_rate(batch.at, batch.throttled_per_s);
        }
        self.log_hold(batch.at, batch.hold);
    }

    /// Logs the hold that a claim or a poll shows. False while this process writes the row, because the writer logs the
    /// change itself.
    pub(super) fn log_hold(&self, at: DbTime, hold: Option<Hold>) -> bool {
        let is_logged = !self.is_being_written();
        if is_logged {
            let mut log = self.log.lock();
            log.observe_hold(at, hold.map(|hold| hold.kind));
        }
        is_logged
    }

    fn is_being_written(&self) -> bool {
        self.writer.available_permits() == 0
    }

    /// Holds the app for all workers. None if the database fails.
    pub(super) async fn hold(
        &self,
        kind: HoldKind,
        reason: &str,
        probe: Option<Uuid>,
    ) -> Option<HoldResult> {
        let _writing = self.writer.acquire().await;
        let outbox = &self.shared.outbox;
        // Without a probe, the next failed attempts lead to the same decision.
        let tries = probe.map_or(1, |_| TRIES);
        let hold = || outbox.hold(&self.app, kind, reason, probe);
        let result = self.write("held", tries, hold).await?;
        if result == HoldResult::Held {
            let reason = without_api_text(reason);
            let now = self.shared.now();
            self.log.lock().hold_changed(now, Some(kind), reason);
        }
        Some(result)
    }

    /// Slows the app for all workers. True if the rate was cut.
    pub(super) async fn throttle(&self, sent_at: DbTime, retry_after: Duration) -> bool {
        // One of many concurrent 429s is enough. A Retry-After must be written even while the row is locked.
        let (writing, tries) = if retry_after > Duration::ZERO {
            (self.writer.acquire().await.ok(), TRIES)
        } else {
            (self.writer.try_acquire().ok(), 1)
        };
        if writing.is_none() {
            return false;
        }
        let outbox = &self.shared.outbox;
        let throttle = || outbox.throttle(&self.app, sent_at, retry_after);
        let Some(Some(rate_per_s)) = self.write("slowed", tries, throttle).await else {
            return false;
        };
        let now = self.shared.now();
        let mut log = self.log.lock();
        log.slowed(now, rate_per_s, retry_after);
        true
    }

    /// Ends the hold for all workers.
    pub(super) async fn release_hold(&self, probe: Uuid) {
        let _writing = self.writer.acquire().await;
        let outbox = &self.shared.outbox;
        let release = || outbox.release_hold(&self.app, probe);
        if self.write("released", TRIES, release).await == Some(true) {
            let now = self.shared.now();
            self.log.lock().hold_changed(now, None, "");
        }
    }

    pub(super) async fn release_probe(&self, probe: Uuid) {
        let outbox = &self.shared.outbox;
        let claims = [probe];
        let release = || outbox.release(&self.app, &claims);
        self.write("freed for the next probe", TRIES, release).await;
    }

    async fn write<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        result: &str,
        tries: u32,
        statement: impl Fn() -> F,
    ) -> Option<T> {
        for tried in 1.. {
            let error = match statement().await {
                Ok(written) => return Some(written),
                Err(error) => error,
            };
            let pause = tokio::time::sleep(TRY_AGAIN_AFTER);
            let shutdown = &self.shared.shutdown;
            if tried < tries && shutdown.run_until_cancelled(pause).await.is_some() {
                continue;
            }
            // The claim loop logs outages.
            if !is_outage(&error) {
                tracing::warn!(
                    event = "lane_update_failed",
                    app = self.app,
                    error = database_error_text(&error),
                    "the lane could not be {result}"
                );
            }
            break;
        }
        None
    }
}
