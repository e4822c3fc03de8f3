//! Writes the lane's row in `signaling.lane`, through which all workers of an app share its state (ARCHITECTURE.md, "States
//! of a lane"). Every claim reads the row, so a change reaches each worker with its next claim.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::circuit_breaker::Transition;
use super::lane_log::without_api_text;
use super::{Lane, Shared};
use crate::advice;
use crate::error_text::database_error_text;
use crate::outbox::{HoldKind, LaneOpening};
use crate::pace::DbTime;

/// The part of a finished attempt that changes the lane.
#[derive(Debug, Default)]
pub(in crate::worker) struct AttemptReport {
    pub(in crate::worker) transition: Transition,
    pub(in crate::worker) sent_at: DbTime,
    pub(in crate::worker) error: String,
    pub(in crate::worker) retry_after: Duration,
    pub(in crate::worker) probe: Option<Uuid>,
}

/// How often the worker tries to write the outcome of a probe or a `Retry-After`. With one try, a failed statement would keep
/// the lane held until the probe's lease ends, or let workers call before the end of the `Retry-After`.
const TRIES: u32 = 8;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Lane {
    /// Makes sure that the row exists and belongs to this worker's environment. If another environment owns the app, this
    /// worker sends no message of the app. Its other apps go on.
    pub(in crate::worker) async fn open(&self, is_missing: bool) -> Result<(), sqlx::Error> {
        let (app, limit_per_s) = (&self.app, self.client.app.limit_per_s);
        let environment = self.shared.config.environment.as_deref();
        let outbox = &self.shared.outbox;
        let opening = outbox.open_lane(app, limit_per_s, environment, is_missing);
        match opening.await? {
            LaneOpening::Refused {
                environment,
                pending,
            } => {
                if self.log.other_environment() {
                    tracing::error!(
                        event = "lane_refused",
                        app,
                        environment,
                        pending,
                        "the app belongs to {}, and this worker to another one, so this worker sends none of the pending messages. To do: {}",
                        advice::environment_name(environment.as_deref()),
                        advice::adopt(app)
                    );
                }
                return Ok(());
            }
            LaneOpening::Named => tracing::info!(
                event = "lane_environment_set",
                app,
                environment,
                "the app belongs to this environment from now on: workers of another one refuse it"
            ),
            LaneOpening::Open => {}
        }
        if is_missing {
            tracing::warn!(
                event = "lane_missing",
                app,
                limit_per_s,
                "the row of this app in signaling.lane was deleted, and is made again with the configured limit. A pause, a hold and a limit that an operator had set are gone: repeat `worker pause` or `worker limit` if you need them"
            );
        }
        // An operator may have adopted the app since the last claim.
        self.wakeup.notify_one();
        Ok(())
    }

    pub(in crate::worker) async fn apply_transition(&self, report: &AttemptReport) {
        match report.transition {
            Transition::None => {}
            Transition::Doubt => self.release_unsent(),
            Transition::Throttle => self.throttle(report.sent_at, report.retry_after).await,
            Transition::Hold(kind) => {
                self.release_unsent();
                self.hold(kind, &report.error, report.probe).await;
            }
            Transition::Release => {
                self.in_flight.changed.notify_one();
                if let Some(probe) = report.probe {
                    self.release_hold(probe).await;
                }
            }
            Transition::StepAside => tracing::error!(
                event = "worker_stepped_aside",
                app = self.app,
                reason = without_api_text(&report.error),
                "this worker leaves the app to other workers, because its own calls fail while messages of other workers are accepted. Check its credentials, AGORA_BASE_URL, AGORA_CA_FILE and its network"
            ),
            Transition::Return => {
                self.in_flight.changed.notify_one();
                tracing::info!(
                    event = "worker_returned",
                    app = self.app,
                    "this worker serves the app again"
                );
            }
        }
    }

    async fn hold(&self, kind: HoldKind, reason: &str, probe: Option<Uuid>) {
        let _writing = self.row_writer.acquire().await;
        // Without a probe, the next failed attempts lead to the same decision.
        let tries = probe.map_or(1, |_| TRIES);
        let hold = || (self.shared.outbox).hold(&self.app, kind, reason, probe);
        match self.try_statement("held", tries, hold).await {
            Some(false) => self.breaker.lock().hold_refused(Instant::now()),
            Some(true) => {
                self.breaker.lock().lane_held();
                // The poller logs the hold, and finds when the next probe is due.
                self.poll_soon();
            }
            None => {}
        }
    }

    async fn throttle(&self, sent_at: DbTime, retry_after: Duration) {
        // One of many concurrent 429s is enough, unless the API names a time to wait.
        let (tries, writing) = if retry_after.is_zero() {
            (1, self.row_writer.try_acquire().ok())
        } else {
            self.release_unsent();
            (TRIES, self.row_writer.acquire().await.ok())
        };
        if writing.is_none() {
            return;
        }
        let throttle = || (self.shared.outbox).throttle(&self.app, sent_at, retry_after);
        if let Some(Some(rate_per_s)) = self.try_statement("throttled", tries, throttle).await {
            self.release_unsent();
            tracing::debug!(
                event = "lane_rate_cut",
                app = self.app,
                rate_per_s,
                "a 429 has cut the rate"
            );
            self.log.rate(Some(rate_per_s), retry_after);
        }
    }

    async fn release_hold(&self, probe: Uuid) {
        let _writing = self.row_writer.acquire().await;
        let release = || self.shared.outbox.release_hold(&self.app, probe);
        if self.try_statement("released", TRIES, release).await == Some(true) {
            self.poll_soon();
        }
    }

    /// Releases the lane's probe, so that another message can probe. The probe gave no verdict about the API.
    pub(in crate::worker) async fn release_probe(&self, probe: Uuid) {
        let claims = [probe];
        let release = || self.shared.outbox.release(&self.app, &claims);
        let written = self.try_statement("freed for the next probe", TRIES, release);
        written.await;
        self.poll_soon();
    }

    /// Corrects due times after the database's clock was set back. Otherwise messages would wait longer by the length of the
    /// step.
    pub(in crate::worker) async fn set_messages_back(&self) {
        let Shared { outbox, config, .. } = &*self.shared;
        let set_back = || outbox.set_messages_back(&self.app, config.timing.lease());
        let written =
            self.try_statement("corrected after the clock was set back", u32::MAX, set_back);
        if let Some(messages @ 1..) = written.await {
            tracing::info!(
                event = "messages_set_back",
                app = self.app,
                messages,
                "the due times of messages are corrected after the clock was set back"
            );
            self.clock_stepped();
        }
    }

    /// Tries a statement up to `tries` times. Logs once that all tries, or eight of them, have failed.
    async fn try_statement<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        result: &str,
        tries: u32,
        statement: impl Fn() -> F,
    ) -> Option<T> {
        let shutdown = &self.shared.shutdown;
        for attempt in 1..=tries {
            let error = match statement().await {
                Ok(written) => {
                    self.update_failures.succeeded();
                    return Some(written);
                }
                Err(error) => error,
            };
            if attempt == tries.min(TRIES) && self.update_failures.failed() {
                tracing::warn!(
                    event = "lane_update_failed",
                    app = self.app,
                    error = database_error_text(&error),
                    "the lane could not be {result}: follow the error"
                );
            }
            let pause = tokio::time::sleep(TRY_AGAIN_AFTER);
            if attempt == tries || shutdown.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        None
    }
}
