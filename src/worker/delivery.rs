//! The delivery of one message: wait for its slot, send it, classify the response, and pass the record to the recorder.

mod trace;

use std::hash::BuildHasher;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::lane::circuit_breaker::{Attempt, AttemptKind, Verdict};
use super::lane::{AttemptReport, CapacityPermit, Lane, OpenCall};
use super::panic_point::panic_point;
use super::recorder::Delivered;
use super::restart::count_panics;
use crate::outbox::{CallRecord, Claimed, Record};
use crate::outcome::{self, Fault, FinalStatus, Next, Outcome};
use crate::pace::clock::Moment;
use crate::pace::{DbClock, DbTime, NoPermit, SendPermit};
use crate::signaling::{
    CallFailure, Connection, ConnectionPool, CredentialError, Response, SignedRequest,
};

/// Deliveries prepare at multiples of this time, so that the process wakes up once for several of them.
const PREPARE_INTERVAL: Duration = Duration::from_millis(10);

struct Prepared<'lane> {
    permit: SendPermit,
    connection: Connection,
    request: SignedRequest,
    /// None for a call with `wait_for_ack`, because its recipient decides how long the call takes.
    open_call: Option<OpenCall<'lane>>,
}

/// The reason why a message is not sent in its slot.
enum Unsent {
    Released,
    Ended(FinalStatus, String),
    NoCredentials(CredentialError),
    NotConnected(CallFailure),
}

impl From<CredentialError> for Unsent {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::OtherSender { .. } => {
                Self::Ended(FinalStatus::Failed, error.to_string())
            }
            error => Self::NoCredentials(error),
        }
    }
}

type Finished = (Record, Option<AttemptReport>);

/// Sends a claimed message at `start_at` or later, and passes its record to the recorder. A panic fails this attempt only.
pub(super) async fn deliver(
    lane: Arc<Lane>,
    claimed: Claimed,
    start_at: DbTime,
    permit: CapacityPermit,
    records: mpsc::Sender<Delivered>,
) {
    let attempt = AssertUnwindSafe(attempt(&lane, &claimed, start_at));
    let finished = attempt.catch_unwind().await;
    let (record, report) = finished.unwrap_or_else(|_| panicked(&lane, &claimed));
    let made_call = record.call.is_some();
    let (on_recorded, recorded) = claimed.probe().map(|_| oneshot::channel()).unzip();
    let delivered = Delivered {
        record,
        lane: Arc::clone(&lane),
        was_retry: claimed.is_retry,
        _permit: permit,
        on_recorded,
    };
    // The recorder receives for as long as a delivery has a sender.
    records.send(delivered).await.ok();
    // At a shutdown the recorder waits for all senders, so this one must not wait for the lane's row.
    drop(records);
    match (report, claimed.probe().zip(recorded)) {
        (Some(report), _) => lane.apply_transition(&report).await,
        (None, Some((probe, recorded))) => {
            // A release before the record would discard the outcome of a message that may have been sent. If the recorder has
            // given up the record, only the end of the lease shows this.
            if recorded.await.is_ok() || !made_call {
                lane.release_probe(probe).await;
            }
        }
        (None, None) => {}
    }
}

async fn attempt(lane: &Lane, claimed: &Claimed, start_at: DbTime) -> Finished {
    let shutdown = &lane.shared.shutdown;
    let preparing = shutdown.run_until_cancelled(prepare(lane, claimed, start_at));
    let prepared = preparing.await.unwrap_or(Err(Unsent::Released));
    let call = match prepared {
        Ok(call) => call,
        Err(unsent) => return finish_unsent(lane, claimed, unsent),
    };
    let sent_at = call.permit.starts_at();
    let host = &lane.client.pools[call.connection.host];
    let sending = lane.client.send(call.permit, call.connection, call.request);
    let response = sending.await;
    drop(call.open_call);
    finish(lane, claimed, sent_at, host, response)
}

