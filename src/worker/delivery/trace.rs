//! Writes a span for each attempt, and for each message that ended without one. Like the row, the span has times of the
//! database's clock. A span contains no payload, sender or destination.

use std::time::SystemTime;

use opentelemetry::trace::{Span, SpanKind, Status, Tracer};
use opentelemetry::{KeyValue, Value};
use time::OffsetDateTime;

use crate::outbox::{Claimed, Record};
use crate::outcome::FinalStatus;
use crate::pace::DbTime;
use crate::signaling::BaseUrl;
use crate::telemetry::traces::Traces;
use crate::worker::lane::Lane;

pub(super) fn record_span(
    lane: &Lane,
    claimed: &Claimed,
    record: &Record,
    server: Option<&BaseUrl>,
) {
    let Some(Traces { tracer, .. }) = &lane.shared.config.traces else {
        return;
    };
    let (begun, ended) = match &record.call {
        Some(call) => (call.sent_at, call.sent_at + call.duration),
        None => (lane.shared.now(), lane.shared.now()),
    };
    let mut span = tracer
        .span_builder(format!("deliver {}", lane.app))
        .with_kind(SpanKind::Client)
        .with_start_time(wall(begun))
        .with_attributes(attributes(lane, claimed, record, server))
        .start_with_context(tracer, &Traces::parent(claimed.traceparent.as_deref()));
    if let Some(failure) = failure_of(record) {
        span.set_status(Status::error(failure));
    }
    span.end_with_timestamp(wall(ended));
}

/// Names by the semantic conventions for HTTP clients and for messaging.
fn attributes(
    lane: &Lane,
    claimed: &Claimed,
    record: &Record,
    server: Option<&BaseUrl>,
) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "signaling"),
        KeyValue::new("messaging.operation.name", "deliver"),
        KeyValue::new("messaging.operation.type", "send"),
        KeyValue::new("messaging.message.id", claimed.id.to_string()),
        KeyValue::new("signaling.app", lane.app.clone()),
        KeyValue::new("signaling.attempt", i64::from(claimed.policy.attempt())),
        KeyValue::new("signaling.claimed_by", lane.shared.config.name.clone()),
    ];
    let mut set = |name, value: Option<Value>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    let is_peer = claimed.message.destination.is_some();
    let kind = if is_peer { "peer" } else { "channel" };
    set("signaling.destination.kind", Some(kind.into()));
    let status = record.status.map(<&str>::from);
    set("signaling.status", status.map(Value::from));
    set("error.type", failure_of(record).map(Value::from));
    if let Some((address, port)) = server.map(BaseUrl::address) {
        set("server.address", Some(address.to_owned().into()));
        set("server.port", Some(i64::from(port).into()));
    }
    if let Some(call) = &record.call {
        let outcome = call.outcome.unwrap_or("accepted");
        let http_status = call.http_status.map(i64::from);
        let request_id = call.request_id.clone();
        let waits_since = claimed.waits_since;
        let waited_s = waits_since.map(|waits_since| call.sent_at.since(waits_since).as_secs_f64());
        set("http.request.method", Some("POST".into()));
        set("http.response.status_code", http_status.map(Value::from));
        set("signaling.outcome", Some(outcome.into()));
        set("signaling.request_id", request_id.map(Value::from));
        set("signaling.queue_wait_s", waited_s.map(Value::from));
    }
    attributes
}

fn failure_of(record: &Record) -> Option<&'static str> {
    let of_the_call = record.call.as_ref().and_then(|call| call.outcome);
    let is_failure = |status: &FinalStatus| {
        use FinalStatus::{Expired, Failed, Unknown};
        matches!(status, Failed | Expired | Unknown)
    };
    let status = record.status.filter(is_failure);
    of_the_call.or(status.map(<&str>::from))
}

fn wall(at: DbTime) -> SystemTime {
    OffsetDateTime::from(at).into()
}
