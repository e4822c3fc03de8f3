//! The wait of a lane between two claims: for slots while there is a backlog, else for a message.

use std::time::Duration;

use crate::outbox::Batch;
use crate::pace::{DbTime, HORIZON, Lookahead};
use crate::worker::lane::Lane;

/// The pause after a claim that took all messages except those for crowded destinations.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);
const FOREVER: Duration = Duration::from_secs(3600);

/// The time of the next claim. In a backlog, the lane claims again when half of the horizon is free. None if the worker has
/// taken all due messages, or the lane is held.
pub(super) fn next_claim_at(batch: &Batch, lookahead: Lookahead, avoids: bool) -> Option<DbTime> {
    let has_passed = batch.passed.is_some() || batch.retry_passed.is_some();
    if has_passed && !batch.is_full() {
        Some(batch.at)
    } else if avoids && batch.hold.is_none() && !batch.is_full() {
        Some(batch.at + CROWDED_PAUSE)
    } else if batch.hold.is_none() && (batch.slots == 0 || batch.is_full()) {
        Some(batch.next_slot_at - HORIZON / 2 - lookahead.0)
    } else {
        None
    }
}

pub(super) async fn wait(claim_at: Option<DbTime>, lane: &Lane) {
    let Some(at) = claim_at else {
        return Box::pin(idle(lane)).await;
    };
    let longest = lane.shared.config.timing.poll_interval;
    let wait = at.since(lane.shared.now()).min(longest);
    lane.heartbeat.beat(wait);
    tokio::select! {
        // The API has asked for a long pause, which an operator may end.
        () = lane.wakeup.notified(), if wait == longest => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// Waits for a notification, a poll that finds a due message, or the due time of the next message. Meanwhile the poller
/// beats the lane's heartbeat.
async fn idle(lane: &Lane) {
    loop {
        let claim_at = lane.polls.lock().claim_at();
        let claim_in = claim_at.map_or(FOREVER, |at| at.since(lane.shared.now()));
        tokio::select! {
            () = lane.wakeup.notified() => return,
            () = tokio::time::sleep(claim_in) => return,
            () = lane.rescheduled.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Hold, HoldKind};

    const AT: DbTime = DbTime::from_micros(1_000_000_000);

    fn batch(slots: usize, expired: usize) -> Batch {
        let mut batch = Batch::without_messages(AT, slots);
        batch.ended.expired = expired;
        batch.next_slot_at = AT + HORIZON;
        batch
    }

    #[test]
    fn a_lane_claims_again_when_half_of_the_horizon_is_free() {
        let again = Some(AT + HORIZON / 2);
        let near = Lookahead::default();
        assert_eq!(next_claim_at(&batch(0, 0), near, false), again);
        assert_eq!(next_claim_at(&batch(3, 3), near, false), again);
        let mut far = near;
        far.observe(HORIZON / 4);
        let earlier = Some(AT + HORIZON / 2 - far.0);
        assert_eq!(next_claim_at(&batch(3, 3), far, false), earlier);
    }

    #[test]
    fn a_lane_that_has_taken_all_due_messages_is_idle() {
        assert_eq!(
            next_claim_at(&batch(3, 2), Lookahead::default(), false),
            None
        );
    }

    #[test]
    fn a_lane_that_avoids_destinations_claims_again_soon() {
        let next = next_claim_at(&batch(3, 2), Lookahead::default(), true);
        assert_eq!(next, Some(AT + CROWDED_PAUSE));
    }

    #[test]
    fn a_held_lane_is_idle_even_if_its_probe_used_all_slots() {
        let probe = Batch {
            hold: Some(Hold {
                kind: HoldKind::Unauthorized,
                until: AT + HORIZON,
            }),
            ..batch(1, 1)
        };
        assert_eq!(next_claim_at(&probe, Lookahead::default(), false), None);
    }
}
