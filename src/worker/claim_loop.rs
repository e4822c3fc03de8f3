//! The loop of a lane: wait for capacity, claim, dispatch, wait for slots or messages.
//!
//! The claim is `signaling.claim` (`claim.sql`). It locks the lane's row, reads the clock, and gives each due message a slot.
//! The first slot lies ahead of the claim by the time that the answer takes to arrive (`Lookahead`). Without that, a worker
//! far from its database would miss its slots.

mod idle_wait;
mod orphaned_claims;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::delivery;
use super::lane::Lane;
use super::lane::circuit_breaker::Allowance;
use super::panic_point::panic_point;
use super::recorder::Delivered;
use crate::error_text::database_error_text;
use crate::outbox::{
    AdaptiveTimeout, Batch, ClaimRequest, HoldKind, is_missing_lane, is_timeout, is_without_lock,
    may_be_refusal, may_have_taken_effect,
};
use crate::pace::{Lookahead, coalesced_starts};
use idle_wait::{next_claim_at, wait};
use orphaned_claims::OrphanedClaims;

/// While the API is silent, one call starts in this time.
const SILENT_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before the loop asks the circuit breaker again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const DATABASE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_DATABASE_PAUSE: Duration = Duration::from_secs(1);
/// A larger claim would take so long that its first slots have passed when its answer arrives.
const MAX_MESSAGES: usize = 128;
/// Bounds the payloads of a claim, estimated from the last claim. Each connection to the database keeps the memory of its
/// largest answer.
const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

