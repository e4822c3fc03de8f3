//! The loop of a lane: wait for capacity, claim, dispatch, wait.

mod idle_wait;
mod orphaned_claims;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::delivery;
use super::lane::circuit_breaker::Allowance;
use super::lane::{Lane, OpenReason, Place};
use super::panic_point::panic_point;
use super::recorder::Delivered;
use crate::error_text::database_error_text;
use crate::outbox::{
    AdaptiveTimeout, Batch, ClaimError, ClaimRequest, HoldKind, is_missing_lane, is_row_security,
    is_timeout, is_without_lock, may_be_refusal,
};
use crate::pace::{Lookahead, coalesced_starts};
use crate::telemetry::log_throttle::LogThrottle;
use idle_wait::Next;
use orphaned_claims::OrphanedClaims;

/// While the API does not answer at all, one call a second starts.
const SILENT_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two looks at the circuit breaker.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The pause after the database has failed, at first and at most.
const DATABASE_PAUSE: Duration = Duration::from_millis(100);
const DATABASE_PAUSE_CAP: Duration = Duration::from_secs(1);

/// The most rows of a claim: so few that it does not take long, and its first slots are not over when it gets here.
const MAX_ROWS: usize = 128;
/// The same of large messages, by the size of those before: they are in memory more than once until they are handed
/// out, and written to the API one after the other.
const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The loop of a lane, with what only it uses.
pub(super) struct ClaimLoop {
    lane: Arc<Lane>,
    records: mpsc::Sender<Delivered>,
    deliveries: TaskTracker,
    orphaned_claims: OrphanedClaims,
    timeout: AdaptiveTimeout,
    database_pause: Duration,
    lookahead: Lookahead,
    /// The most rows of the next claim.
    max_rows: usize,
    last_claim_at: Instant,
    row_security_log: LogThrottle,
    /// True if the last claim passed over destinations that have their share of the places.
    avoids: bool,
    /// True if the last claim did not end in time: one message may keep it waiting, and the next claim finds that message.
    isolates: bool,
}

impl ClaimLoop {
    pub(super) fn new(
        lane: Arc<Lane>,
        records: mpsc::Sender<Delivered>,
        deliveries: TaskTracker,
    ) -> Self {
        Self {
            lane,
            records,
            deliveries,
            orphaned_claims: OrphanedClaims::new(),
            timeout: AdaptiveTimeout::default(),
            database_pause: DATABASE_PAUSE,
            lookahead: Lookahead::default(),
            max_rows: MAX_ROWS,
            last_claim_at: Instant::now(),
            row_security_log: LogThrottle::default(),
            avoids: false,
            isolates: false,
        }
    }

