//! Records the trace of a delivery: a span for the delivery, and a child span for its call.
//!
//! By the semantic conventions for messaging, the operation `process` is a CONSUMER span: the worker processes a message of
//! a producer whose span has long ended. The call is the span of an HTTP client. The worker records both after the
//! delivery, with times of the database's clock, as in the row. Spans contain no payload, sender or destination.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;

use crate::message::Target;
use crate::outbox::{CallRecord, Claimed, Record};
use crate::outcome::FinalStatus;
use crate::pace::DbTime;
use crate::signaling::BaseUrl;
use crate::telemetry::traces::Traces;
use crate::worker::lane::Lane;

/// A message that went back without an attempt has no spans.
pub(crate) fn record_spans(
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
    let tracer = &spans.tracer;
    let mut delivery = tracer
        .span_builder(format!("deliver {}", lane.app))
        .with_kind(SpanKind::Consumer)
        .with_start_time(wall(claimed_at(lane, claimed)))
        .with_attributes(message_attributes(lane, claimed, record))
        .start_with_context(tracer, &Traces::parent(claimed.traceparent.as_deref()));
    if !delivery.is_recording() {
        return;
    }
    if let Some(failure) = failure_of(record) {
        delivery.set_status(Status::error(failure));
    }
    let delivery = Context::new().with_span(delivery);
    let ended = match &record.call {
        Some(call) => {
            let server = server.unwrap_or_else(|| &lane.client.serving().base_url);
            record_attempt_span(tracer, &delivery, call, server);
            call.sent_at + call.duration
        }
        None => lane.shared.now(),
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
        let status = i64::from(status);
        attributes.push(KeyValue::new("http.response.status_code", status));
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
    let call = record.call.as_ref();
    if let Some(waited) = call.and_then(|call| super::queue_wait(claimed, call.sent_at)) {
        attributes.push(KeyValue::new("signaling.delay_s", waited.as_secs_f64()));
    }
    attributes
}

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

/// The lease is counted from the claim's request.
fn claimed_at(lane: &Lane, claimed: &Claimed) -> DbTime {
    let clock = lane.shared.outbox.clock().get();
    clock.map_or(claimed.slot_at, |clock| clock.at(claimed.asked_at))
}

fn wall(at: DbTime) -> SystemTime {
    let since_1970 = Duration::from_micros(u64::try_from(at.as_micros()).unwrap_or(0));
    SystemTime::UNIX_EPOCH + since_1970
}
