//! What a delivery tells as a trace: a span for the delivery, and in it one for its call.
//!
//! The delivery's span is a CONSUMER's: by the semantic conventions for messaging, that is the kind of the operation
//! `process`, and to process is what a worker does with a message that a producer has put into the outbox earlier, in a
//! span that has long ended. The call is an HTTP client's. Both are told of when the delivery is over, so that nothing
//! has to be carried along for them. Their times are the database's, as in the row.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use crate::message::Target;
use crate::outbox::{CallRecord, Claimed, Record};
use crate::outcome::FinalStatus;
use crate::pace::DbTime;
use crate::signaling::{BaseUrl, Connection};
use crate::worker::lane::Lane;

/// Whom a connection leads to, if that is to be told.
pub(in crate::worker) fn traced_server(lane: &Lane, connection: &Connection) -> Option<BaseUrl> {
    let is_logged = lane.shared.traces.is_some();
    is_logged.then(|| connection.pool.base_url.clone())
}

/// Tells of a delivery that is over: a call was made, or the message has ended without one. A message that goes back
/// unharmed has nothing to tell. Nothing of its content is told, nor who it is from or for.
pub(in crate::worker) fn record_spans(
    lane: &Lane,
    claimed: &Claimed,
    record: &Record,
    server: Option<&BaseUrl>,
) {
    let Some(spans) = &lane.shared.traces else {
        return;
    };
    if record.call.is_none() && record.status.is_none() {
        return;
    }
    let tracer = spans.tracer();
    let mut delivery = tracer
        .span_builder(format!("deliver {}", lane.app))
        .with_kind(SpanKind::Consumer)
        .with_start_time(wall(claimed_at(lane, claimed)))
        .with_attributes(message_attributes(lane, claimed, record))
        .start_with_context(tracer, &spans.parent(claimed.traceparent.as_deref()));
    if !delivery.is_recording() {
        return;
    }
    if let Some(what) = failure_of(record) {
        delivery.set_status(Status::error(what));
    }
    let delivery = Context::new().with_span(delivery);
    let ended = match &record.call {
        Some(call) => {
            let server = server.unwrap_or_else(|| &lane.client.serving().base_url);
            record_attempt_span(tracer, &delivery, call, server);
            call.sent_at + call.duration
        }
        None => lane.now(),
    };
    delivery.span().end_with_timestamp(wall(ended));
}

fn record_attempt_span(
    tracer: &SdkTracer,
    delivery: &Context,
    call: &CallRecord,
    server: &BaseUrl,
) {
    let (address, port) = server.address();
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("server.address", address.to_owned()),
        KeyValue::new("server.port", i64::from(port)),
        KeyValue::new("signaling.outcome", call.outcome.unwrap_or("accepted")),
    ];
    if let Some(status) = call.http_status {
        attributes.push(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
    }
    if let Some(request_id) = &call.request_id {
        attributes.push(KeyValue::new("signaling.request_id", request_id.clone()));
    }
    if let Some(outcome) = call.outcome {
        attributes.push(KeyValue::new("error.type", outcome));
    }
    let mut span = tracer
        .span_builder("POST")
        .with_kind(SpanKind::Client)
        .with_start_time(wall(call.sent_at))
        .with_attributes(attributes)
        .start_with_context(tracer, delivery);
    if let Some(outcome) = call.outcome {
        span.set_status(Status::error(outcome));
    }
    span.end_with_timestamp(wall(call.sent_at + call.duration));
}

fn message_attributes(lane: &Lane, claimed: &Claimed, record: &Record) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "signaling"),
        KeyValue::new("messaging.operation.name", "deliver"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.message.id", claimed.id.to_string()),
        KeyValue::new("signaling.app", lane.app.clone()),
        KeyValue::new("signaling.attempt", i64::from(claimed.policy.attempts) + 1),
        KeyValue::new("signaling.claimed_by", lane.shared.name.clone()),
    ];
    if let Ok(message) = &claimed.message {
        let kind = match message.target {
            Target::Peer(_) => "peer",
            Target::Channel(_) => "channel",
        };
        attributes.push(KeyValue::new("signaling.destination.kind", kind));
    }
    if let Some(status) = record.status {
        attributes.push(KeyValue::new("signaling.status", status.as_str()));
    }
    if let (Some(wanted_at), Some(call)) = (claimed.wanted_at, &record.call) {
        let delay_s = call.sent_at.since(wanted_at).as_secs_f64();
        attributes.push(KeyValue::new("signaling.delay_s", delay_s));
    }
    attributes
}

/// In one word, why the delivery is not a success.
fn failure_of(record: &Record) -> Option<&'static str> {
    let of_the_call = record.call.as_ref().and_then(|call| call.outcome);
    of_the_call.or_else(|| match record.status? {
        FinalStatus::MessageSent | FinalStatus::MessageDelivered | FinalStatus::MessageOffline => {
            None
        }
        status @ (FinalStatus::Failed | FinalStatus::Expired | FinalStatus::Unknown) => {
            Some(status.as_str())
        }
    })
}

/// When the claim was asked for, which is what its lease is counted from.
fn claimed_at(lane: &Lane, claimed: &Claimed) -> DbTime {
    let asked = claimed.lease_ends.checked_sub(lane.shared.timing.lease);
    match (asked, lane.shared.outbox.clock().get()) {
        (Some(asked), Some(clock)) => clock.at(asked),
        _ => claimed.slot_at,
    }
}

fn wall(at: DbTime) -> SystemTime {
    let since_1970 = Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0));
    SystemTime::UNIX_EPOCH + since_1970
}
