//! The delivery of one message: wait for its slot, send it, classify the response, and pass the record to the recorder.

mod trace;

use std::hash::BuildHasher;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::lane::circuit_breaker::{Attempt, AttemptKind, Verdict};
use super::lane::{AttemptReport, CapacityPermit, Lane, OpenCall};
use super::panic_point::panic_point;
use super::recorder::Delivered;
use super::restart::count_panic;
use crate::outbox::{CallRecord, Claimed, Record};
use crate::outcome::{self, Fault, FinalStatus, Next, Outcome};
use crate::pace::clock::Moment;
use crate::pace::{DbClock, DbTime, Late, PermitTerms, SendPermit};
use crate::signaling::{
    BaseUrl, CallFailure, Connection, CredentialError, Response, SignedRequest,
};

/// Deliveries prepare at multiples of this time, so that the process wakes up once for several of them.
const PREPARE_INTERVAL: Duration = Duration::from_millis(10);

/// A call that only waits to be sent in its slot.
struct Prepared<'lane> {
    permit: SendPermit,
    connection: Connection,
    request: SignedRequest,
    /// None if the call waits for its recipient.
    open_call: Option<OpenCall<'lane>>,
}

/// Why a message was not sent.
enum NotSent {
    /// The message ends without an attempt.
    Ended(FinalStatus, String),
    /// The slot or the lease has passed. The message goes back for a new slot.
    SlotMissed,
    /// The lane was held or slowed after the claim, or the worker stops. The message goes back.
    Released,
    /// No host could be connected. This counts as a failed attempt.
    NoConnection(CallFailure),
    /// This worker can't sign any request of the app.
    NoCredentials(CredentialError),
}

struct Finished {
    record: Record,
    /// None without an attempt.
    report: Option<AttemptReport>,
    /// The called host, for the trace.
    server: Option<BaseUrl>,
}

impl Finished {
    fn without_attempt(record: Record) -> Self {
        Self {
            record,
            report: None,
            server: None,
        }
    }
}

/// Sends a claimed message in its slot, and passes its record to the recorder. A panic fails this attempt only.
pub(super) async fn deliver(
    lane: Arc<Lane>,
    claimed: Claimed,
    permit: CapacityPermit,
    records: mpsc::Sender<Delivered>,
) {
    let sent_at = OnceLock::new();
    let attempt = attempt(&lane, &claimed, permit.is_over_share, &sent_at);
    let finished = AssertUnwindSafe(attempt).catch_unwind().await;
    let finished = finished.unwrap_or_else(|_| panicked(&lane, &claimed, sent_at.get().copied()));
    let traced = lane
        .shared
        .traces
        .is_some()
        .then(|| finished.record.clone());
    let delivered = Delivered {
        record: finished.record,
        lane: Arc::clone(&lane),
        was_retry: claimed.is_retry,
        _permit: permit,
    };
    // The recorder receives for as long as a delivery has a sender.
    records.send(delivered).await.ok();
    // At a shutdown the recorder waits for all senders, so this one must not wait for the lane's row.
    drop(records);
    if let Some(record) = traced {
        trace::record_spans(&lane, &claimed, &record, finished.server.as_ref());
    }
    match (finished.report, claimed.probe()) {
        (Some(report), _) => lane.write_transition(&report).await,
        (None, Some(probe)) => lane.release_probe(probe).await,
        (None, None) => {}
    }
}

/// Makes the attempt. Sets `sent_at` when the call starts.
async fn attempt(
    lane: &Lane,
    claimed: &Claimed,
    is_over_share: bool,
    sent_at: &OnceLock<DbTime>,
) -> Finished {
    if is_over_share {
        return Finished::without_attempt(Record::release(claimed));
    }
    let shutdown = &lane.shared.shutdown;
    let preparing = shutdown.run_until_cancelled(prepare(lane, claimed));
    match preparing.await.unwrap_or(Err(NotSent::Released)) {
        Ok(prepared) => {
            sent_at.set(prepared.permit.starts_at()).ok();
            send(lane, claimed, prepared).await
        }
        Err(NotSent::Ended(status, error)) => {
            Finished::without_attempt(Record::ended(claimed, status, error))
        }
        Err(NotSent::Released) => Finished::without_attempt(Record::release(claimed)),
        Err(NotSent::SlotMissed) => {
            lane.stats.slot_missed(lane.shared.now());
            Finished::without_attempt(Record::release(claimed))
        }
        Err(NotSent::NoConnection(failure)) => {
            // No host can be connected, so the failure counts for the first one.
            finish(lane, claimed, lane.shared.now(), 0, Err(failure))
        }
        Err(NotSent::NoCredentials(error)) => no_credentials(lane, claimed, &error),
    }
}

