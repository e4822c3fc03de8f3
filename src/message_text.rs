//! Texts about one message. `worker message` and the dashboard share them.

use std::fmt::Display;

use crate::advice::{self, fault_texts};
use crate::outbox::{CallDetail, MessageDetail};
use crate::outcome::Fault;
use crate::pace::DbTime;

pub(crate) fn next_step(detail: &MessageDetail) -> String {
    let message = &detail.message;
    let worker = message.claimed_by.as_deref().unwrap_or("a worker");
    let is_due = message.due_at <= message.at;
    let due_at = message.due_at;
    let step = if message.finished_at.is_some() {
        return finished(&message.status, message.id);
    } else if message.is_claimed && !is_due {
        return format!(
            "{worker} has claimed the message, and sends it in its slot. If this worker dies, another worker claims the message after {due_at}"
        );
    } else if !is_due {
        let was_called = message.attempts > 0 || message.sent_at.is_some();
        let nth = if was_called { "next" } else { "first" };
        format!("the {nth} call is due at {due_at}")
    } else if let Some(until) = message.refused_until {
        format!(
            "a trigger or a constraint in the database refuses to change the message, or takes seconds, so claims pass over it until {until}. To have it sent, {}",
            advice::refused(&message.app)
        )
    } else if message.is_claimed {
        format!(
            "{worker} recorded no outcome before its lease ended at {due_at}, so the next claim takes the message"
        )
    } else {
        "the message is due, and waits for a free slot".into()
    };
    let Some(lane) = &detail.lane else {
        let app = &message.app;
        return format!("{step}, but no worker has served the app {app} yet");
    };
    match lane.obstacles_text() {
        Some(obstacles) => format!("{step}, but {obstacles}"),
        None => step,
    }
}

fn finished(status: &str, id: i64) -> String {
    let retry = format!("`worker retry --status {status} --id {id}` sends the message again");
    match status {
        "message_sent" => "nothing, because the API has accepted the message".into(),
        "message_delivered" => "nothing, because the recipient has the message".into(),
        "message_offline" => {
            "nothing, because the API has accepted the message. The recipient was offline; the API keeps the message only if enable_offline_messaging is set".into()
        }
        "unknown" => format!(
            "nothing, because the last call may have had an effect and the message is at most once. {retry}: find out first whether the message arrived"
        ),
        _ => format!("nothing. {retry}"),
    }
}

/// The events of a message, each with its time and lines of text.
pub(crate) fn timeline(detail: &MessageDetail) -> Vec<(DbTime, Vec<String>)> {
    let row = &detail.message;
    let mut events = vec![(row.created_at, vec!["inserted".to_owned()])];
    events.extend(detail.calls.iter().map(failed_call));
    // The table of attempts has only failed calls.
    if let (Some(sent_at), true) = (row.sent_at, row.status.starts_with("message_")) {
        let accepted = format!(
            "call {}: accepted{}{}{}",
            row.attempts.saturating_add(row.uncharged),
            optional(", HTTP ", row.http_status),
            optional(", by ", row.claimed_by.as_ref()),
            optional(", request ID ", row.request_id.as_ref())
        );
        events.push((sent_at, vec![accepted]));
    }
    if let Some(finished_at) = row.finished_at {
        let error = optional(": ", row.error.as_ref());
        events.push((finished_at, vec![format!("{}{error}", row.status)]));
    }
    events
}

fn failed_call(call: &CallDetail) -> (DbTime, Vec<String>) {
    let outcome = match call.outcome.as_str() {
        "lost" => "lost, and perhaps never made",
        outcome => outcome,
    };
    let took_ms = call.duration_ms.map(|ms| format!("{ms:.0} ms"));
    let result = format!(
        "call {}: {outcome}{}{}{}{}",
        call.attempt,
        optional(", HTTP ", call.http_status),
        optional(" after ", took_ms),
        optional(", by ", call.claimed_by.as_ref()),
        optional(": ", call.error.as_ref()),
    );
    let at = call.sent_at.unwrap_or(call.recorded_at);
    (at, vec![result, fault(call)])
}

fn optional(before: &str, value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| format!("{before}{value}"))
}

/// Names the side at fault for a failed call, the evidence, and whether the call is charged.
pub(crate) fn fault(call: &CallDetail) -> String {
    let charged = if call.charged {
        "charged"
    } else {
        "not charged"
    };
    let Some(fault) = call.fault() else {
        return charged.into();
    };
    let mut text = format!("fault: {}", fault_texts(fault).0);
    if let (Fault::Worker, Some(worker)) = (fault, &call.claimed_by) {
        text = format!("{text} {worker}");
    }
    if let Some(evidence) = &call.evidence {
        text = format!("{text} ({evidence})");
    }
    format!("{text}; {charged}")
}