/// Connects and signs the request shortly before the slot, then waits for the slot.
async fn prepare<'lane>(
    lane: &'lane Lane,
    claimed: &Claimed,
    start_at: DbTime,
) -> Result<Prepared<'lane>, Unsent> {
    let message = &claimed.message;
    lane.client.app.credentials.allow(&message.sender)?;
    let clock = lane.shared.outbox.clock().get().ok_or(Unsent::Released)?;
    panic_point("before_call", claimed.id);

    let prepare_at = (start_at - lane.client.serving().lead()).floor(PREPARE_INTERVAL);
    sleep_until(clock.instant_of(prepare_at)).await;
    // Without this, each message of a held lane would try to connect to an API that is unavailable.
    if claimed.slot.is_released(released_at(lane, claimed)) {
        return Err(Unsent::Released);
    }
    let is_measured = !message.wait_for_ack;
    let open_call = is_measured.then(|| lane.in_flight.begin_call(Instant::now()));
    let connecting = lane.client.connection();
    let connection = connecting.await.map_err(Unsent::NotConnected)?;
    let ready = async {
        let request = lane.client.prepare(message, &connection)?;
        let clock = wait_until(start_at, lane, clock).await;
        Ok((permit(lane, claimed, &clock)?, request))
    };
    match ready.await {
        Ok((permit, request)) => Ok(Prepared {
            permit,
            connection,
            request,
            open_call,
        }),
        Err(unsent) => {
            lane.client.put_back(connection);
            Err(unsent)
        }
    }
}

fn permit(lane: &Lane, claimed: &Claimed, clock: &DbClock) -> Result<SendPermit, Unsent> {
    let now = Moment::now();
    let expires_at = claimed.policy.expires_at;
    if let Some(expires_at) = expires_at.filter(|at| *at <= clock.at(now.instant)) {
        // After a step of the clock, the expiry may still lie ahead. So the message is released, and does not end.
        if expires_at > lane.shared.steady_now() {
            return Err(Unsent::Released);
        }
        let error = "not sent before its expires_at".to_owned();
        return Err(Unsent::Ended(FinalStatus::Expired, error));
    }
    let timeout = lane.shared.config.timing.request_timeout;
    let released_at = released_at(lane, claimed);
    SendPermit::take(claimed.slot, timeout, clock, now, released_at).map_err(|reason| {
        if reason != NoPermit::Released {
            lane.stats.slot_missed(lane.shared.now());
            tracing::debug!(
                event = "slot_missed",
                app = lane.app,
                message_id = claimed.id,
                reason = ?reason,
                "the message is released without an attempt, for the reason in the field reason"
            );
        }
        Unsent::Released
    })
}

/// When the lane last released its unsent messages. None for a probe, which is sent all the same, because only a probe
/// can end the hold.
fn released_at(lane: &Lane, claimed: &Claimed) -> Option<Instant> {
    let released_at = *lane.released_at.lock();
    released_at.filter(|_| claimed.probe().is_none())
}

/// Waits for a time on the database's clock, and follows corrections of the estimate. Returns the latest estimate. A step of
/// the clock ends the wait, because the time may then never come.
async fn wait_until(at: DbTime, lane: &Lane, mut clock: DbClock) -> DbClock {
    loop {
        sleep_until(clock.instant_of(at)).await;
        let stepped_at = clock.stepped_at;
        clock = lane.shared.outbox.clock().get().unwrap_or(clock);
        if clock.at(Instant::now()) >= at || clock.stepped_at != stepped_at {
            return clock;
        }
    }
}

/// A timer works in whole milliseconds, so for a moment in the past it would wait for one or two of them.
async fn sleep_until(at: Instant) {
    if Instant::now() < at {
        tokio::time::sleep_until(at.into()).await;
    }
}

fn finish_unsent(lane: &Lane, claimed: &Claimed, unsent: Unsent) -> Finished {
    match unsent {
        Unsent::Released => (Record::release(claimed), None),
        Unsent::Ended(status, error) => {
            let record = Record {
                status: Some(status),
                error: Some(error),
                ..Record::release(claimed)
            };
            trace::record_span(lane, claimed, &record, None);
            (record, None)
        }
        // The message is released, because other workers may have valid credentials.
        Unsent::NoCredentials(error) => {
            let (error, probe) = (error.to_string(), claimed.probe());
            let mut breaker = lane.breaker.lock();
            let transition = breaker.no_credentials(&error, probe.is_some(), Instant::now());
            let report = AttemptReport {
                transition,
                error,
                probe,
                ..AttemptReport::default()
            };
            (Record::release(claimed), Some(report))
        }
        // The worker could reach no host, so the failure counts for the first one.
        Unsent::NotConnected(failure) => {
            let (now, host) = (lane.shared.now(), &lane.client.pools[0]);
            finish(lane, claimed, now, host, Err(failure))
        }
    }
}