async fn prepare<'lane>(lane: &'lane Lane, claimed: &Claimed) -> Result<Prepared<'lane>, NotSent> {
    let failed = |error: String| NotSent::Ended(FinalStatus::Failed, error);
    let message = claimed
        .message
        .as_ref()
        .map_err(|error| failed(error.to_string()))?;
    let no_credentials = |error: CredentialError| match error {
        CredentialError::OtherSender { .. } => failed(error.to_string()),
        error => NotSent::NoCredentials(error),
    };
    let credentials = &lane.client.app.credentials;
    credentials.allow(&message.sender).map_err(no_credentials)?;
    let clock = lane.shared.outbox.clock().get();
    let clock = clock.ok_or(NotSent::SlotMissed)?;
    panic_point("before_call", claimed.id);

    let prepare_at = (claimed.slot_at - lane.client.serving().lead()).floor(PREPARE_INTERVAL);
    sleep_until(clock.instant_of(prepare_at)).await;
    let terms = PermitTerms {
        slot: claimed.slot_at,
        asked_at: claimed.asked_at,
        lease_ends: claimed.lease_ends,
        request_timeout: lane.client.timing.request_timeout,
    };
    // Without this, each message of a held lane would try to connect to an API that is unavailable.
    if terms.is_released(released_at(lane, claimed)) {
        return Err(NotSent::Released);
    }
    let is_measured = !message.options.wait_for_ack;
    let open_call = is_measured.then(|| lane.in_flight.begin_call(Instant::now()));
    let connection = lane.client.connection().await;
    let connection = connection.map_err(NotSent::NoConnection)?;
    let request = lane.client.prepare(message, &connection);
    let request = request.map_err(no_credentials)?;
    let clock = wait_until(claimed.slot_at, lane, clock).await;
    match permit(lane, claimed, terms, &clock) {
        Ok(permit) => Ok(Prepared {
            permit,
            connection,
            request,
            open_call,
        }),
        Err(reason) => {
            connection.put_back();
            Err(reason)
        }
    }
}

fn permit(
    lane: &Lane,
    claimed: &Claimed,
    terms: PermitTerms,
    clock: &DbClock,
) -> Result<SendPermit, NotSent> {
    let now = Moment::now();
    let expires_at = claimed.policy.expires_at;
    if let Some(expires_at) = expires_at.filter(|at| *at <= clock.at(now.instant)) {
        if expires_at <= lane.shared.steady_now() {
            let error = "not sent before its expires_at".to_owned();
            return Err(NotSent::Ended(FinalStatus::Expired, error));
        }
        // The clock was set, so the time of expiry may lie ahead again.
        return Err(NotSent::Released);
    }
    SendPermit::take(terms, clock, now, released_at(lane, claimed)).map_err(|late| match late {
        Late::Released => NotSent::Released,
        Late::Slot | Late::StoodStill | Late::Lease => {
            tracing::debug!(
                event = "slot_missed",
                app = lane.app,
                message_id = claimed.id,
                why = ?late,
                "slot missed: the message gets a new one"
            );
            NotSent::SlotMissed
        }
    })
}

/// When unsent messages were last released. A probe is sent all the same, because its outcome ends the hold.
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

async fn send(lane: &Lane, claimed: &Claimed, prepared: Prepared<'_>) -> Finished {
    let Prepared {
        permit,
        connection,
        request,
        open_call,
    } = prepared;
    let (sent_at, host) = (permit.starts_at(), connection.pool.index);
    let is_traced = lane.shared.traces.is_some();
    let server = is_traced.then(|| connection.pool.base_url.clone());
    let response = lane.client.send(permit, connection, request).await;
    drop(open_call);
    Finished {
        server,
        ..finish(lane, claimed, sent_at, host, response)
    }
}

/// Classifies the response, decides whose fault a failure is, and builds the record.
fn finish(
    lane: &Lane,
    claimed: &Claimed,
    sent_at: DbTime,
    host: usize,
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
    if let Some(waited) = queue_wait(claimed, sent_at) {
        lane.stats.waited(now, waited);
    }
    let error = (!matches!(outcome, Outcome::Accepted(_))).then(|| outcome::describe(&call));
    let http_status = call.as_ref().ok().map(|response| response.status);
    let verdict = judge(lane, claimed, host, &call, outcome, error.as_deref());
    tracing::debug!(
        event = "attempt_finished",
        app = lane.app,
        message_id = claimed.id,
        attempt = claimed.policy.attempts + claimed.policy.uncharged + 1,
        http_status,
        duration_ms = duration.as_millis(),
        outcome = outcome.attempt_outcome().unwrap_or("accepted"),
        fault = verdict.fault.map(Fault::as_str),
        charged = verdict.is_charged,
        "called"
    );
    let retry_after = outcome::retry_after(&call);
    let next = next(lane, claimed, outcome, verdict.is_charged, retry_after);
    let attempt = CallRecord {
        sent_at,
        duration,
        http_status,
        request_id: call.ok().and_then(|response| response.request_id),
        outcome: outcome.attempt_outcome(),
        charged: verdict.is_charged,
        fault: verdict.fault,
        evidence: verdict.evidence,
    };
    Finished {
        record: Record::after_call(claimed, next, error.clone(), attempt),
        report: Some(AttemptReport {
            transition: verdict.transition,
            sent_at,
            error: error.unwrap_or_default(),
            retry_after,
            probe: claimed.probe(),
        }),
        server: None,
    }
}