    /// Works until the shutdown. A claim is not interrupted: its rows are handed out, and given back by their
    /// deliveries.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        self.run_until(&shutdown).await;
        self.orphaned_claims.release(&self.lane).await;
    }

    async fn run_until(&mut self, shutdown: &CancellationToken) {
        loop {
            let Some(capacity) = shutdown.run_until_cancelled(self.wait_for_capacity()).await
            else {
                return;
            };
            let waited = match self.claim(capacity).await {
                Ok(batch) => {
                    panic_point("lane", 0);
                    if batch
                        .hold
                        .is_some_and(|hold| hold.kind == HoldKind::OtherEnvironment)
                    {
                        // If the database fails, the next claim finds the same environment and opens the lane again.
                        self.lane.open(OpenReason::OtherEnvironment).await.ok();
                    }
                    let next = Next::after(&batch, self.lookahead, self.avoids);
                    if next == Next::Idle {
                        self.lane.idle(&batch);
                        self.lane.nothing_due(&batch);
                    }
                    self.dispatch(batch);
                    shutdown.run_until_cancelled(next.wait(&self.lane)).await
                }
                Err(error) => {
                    let pause = match self.reopen_missing_lane(error).await {
                        Ok(()) => DATABASE_PAUSE,
                        Err(error) => self.pause_for_database(&error),
                    };
                    shutdown
                        .run_until_cancelled(tokio::time::sleep(pause))
                        .await
                }
            };
            if waited.is_none() {
                return;
            }
            self.lane.schedule().busy();
        }
    }

    /// Waits until there is room for a message, and the circuit breaker allows one; returns for how many there is.
    async fn wait_for_capacity(&self) -> usize {
        let lane = &self.lane;
        // Claims only after the recorder has saved its results, because they may concern the same rows.
        let mut lag = lane.shared.recorder_lag.clone();
        if lag.borrow().is_some() {
            // The recorder saves one batch at a time, so messages of later ones must not count as lost.
            lane.outage_grace().failed();
            lag.wait_for(Option::is_none).await.ok();
            lane.heartbeat.beat(Duration::ZERO);
        }
        loop {
            let now = Instant::now();
            let no_claims_until = lane.shared.outbox.clock().no_claims_until();
            // Only this loop takes places, so the free ones stay free.
            let in_flight = lane.in_flight();
            let allowance = lane.breaker().allowance(now, in_flight);
            let pause = match allowance {
                _ if no_claims_until.is_some_and(|until| now < until) => {
                    no_claims_until.map_or(Duration::ZERO, |until| until - now)
                }
                Allowance::Claim(_) if in_flight >= lane.max_in_flight => {
                    // Each message in flight is recorded by the end of its lease, unless the recorder is behind.
                    lane.heartbeat.beat(lane.shared.timing.lease);
                    if let Ok(permit) = lane.capacity.acquire().await {
                        drop(permit);
                    }
                    continue;
                }
                Allowance::Claim(messages) => {
                    let is_silent = lane.open_calls().is_silent(now);
                    let next = self.last_claim_at + SILENT_PAUSE;
                    if !is_silent {
                        return messages.min(lane.max_in_flight - in_flight);
                    } else if next <= now {
                        return 1;
                    }
                    next - now
                }
                Allowance::Wait(until) => until.saturating_duration_since(now),
            };
            let pause = pause.min(LONGEST_PAUSE);
            lane.heartbeat.beat(pause);
            tokio::select! {
                () = lane.capacity_changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn claim(&mut self, rows: usize) -> Result<Batch, sqlx::Error> {
        self.last_claim_at = Instant::now();
        let position = self.lane.scan_state().position();
        let avoided = self.lane.destinations().crowded().to_vec();
        self.avoids = !avoided.is_empty();
        let shared = &self.lane.shared;
        let claim_id = Uuid::new_v4();
        let request = ClaimRequest {
            position,
            app: &self.lane.app,
            claim_id,
            max_messages: rows.min(self.max_rows),
            lookahead: self.lookahead.get(),
            lease: shared.timing.lease,
            claimed_by: &shared.name,
            over_before: self.lane.over_before(),
            timeout: &self.timeout,
            poll_interval: shared.timing.poll_interval * 2,
            wants_wakeup: shared.listening.load(Ordering::Relaxed),
            avoided,
            environment: shared.environment.as_deref(),
            isolates: self.isolates,
        };
        let claimed = self.claim_past_refusals(request).await;
        self.isolates = isolates_next(self.isolates, &claimed);
        let batch = match claimed {
            Ok(batch) => {
                self.lane.outage_grace().answered(batch.at, Instant::now());
                self.lane.scan_claimed(position, &batch);
                self.lookahead.observe(self.lane.now().since(batch.at));
                self.lane.heartbeat.beat(Duration::ZERO);
                self.lane.stats.ended_uncalled(batch.at, batch.ended);
                self.lane.log_refused(batch.refused);
                self.lane.observe_claim(&batch);
                if let Some(max_rows) = max_rows_after(&batch) {
                    self.max_rows = max_rows;
                }
                batch
            }
            Err(error) => {
                self.lane.outage_grace().failed();
                self.lane.scan_state().look_soon();
                self.lane
                    .heartbeat
                    .failed(database_error_text(&error.source));
                if error.may_have_rows {
                    self.orphaned_claims.add(claim_id, shared.timing.lease);
                }
                return Err(error.source);
            }
        };
        self.orphaned_claims.release(&self.lane).await;
        if self.database_pause != DATABASE_PAUSE {
            self.database_pause = DATABASE_PAUSE;
            if self.lane.shared.failing.fetch_sub(1, Ordering::Relaxed) == 1 {
                tracing::info!(event = "database_restored", "the database answers again");
            }
        }
        Ok(batch)
    }

    /// Opens the lane again if the claim failed because the lane's row was deleted. Waiting would not bring the row back.
    async fn reopen_missing_lane(&self, error: sqlx::Error) -> Result<(), sqlx::Error> {
        if is_missing_lane(&error) {
            self.lane.open(OpenReason::RowMissing).await
        } else {
            Err(error)
        }
    }

    /// Claims, past messages that a trigger or a constraint refuses: one such message would make each claim fail. The second
    /// try passes over refused messages, and the third also claims one message only.
    async fn claim_past_refusals(
        &self,
        mut request: ClaimRequest<'_>,
    ) -> Result<Batch, ClaimError> {
        let outbox = &self.lane.shared.outbox;
        let mut claimed = outbox.claim(&request).await;
        for max_messages in [request.max_messages, 1] {
            match &claimed {
                Err(error) if may_be_refusal(&error.source) => {
                    request.isolates = true;
                    request.max_messages = max_messages;
                    claimed = outbox.claim(&request).await;
                }
                Ok(_) | Err(_) => break,
            }
        }
        claimed
    }

    fn pause_for_database(&mut self, error: &sqlx::Error) -> Duration {
        if self.database_pause == DATABASE_PAUSE {
            if is_row_security(error)
                && let Some(suppressed) = self.row_security_log.admit()
            {
                tracing::error!(
                    event = "row_security_refused",
                    app = self.lane.app,
                    suppressed,
                    error = database_error_text(error),
                    "nothing is sent, because row-level security keeps the schema's functions from a table: as the tables' owner, run `alter table signaling.… no force row level security`"
                );
            }
            let (app, error) = (&self.lane.app, database_error_text(error));
            if self.lane.shared.failing.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    event = "database_failed",
                    app,
                    error,
                    "the database fails: trying again until it answers"
                );
            } else {
                tracing::debug!(
                    event = "claim_failed",
                    app,
                    error,
                    "the database fails for this app, too"
                );
            }
        }
        // Spread, so that a fleet does not come back all at once.
        let pause = self.database_pause.mul_f64(rand::random_range(0.5..1.0));
        self.database_pause = (self.database_pause * 2).min(DATABASE_PAUSE_CAP);
        pause
    }

    fn dispatch(&self, batch: Batch) {
        let is_backlog = batch.is_full();
        if batch.hold.is_some() {
            self.lane.release_unsent();
        }
        let slots: Vec<_> = batch
            .messages
            .iter()
            .map(|claimed| claimed.slot_at)
            .collect();
        // Where everything due was taken nothing is worth a wait.
        let starts = if is_backlog {
            coalesced_starts(&slots)
        } else {
            slots
        };
        for (claimed, start_at) in batch.messages.into_iter().zip(starts) {
            // There is a place: the claim was for no more messages than that.
            let Some((place, is_free)) = Place::take(&self.lane, &claimed) else {
                break;
            };
            let (lane, records) = (Arc::clone(&self.lane), self.records.clone());
            if is_free {
                let delivery = delivery::deliver(lane, claimed, start_at, place, records);
                self.deliveries.spawn(delivery);
            } else {
                let giving_back = delivery::give_back(lane, claimed, place, records);
                self.deliveries.spawn(giving_back);
            }
        }
    }
}

