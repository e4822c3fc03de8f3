//! Records and logs an attempt in which the worker panicked.

use crate::outbox::{CallRecord, Claimed, Record};
use crate::outcome::{self, Fault, Outcome};
use crate::pace::DbTime;
use crate::worker::lane::Lane;
use crate::worker::restart::Task;

pub(super) fn report(lane: &Lane, message_id: i64) {
    Task::Delivery.count_panic();
    if let Some(suppressed) = lane.delivery_panics.admit() {
        tracing::error!(
            event = "delivery_panicked",
            app = lane.app,
            message_id,
            suppressed,
            "the worker panicked during an attempt to send this message, which is a defect. The message ends after its max_attempts; other messages go on. Please report the `panicked` line before this one"
        );
    }
}

/// The attempt is charged: otherwise a message that makes each attempt panic would never end. `sent_at` is set if the API may
/// have the message.
pub(super) fn record(lane: &Lane, claimed: &Claimed, sent_at: Option<DbTime>) -> Record {
    let (now, retry) = (lane.now(), lane.shared.retry);
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
    let delay = retry.delay(claimed.policy.failures());
    let give_up_after = retry.give_up_after();
    let next = outcome::next(
        outcome,
        true,
        claimed.policy,
        lane.steady_now(),
        delay,
        give_up_after,
    );
    let sent_at = sent_at.unwrap_or(now);
    let call = CallRecord {
        sent_at,
        duration: now.since(sent_at),
        http_status: None,
        request_id: None,
        outcome: outcome.attempt_outcome(),
        charged: true,
        fault: Some(Fault::Worker),
        evidence: None,
    };
    Record::after_call(claimed, next, Some(error.to_owned()), call)
}