fn next(
    lane: &Lane,
    claimed: &Claimed,
    outcome: Outcome,
    is_charged: bool,
    retry_after: Duration,
) -> Next {
    let retry = lane.shared.retry;
    let delay = retry.delay(claimed.policy.failures()).max(retry_after);
    let (now, give_up_after) = (lane.shared.steady_now(), retry.give_up_after());
    outcome::next(
        outcome,
        is_charged,
        claimed.policy,
        now,
        delay,
        give_up_after,
    )
}

/// How long a message waited for its first call. None for a retry.
fn queue_wait(claimed: &Claimed, sent_at: DbTime) -> Option<Duration> {
    claimed.wanted_at.map(|wanted_at| sent_at.since(wanted_at))
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
    let message = claimed.message.as_ref();
    let timed_out = match call {
        Ok(response) => response.status == 408,
        Err(failure) => matches!(failure, CallFailure::TimedOut(_)),
    };
    let is_ack_timeout = timed_out && message.is_ok_and(|message| message.options.wait_for_ack);
    let attempt = Attempt {
        outcome,
        error: error.unwrap_or_default(),
        // A late failure of a host that the worker has left shows nothing about the present one.
        may_vote: host == lane.client.serving_beside(host) && !is_ack_timeout,
        target: message.map_or(0, |message| {
            lane.shared.hasher.hash_one(message.target.name())
        }),
        kind: match claimed.probe() {
            Some(_) => AttemptKind::Probe,
            None if claimed.is_retry => AttemptKind::Retry,
            None => AttemptKind::First,
        },
    };
    let verdict = lane.breaker.lock().observe(attempt, now);
    lane.apply_transition(verdict.transition);
    verdict
}

/// The message goes back, because other workers may have valid credentials.
fn no_credentials(lane: &Lane, claimed: &Claimed, error: &CredentialError) -> Finished {
    let error = error.to_string();
    let is_probe = claimed.probe().is_some();
    let mut breaker = lane.breaker.lock();
    let transition = breaker.no_credentials(&error, is_probe, Instant::now());
    drop(breaker);
    lane.apply_transition(transition);
    let report = AttemptReport {
        transition,
        error,
        probe: claimed.probe(),
        ..AttemptReport::default()
    };
    Finished {
        report: Some(report),
        ..Finished::without_attempt(Record::release(claimed))
    }
}

/// Logs a panic and charges the attempt. Otherwise a message that makes each attempt panic would never end. If `sent_at` is
/// set, the API may have the message.
fn panicked(lane: &Lane, claimed: &Claimed, sent_at: Option<DbTime>) -> Finished {
    count_panic("delivery");
    if let Some(suppressed) = lane.delivery_panics.admit() {
        tracing::error!(
            event = "delivery_panicked",
            app = lane.app,
            message_id = claimed.id,
            suppressed,
            "the worker panicked during an attempt to send this message, which is a defect. The message ends after its max_attempts, and stops no other message. Please report the `panicked` line before this one"
        );
    }
    let (outcome, error) = match sent_at {
        Some(_) => (
            Outcome::Ambiguous,
            "the worker failed after it had begun the call, which is a defect",
        ),
        None => (
            Outcome::Unserved,
            "the worker failed before the call, which is a defect",
        ),
    };
    let now = lane.shared.now();
    let sent_at = sent_at.unwrap_or(now);
    let attempt = CallRecord {
        sent_at,
        duration: now.since(sent_at),
        http_status: None,
        request_id: None,
        outcome: outcome.attempt_outcome(),
        charged: true,
        fault: Some(Fault::Worker),
        evidence: None,
    };
    let next = next(lane, claimed, outcome, true, Duration::ZERO);
    Finished::without_attempt(Record::after_call(
        claimed,
        next,
        Some(error.to_owned()),
        attempt,
    ))
}
