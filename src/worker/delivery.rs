//! The delivery of one message: wait for the slot, call, decide, hand over to the recorder.

mod panicked;
mod trace;

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::lane::circuit_breaker::{Attempt, AttemptKind, Verdict};
use super::lane::{AttemptReport, Lane, OpenCall, Place};
use super::panic_point::panic_point;
use super::recorder::Delivered;
use super::restart::{Panicked, catch_panic};
use crate::outbox::{CallRecord, Claimed, Record};
use crate::outcome::{self, Fault, FinalStatus, Outcome};
use crate::pace::clock::Moment;
use crate::pace::{DbClock, DbTime, Late, PermitTerms, SendPermit};
use crate::signaling::{
    BaseUrl, CallFailure, Connection, CredentialError, Response, SignedRequest,
};

/// Messages get ready at multiples of this, and so several at the same time: to wake up costs more than to get ready.
const PREPARE_INTERVAL: Duration = Duration::from_millis(10);

/// Everything that a call needs, in time for its slot.
struct Prepared<'lane> {
    open: OpenCall<'lane>,
    permit: SendPermit,
    connection: Connection,
    request: SignedRequest,
}

/// Why there is no call.
enum NoCall {
    /// The row ends, or goes back, as this record says.
    Record(Record),
    /// The slot or the lease has passed: the message goes back for a new slot.
    Late,
    /// The lane was held or slowed since the claim: the message goes back.
    Released,
    /// No connection could be made: as good as a call that failed.
    Failed(DbTime, CallFailure),
    /// The app's secrets can't be read: nothing of it can be sent.
    NoCredentials(CredentialError),
}

/// An attempt that is over, with or without a call.
struct Finished {
    record: Record,
    event: LaneEvent,
    /// The message was not sent because its slot was missed, and needs another slot.
    wants_slot: bool,
    /// The host of the call, for the trace.
    server: Option<BaseUrl>,
}

impl From<(Record, LaneEvent)> for Finished {
    fn from((record, event): (Record, LaneEvent)) -> Self {
        Self {
            record,
            event,
            wants_slot: false,
            server: None,
        }
    }
}

/// Delivers a claimed message, at the earliest at `start_at`, and hands its record to the recorder. A panic fails this
/// attempt only.
pub(super) async fn deliver(
    lane: Arc<Lane>,
    claimed: Claimed,
    start_at: DbTime,
    place: Place,
    records: mpsc::Sender<Delivered>,
) {
    let id = claimed.id;
    let delivery = pin!(attempt_and_record(
        Arc::clone(&lane),
        claimed,
        start_at,
        place,
        records
    ));
    if catch_panic(delivery).await.is_err() {
        panicked::report(&lane, id);
    }
}

async fn attempt_and_record(
    lane: Arc<Lane>,
    claimed: Claimed,
    start_at: DbTime,
    place: Place,
    records: mpsc::Sender<Delivered>,
) {
    let sent_at = OnceLock::new();
    let attempting = pin!(attempt(&lane, &claimed, start_at, &sent_at));
    let finished = catch_panic(attempting).await.unwrap_or_else(|Panicked| {
        panicked::report(&lane, claimed.id);
        let record = panicked::record(&lane, &claimed, sent_at.get().copied());
        (record, unused_probe(&claimed)).into()
    });
    let Finished { record, event, .. } = finished;
    let spans = (
        finished.server,
        lane.shared.traces.is_some().then(|| record.clone()),
    );
    // The recorder takes records for as long as there are deliveries.
    records
        .send(Delivered {
            record,
            lane: Arc::clone(&lane),
            wants_slot: finished.wants_slot,
            was_retry: claimed.is_retry,
            _place: place,
        })
        .await
        .ok();
    // What is known is written whatever the lane's row waits for; and at a shutdown the recorder waits for its senders.
    drop(records);
    if let (server, Some(record)) = spans {
        trace::record_spans(&lane, &claimed, &record, server.as_ref());
    }
    match event {
        LaneEvent::None => {}
        LaneEvent::Outcome(report) => lane.apply(&report).await,
        LaneEvent::ProbeUnused(probe) => lane.release_probe(probe).await,
    }
}