pub(super) struct ClaimLoop {
    lane: Arc<Lane>,
    records: mpsc::Sender<Delivered>,
    deliveries: TaskTracker,
    orphaned_claims: OrphanedClaims,
    timeout: AdaptiveTimeout,
    database_pause: Duration,
    lookahead: Lookahead,
    last_claim_at: Instant,
    max_messages: usize,
    /// True if the last claim passed over messages for crowded destinations.
    avoids: bool,
    /// True if the next claim tests one message at a time: see [`next_is_one_by_one`].
    one_by_one: bool,
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
            orphaned_claims: OrphanedClaims::default(),
            timeout: AdaptiveTimeout::default(),
            database_pause: DATABASE_PAUSE,
            lookahead: Lookahead::default(),
            last_claim_at: Instant::now(),
            max_messages: MAX_MESSAGES,
            avoids: false,
            one_by_one: false,
        }
    }

    /// Runs until the shutdown. The shutdown does not interrupt a claim, because the claimed messages would wait until their
    /// leases end. Instead, their deliveries release them.
    pub(super) async fn run(mut self) {
        let shutdown = self.lane.shared.shutdown.clone();
        loop {
            let waiting = shutdown.run_until_cancelled(self.wait_for_capacity());
            let Some(capacity) = waiting.await else {
                break;
            };
            let waited = match self.claim(capacity).await {
                Ok(batch) => {
                    let claim_at = next_claim_at(&batch, self.lookahead, self.avoids);
                    if claim_at.is_none() {
                        self.lane.idle(&batch);
                    }
                    self.dispatch(batch);
                    // Before the dispatch, a slow database would make the whole batch miss its slots.
                    self.orphaned_claims.release(&self.lane).await;
                    let waiting = wait(claim_at, &self.lane);
                    shutdown.run_until_cancelled(waiting).await
                }
                Err(error) => {
                    let pausing = tokio::time::sleep(self.pause_after(error).await);
                    shutdown.run_until_cancelled(pausing).await
                }
            };
            if waited.is_none() {
                break;
            }
            self.lane.polls.lock().is_idle = false;
        }
        self.orphaned_claims.release(&self.lane).await;
    }

    async fn wait_for_capacity(&self) -> usize {
        let lane = &self.lane;
        self.wait_for_recorder().await;
        loop {
            let now = Instant::now();
            match self.allowance(now) {
                Allowance::Claim(messages) => {
                    let free = lane.in_flight.free();
                    if free > 0 {
                        return messages.min(free);
                    }
                    // Each message in flight is recorded by the end of its lease, unless the recorder lags.
                    lane.heartbeat.beat(lane.shared.config.timing.lease());
                    lane.in_flight.changed.notified().await;
                }
                Allowance::Wait(until) => {
                    let pause = until.saturating_duration_since(now).min(LONGEST_PAUSE);
                    lane.heartbeat.beat(pause);
                    tokio::select! {
                        () = lane.in_flight.changed.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Without this wait, a claim could take a message whose outcome the recorder has not saved yet.
    async fn wait_for_recorder(&self) {
        let mut lag = self.lane.shared.recorder_lag.subscribe();
        if lag.borrow().is_some() {
            // When the lag ends, later batches are still unsaved. Their messages must not count as lost.
            self.lane.outage_grace.lock().failed();
            lag.wait_for(Option::is_none).await.ok();
            self.lane.heartbeat.beat(Duration::ZERO);
        }
    }

    fn allowance(&self, now: Instant) -> Allowance {
        let lane = &self.lane;
        let no_claims_until = lane.shared.outbox.clock().no_claims_until();
        if let Some(until) = no_claims_until.filter(|until| now < *until) {
            return Allowance::Wait(until);
        }
        let allowance = lane.breaker.lock().allowance(now, lane.in_flight.count());
        if matches!(allowance, Allowance::Wait(_)) || !lane.in_flight.is_api_silent(now) {
            return allowance;
        }
        let next_claim_at = self.last_claim_at + SILENT_PAUSE;
        if now < next_claim_at {
            Allowance::Wait(next_claim_at)
        } else {
            Allowance::Claim(1)
        }
    }

    async fn claim(&mut self, messages: usize) -> Result<Batch, sqlx::Error> {
        self.last_claim_at = Instant::now();
        let avoided = self.lane.in_flight.crowded();
        self.avoids = !avoided.is_empty();
        let shared = &self.lane.shared;
        let position = self.lane.polls.lock().position;
        let claim_id = Uuid::new_v4();
        let request = ClaimRequest {
            position,
            app: &self.lane.app,
            claim_id,
            max_messages: messages.min(self.max_messages),
            lookahead: self.lookahead.0,
            config: &shared.config,
            ended_before: self.lane.ended_before(),
            timeout: &self.timeout,
            wants_wakeup: shared.listening.load(Ordering::Relaxed),
            avoided,
            one_by_one: self.one_by_one,
        };
        let claimed = self.claim_past_refusals(request).await;
        self.one_by_one = next_is_one_by_one(self.one_by_one, &claimed);
        let batch = claimed.inspect_err(|error| {
            self.lane.outage_grace.lock().failed();
            self.lane.polls.lock().scan_soon();
            shared.poll_planned.notify_one();
            if may_have_taken_effect(error) {
                let lease = self.lane.shared.config.timing.lease();
                self.orphaned_claims.add(claim_id, lease);
            }
        })?;
        self.lookahead.observe(shared.now().since(batch.at));
        let sizes = batch.messages.iter();
        let sizes = sizes.map(|claimed| claimed.message.payload.as_str().len());
        self.max_messages = max_messages_after(sizes).unwrap_or(self.max_messages);
        self.lane.claimed(position, &batch);
        let last_pause = std::mem::replace(&mut self.database_pause, DATABASE_PAUSE);
        if last_pause != DATABASE_PAUSE && shared.database_failures.succeeded() {
            tracing::info!(event = "database_restored", "the database answers again");
        }
        panic_point("lane", 0);
        let hold = batch.hold.map(|hold| hold.kind);
        if hold == Some(HoldKind::OtherEnvironment) {
            // If the database fails, the next claim finds the same environment and opens the lane again.
            self.lane.open(false).await.ok();
        }
        Ok(batch)
    }

    /// Claims. If the database refuses the claim, tries again and passes over messages that a trigger or a constraint refuses,
    /// because one such message would make each claim fail. The third try takes one message at most.
    async fn claim_past_refusals(
        &self,
        mut request: ClaimRequest<'_>,
    ) -> Result<Batch, sqlx::Error> {
        let outbox = &self.lane.shared.outbox;
        let mut claimed = outbox.claim(&request).await;
        for max_messages in [request.max_messages, 1] {
            if !matches!(&claimed, Err(error) if may_be_refusal(error)) {
                break;
            }
            request.one_by_one = true;
            request.max_messages = max_messages;
            claimed = outbox.claim(&request).await;
        }
        claimed
    }

    fn dispatch(&self, batch: Batch) {
        if batch.hold.is_some() {
            self.lane.release_unsent();
        }
        let slots = batch.messages.iter().map(|claimed| claimed.slot.at);
        let mut starts: Vec<_> = slots.collect();
        // Without a backlog, no call waits for another one. In a backlog, some calls start together.
        if batch.is_full() {
            starts = coalesced_starts(&starts);
        }
        for (claimed, start_at) in batch.messages.into_iter().zip(starts) {
            let permit = self.lane.in_flight.admit(claimed.message.target());
            let (lane, records) = (Arc::clone(&self.lane), self.records.clone());
            let delivery = delivery::deliver(lane, claimed, start_at, permit, records);
            self.deliveries.spawn(delivery);
        }
    }

    /// Logs a failed claim, and returns the pause before the next one. Opens the lane again if its row was deleted.
    async fn pause_after(&mut self, mut error: sqlx::Error) -> Duration {
        if is_missing_lane(&error) {
            match self.lane.open(true).await {
                Ok(()) => return DATABASE_PAUSE,
                Err(open_error) => error = open_error,
            }
        }
        let (app, error) = (&self.lane.app, database_error_text(&error));
        self.lane.heartbeat.failed(&error);
        let is_first = self.database_pause == DATABASE_PAUSE;
        if is_first && self.lane.shared.database_failures.failed() {
            tracing::warn!(
                event = "database_failed",
                app,
                error,
                "the database fails: trying again until it answers"
            );
        } else if is_first {
            tracing::debug!(
                event = "claim_failed",
                app,
                error,
                "the database fails for this app, too"
            );
        }
        // The random part keeps the workers of a fleet from returning at the same moment.
        let pause = self.database_pause.mul_f64(rand::random_range(0.5..1.0));
        self.database_pause = (self.database_pause * 2).min(LONGEST_DATABASE_PAUSE);
        pause
    }
}

/// The number of messages that a claim may take if their payloads are as large as these. None without payloads.
fn max_messages_after(payload_bytes: impl ExactSizeIterator<Item = usize>) -> Option<usize> {
    let count = payload_bytes.len();
    let bytes = payload_bytes.sum::<usize>().max(1);
    (count > 0).then(|| (MAX_PAYLOAD_BYTES * count / bytes).clamp(1, MAX_MESSAGES))
}

/// True if the next claim tests one message at a time. A claim does so after one that timed out, because a function of the
/// application may have delayed that claim, and would delay each claim after it. A database that is only slow needs a plain
/// claim with a longer timeout, so the two kinds take turns.
fn next_is_one_by_one(was_one_by_one: bool, claimed: &Result<Batch, sqlx::Error>) -> bool {
    match claimed {
        // Another message may delay the next claim.
        Ok(batch) => was_one_by_one && batch.refused > 0,
        // A delayed claim of another worker keeps the lane's row locked.
        Err(error) if is_without_lock(error) => true,
        Err(error) => !was_one_by_one && is_timeout(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_takes_fewer_messages_if_their_payloads_are_large() {
        let after = |sizes: &[usize]| max_messages_after(sizes.iter().copied());
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[50, 0]), Some(MAX_MESSAGES));
        assert_eq!(after(&[32 * 1024; 128]), Some(8));
        assert_eq!(after(&[1_000_000]), Some(1));
    }
}