impl Drop for ClaimLoop {
    /// A loop that panics while the database fails no longer counts as waiting for the database.
    fn drop(&mut self) {
        if self.database_pause != DATABASE_PAUSE {
            self.lane.shared.failing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether the next claim isolates messages. After a claim that did not end in time it does, because a function of the
/// application may have kept that claim waiting, and each claim after it. A database that is only slow needs a plain claim
/// with a longer timeout, so the two kinds take turns.
fn isolates_next(isolated: bool, claimed: &Result<Batch, ClaimError>) -> bool {
    match claimed {
        // Another message may keep the next claim waiting.
        Ok(batch) => isolated && batch.refused > 0,
        // Another worker's claim is waiting, and keeps the lane's row locked.
        Err(error) if is_without_lock(&error.source) => true,
        Err(error) => !isolated && is_timeout(&error.source),
    }
}

/// How many messages as large as these may be claimed at once; none if there were none.
fn max_rows_after(batch: &Batch) -> Option<usize> {
    let messages = batch.messages.iter().flat_map(|claimed| &claimed.message);
    let (count, bytes) = messages.fold((0, 0), |(count, bytes), message| {
        (count + 1, bytes + message.payload.as_str().len())
    });
    (count > 0).then(|| (MAX_PAYLOAD_BYTES * count / bytes.max(1)).clamp(1, MAX_ROWS))
}