/// Makes the attempt. `sent_at` is set when the call starts.
async fn attempt(
    lane: &Lane,
    claimed: &Claimed,
    start_at: DbTime,
    sent_at: &OnceLock<DbTime>,
) -> Finished {
    tokio::select! {
        biased;
        () = lane.shutdown().cancelled() => (Record::release(claimed), unused_probe(claimed)).into(),
        ready = prepare(lane, claimed, start_at) => match ready {
            Ok(ready) => {
                let server = trace::traced_server(lane, &ready.connection);
                sent_at.set(ready.permit.starts_at()).ok();
                let called = call(lane, claimed, ready).await;
                Finished { server, ..called.into() }
            }
            Err(NoCall::Record(record)) => (record, unused_probe(claimed)).into(),
            Err(NoCall::Late) => {
                lane.stats.slot_missed(lane.now());
                let released = (Record::release(claimed), unused_probe(claimed));
                Finished { wants_slot: true, ..released.into() }
            }
            Err(NoCall::Released) => (Record::release(claimed), unused_probe(claimed)).into(),
            Err(NoCall::Failed(at, failure)) => {
                let host = lane.client.serving().index;
                classify(lane, claimed, at, at, host, Err(failure)).into()
            },
            Err(NoCall::NoCredentials(error)) => {
                (Record::release(claimed), no_credentials(lane, claimed, &error)).into()
            }
        },
    }
}

/// A probe without a call lets another message probe.
fn unused_probe(claimed: &Claimed) -> LaneEvent {
    claimed
        .probe()
        .map_or(LaneEvent::None, LaneEvent::ProbeUnused)
}

/// Gives a claimed message back that has no place in flight.
pub(super) async fn give_back(
    lane: Arc<Lane>,
    claimed: Claimed,
    place: Place,
    records: mpsc::Sender<Delivered>,
) {
    let delivered = Delivered {
        record: Record::release(&claimed),
        lane,
        wants_slot: false,
        was_retry: claimed.is_retry,
        _place: place,
    };
    records.send(delivered).await.ok();
}

/// What the lane has to know of a delivery.
enum LaneEvent {
    None,
    Outcome(AttemptReport),
    /// A probe made no call.
    ProbeUnused(Uuid),
}

/// No message of the app can be signed here. Other workers may have credentials that are right.
fn no_credentials(lane: &Lane, claimed: &Claimed, error: &CredentialError) -> LaneEvent {
    let error = error.to_string();
    let is_probe = claimed.probe().is_some();
    let transition = lane
        .breaker()
        .no_credentials(&error, is_probe, Instant::now());
    lane.breaker_has_changed(transition);
    LaneEvent::Outcome(AttemptReport {
        transition,
        sent_at: lane.now(),
        error,
        retry_after: Duration::ZERO,
        probe: claimed.probe(),
    })
}

async fn prepare<'lane>(
    lane: &'lane Lane,
    claimed: &Claimed,
    start_at: DbTime,
) -> Result<Prepared<'lane>, NoCall> {
    let ended = |status, error| NoCall::Record(Record::ended(claimed, status, error));
    let message = claimed
        .message
        .as_ref()
        .map_err(|error| ended(FinalStatus::Failed, error.to_string()))?;
    let no_credentials = |error: CredentialError| match error {
        CredentialError::OtherSender { .. } => ended(FinalStatus::Failed, error.to_string()),
        error => NoCall::NoCredentials(error),
    };
    let credentials = &lane.client.settings.credentials;
    credentials.allow(&message.sender).map_err(no_credentials)?;
    let Some(clock) = lane.shared.outbox.clock().get() else {
        return Err(NoCall::Late);
    };
    panic_point("before_call", claimed.id);

    let get_ready_at = (start_at - lane.client.serving().lead()).floor(PREPARE_INTERVAL);
    sleep_until(clock.instant_of(get_ready_at)).await;
    let terms = PermitTerms {
        slot: claimed.slot_at,
        asked_at: claimed.asked_at,
        lease_ends: claimed.lease_ends,
        request_timeout: lane.client.settings.request_timeout,
    };
    if terms.is_released(released_at(lane, claimed)) {
        // Else each of them would try to connect to an API that is away.
        return Err(NoCall::Released);
    }
    let open = OpenCall::begin(lane, message);
    let connection = lane
        .client
        .connection()
        .await
        .map_err(|failure| NoCall::Failed(lane.now(), failure))?;
    let request = lane.client.prepare(message, &connection);
    let request = request.map_err(no_credentials)?;
    let clock = wait_for(start_at, lane, clock).await;
    let now = Moment::now();
    if let Some(expires_at) = claimed.policy.expires_at
        && expires_at <= clock.at(now.instant)
    {
        connection.put_back();
        return Err(if expires_at <= lane.steady_now() {
            ended(
                FinalStatus::Expired,
                "not sent before its expires_at".into(),
            )
        } else {
            NoCall::Released
        });
    }
    match SendPermit::take(terms, &clock, now, released_at(lane, claimed)) {
        Ok(permit) => Ok(Prepared {
            open,
            permit,
            connection,
            request,
        }),
        Err(why) => {
            connection.put_back();
            if matches!(why, Late::Released | Late::ClockStepped) {
                return Err(NoCall::Released);
            }
            tracing::debug!(
                event = "slot_missed",
                app = lane.app,
                message_id = claimed.id,
                ?why,
                "slot missed: a new one is taken"
            );
            Err(NoCall::Late)
        }
    }
}