/// Classifies the response, decides whose fault a failure is, and builds the record.
fn finish(
    lane: &Lane,
    claimed: &Claimed,
    sent_at: DbTime,
    host: &ConnectionPool,
    call: Result<Response, CallFailure>,
) -> Finished {
    panic_point("after_call", claimed.id);
    let now = lane.shared.now();
    let duration = now.since(sent_at);
    let outcome = outcome::classify(&call);
    // The time that a failed connection takes is no evidence of how long calls take.
    let was_sent = !matches!(call, Err(CallFailure::NotSent(_)));
    lane.stats
        .called(now, outcome, was_sent.then_some(duration));
    if let Some(waits_since) = claimed.waits_since {
        lane.stats.waited(now, sent_at.since(waits_since));
    }
    let error = (!outcome.is_accepted()).then(|| outcome::describe(&call));
    let http_status = call.as_ref().ok().map(|response| response.status);
    let verdict = judge(lane, claimed, host.index, &call, outcome, error.as_deref());
    tracing::debug!(
        event = "attempt_finished",
        app = lane.app,
        message_id = claimed.id,
        attempt = claimed.policy.attempt(),
        http_status,
        duration_ms = duration.as_millis(),
        outcome = outcome.failure().unwrap_or("accepted"),
        fault = verdict.fault.map(<&str>::from),
        charged = verdict.is_charged,
        "called"
    );
    let retry_after = outcome::retry_after(&call);
    let attempt = CallRecord {
        sent_at,
        duration,
        http_status,
        request_id: call.ok().and_then(|response| response.request_id),
        outcome: outcome.failure(),
        charged: verdict.is_charged,
        fault: verdict.fault,
        evidence: verdict.evidence,
    };
    let mut record = called(lane, claimed, outcome, retry_after, attempt);
    record.error.clone_from(&error);
    trace::record_span(lane, claimed, &record, Some(&host.base_url));
    let report = Some(AttemptReport {
        transition: verdict.transition,
        sent_at,
        error: error.unwrap_or_default(),
        retry_after,
        probe: claimed.probe(),
    });
    (record, report)
}

/// The record of a call, with the final status or the time of the retry.
fn called(
    lane: &Lane,
    claimed: &Claimed,
    outcome: Outcome,
    retry_after: Duration,
    call: CallRecord,
) -> Record {
    let retry = lane.shared.config.retry;
    let delay = retry.delay(claimed.policy.failures()).max(retry_after);
    let (now, policy) = (lane.shared.steady_now(), claimed.policy);
    let mut record = Record::release(claimed);
    match outcome::next(
        outcome,
        call.charged,
        policy,
        now,
        delay,
        retry.give_up_after,
    ) {
        Next::Final(status) => record.status = Some(status),
        Next::Retry(delay) => record.retry_at = Some(Instant::now() + delay),
    }
    record.call = Some(call);
    record
}

fn judge(
    lane: &Lane,
    claimed: &Claimed,
    host: usize,
    call: &Result<Response, CallFailure>,
    outcome: Outcome,
    error: Option<&str>,
) -> Verdict {
    let now = Instant::now();
    if call.is_ok() {
        lane.in_flight.answered(now);
    }
    let timed_out = match call {
        Ok(response) => response.status == 408,
        Err(failure) => matches!(failure, CallFailure::TimedOut(_)),
    };
    let is_ack_timeout = timed_out && claimed.message.wait_for_ack;
    let attempt = Attempt {
        outcome,
        error: error.unwrap_or_default(),
        // A late failure of a host that the worker now avoids shows nothing about the present host.
        may_vote: lane.client.is_serving(host) && !is_ack_timeout,
        target: lane.shared.hasher.hash_one(claimed.message.target()),
        kind: match claimed.probe() {
            Some(_) => AttemptKind::Probe,
            None if claimed.is_retry => AttemptKind::Retry,
            None => AttemptKind::First,
        },
    };
    lane.breaker.lock().observe(attempt, now)
}

/// Logs and charges the attempt. Otherwise a message that makes each attempt panic would never end. The outcome is
/// ambiguous, because the API may have accepted the message.
fn panicked(lane: &Lane, claimed: &Claimed) -> Finished {
    count_panics("delivery", 1);
    if let Some(suppressed) = lane.delivery_panics.admit() {
        tracing::error!(
            event = "delivery_panicked",
            app = lane.app,
            message_id = claimed.id,
            suppressed,
            "the worker panicked during an attempt to send this message, which is a defect. The message ends after its max_attempts, and stops no other message. Please report the `panicked` line before this one"
        );
    }
    let outcome = Outcome::Ambiguous;
    let attempt = CallRecord {
        sent_at: lane.shared.now(),
        outcome: outcome.failure(),
        charged: true,
        fault: Some(Fault::Worker),
        ..CallRecord::default()
    };
    let mut record = called(lane, claimed, outcome, Duration::ZERO, attempt);
    record.error = Some("the worker failed during the attempt, which is a defect".to_owned());
    (record, None)
}