/// When messages were last given back, for a message that is not a probe: the outcome of a probe tells how they fare.
fn released_at(lane: &Lane, claimed: &Claimed) -> Option<Instant> {
    lane.unsent_released_at()
        .filter(|_| claimed.probe().is_none())
}

/// Waits for a time on the database's clock, and follows corrections of the estimate meanwhile. Returns the latest estimate.
/// A step of the clock ends the wait, because the time may then never come.
async fn wait_for(at: DbTime, lane: &Lane, mut clock: DbClock) -> DbClock {
    loop {
        sleep_until(clock.instant_of(at)).await;
        let before = clock;
        clock = lane.shared.outbox.clock().get().unwrap_or(clock);
        if clock.at(Instant::now()) >= at || clock.stepped_at() != before.stepped_at() {
            return clock;
        }
    }
}

/// Waits for a moment. For one that is over a timer would take another millisecond or two: it goes by whole ones.
async fn sleep_until(at: Instant) {
    if Instant::now() < at {
        tokio::time::sleep_until(at.into()).await;
    }
}

async fn call(lane: &Lane, claimed: &Claimed, ready: Prepared<'_>) -> (Record, LaneEvent) {
    let sent_at = ready.permit.starts_at();
    let host = ready.connection.pool.index;
    let call = lane
        .client
        .send(ready.permit, ready.connection, ready.request)
        .await;
    drop(ready.open);
    classify(lane, claimed, sent_at, lane.now(), host, call)
}

/// Decides what a call came to, and what is recorded.
fn classify(
    lane: &Lane,
    claimed: &Claimed,
    sent_at: DbTime,
    now: DbTime,
    host: usize,
    call: Result<Response, CallFailure>,
) -> (Record, LaneEvent) {
    panic_point("after_call", claimed.id);
    let outcome = outcome::classify(&call);
    // How long it takes until no connection can be made says nothing of how long calls take.
    let was_sent = !matches!(call, Err(CallFailure::NotSent(_)));
    let took = was_sent.then(|| now.since(sent_at));
    lane.stats.called(now, outcome, took);
    if let Some(wanted_at) = claimed.wanted_at {
        lane.stats.waited(now, sent_at.since(wanted_at));
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
        duration_ms = now.since(sent_at).as_millis(),
        outcome = outcome.attempt_outcome().unwrap_or("accepted"),
        fault = verdict.fault.map(Fault::as_str),
        charged = verdict.is_charged,
        "called"
    );
    let retry = lane.shared.retry;
    let retry_after = outcome::retry_after(&call);
    let next = outcome::next(
        outcome,
        verdict.is_charged,
        claimed.policy,
        lane.steady_now(),
        retry.delay(claimed.policy.failures()).max(retry_after),
        retry.give_up_after(),
    );
    let request_id = call.ok().and_then(|response| response.request_id);
    let call = CallRecord {
        sent_at,
        duration: now.since(sent_at),
        http_status,
        request_id,
        outcome: outcome.attempt_outcome(),
        charged: verdict.is_charged,
        fault: verdict.fault,
        evidence: verdict.evidence,
    };
    let record = Record::after_call(claimed, next, error.clone(), call);
    let report = AttemptReport {
        transition: verdict.transition,
        sent_at,
        error: error.unwrap_or_default(),
        retry_after,
        probe: claimed.probe(),
    };
    (record, LaneEvent::Outcome(report))
}

/// Decides whose fault it is if the call has failed.
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
        lane.open_calls().response_received(now);
    }
    let message = claimed.message.as_ref();
    let waits_for_ack = message.is_ok_and(|message| message.options.wait_for_ack);
    let is_late = match call {
        Ok(response) => response.status == 408,
        Err(failure) => matches!(failure, CallFailure::TimedOut(_)),
    };
    let (target, is_throttled_by_destination) = {
        let mut destinations = lane.destinations();
        let target = message.map_or(0, |message| destinations.hash(&message.target));
        let is_throttled = match outcome {
            Outcome::Accepted(_) => {
                destinations.accepted(target);
                false
            }
            Outcome::Throttled => destinations.throttled(target),
            _ => false,
        };
        (target, is_throttled)
    };
    let kind = match claimed.probe() {
        Some(_) => AttemptKind::Probe,
        None if claimed.is_retry => AttemptKind::Retry,
        None => AttemptKind::First,
    };
    let attempt = Attempt {
        outcome,
        error: error.unwrap_or_default(),
        host,
        serving_host: lane.client.serving().index,
        target,
        kind,
        is_ack_timeout: waits_for_ack && is_late,
        is_throttled_by_destination,
    };
    let verdict = lane.breaker().observe(attempt, now);
    lane.breaker_has_changed(verdict.transition);
    verdict
}
