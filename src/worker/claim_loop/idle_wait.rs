//! What a lane does between two claims: it waits for slots while there is a backlog, and sleeps while there is none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::outbox::{Batch, Hold};
use crate::pace::{DbTime, HORIZON, Lookahead};
use crate::worker::lane::Lane;

/// The longest poll interval of a lane that can't hear the bell.
const POLL_WITHOUT_LISTENER: Duration = Duration::from_millis(200);
/// The first poll interval after the bell was switched on, or without one.
const FIRST_POLL: Duration = Duration::from_millis(5);
/// After so long asleep a lane claims, so that the bell stays on: less than half of the minute that a claim asks for.
const WAKEUP_RENEWAL: Duration = Duration::from_secs(25);
/// How often rows are looked for whose time is over while nobody claims them.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(in crate::worker) struct IdleWait {
    lane: Arc<Lane>,
    /// How long to sleep when nothing wakes the lane. It grows from poll to poll, also over claims that took nothing.
    poll_interval: Duration,
    next_expiry: Instant,
}

/// What to do after a claim.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::worker) enum Next {
    /// There may be more: claim again when half of the horizon is free.
    ClaimAt(DbTime),
    /// Everything due is taken, or nothing may be: sleep until the bell, or something is due.
    Sleep {
        next_due_at: Option<DbTime>,
        hold: Option<Hold>,
    },
}

impl IdleWait {
    pub(in crate::worker) fn new(lane: Arc<Lane>) -> Self {
        Self {
            lane,
            poll_interval: FIRST_POLL,
            next_expiry: Instant::now(),
        }
    }

    /// Takes in a claim, and decides what to do after it.
    pub(in crate::worker) fn after(&mut self, batch: &Batch, lookahead: Lookahead) -> Next {
        if !batch.messages.is_empty() || batch.bell_switched_on {
            self.poll_interval = FIRST_POLL;
        }
        if self.has_listener() && !batch.bell_switched_on {
            self.poll_interval = self.max_poll_interval();
        }
        after(batch, lookahead)
    }

    pub(in crate::worker) async fn take(&mut self, next: Next) {
        self.expire().await;
        match next {
            Next::ClaimAt(at) => {
                let wait = at.since(self.lane.now());
                if wait > self.lane.shared.timing.poll_interval {
                    // The API has asked for a long pause: meanwhile rows expire, and a person may step in.
                    self.poll_interval = self.max_poll_interval();
                    Box::pin(self.sleep(None, None)).await;
                } else {
                    self.lane.heartbeat.beat(wait);
                    tokio::time::sleep(wait).await;
                }
            }
            Next::Sleep { next_due_at, hold } => Box::pin(self.sleep(next_due_at, hold)).await,
        }
    }

    /// Sleeps until the bell rings or something is due. Naps get longer: an insert whose transaction was open while
    /// the bell was switched on does not ring it, and is found about as long after its commit as it took.
    async fn sleep(&mut self, mut next_due_at: Option<DbTime>, mut hold: Option<Hold>) {
        let lane = Arc::clone(&self.lane);
        // A claim wants the bell for a minute and renews that in its second half: back to it in time.
        let wakeup_ends = Instant::now() + WAKEUP_RENEWAL;
        while Instant::now() < wakeup_ends {
            let now = lane.now();
            // What is due while the lane is held waits for the hold's end.
            let due_in = match hold {
                Some(hold) => Some(hold.until.since(now)),
                None => next_due_at.map(|due_at| due_at.since(now)),
            };
            let poll_interval = self
                .poll_interval
                .min(self.max_poll_interval())
                .min(wakeup_ends.saturating_duration_since(Instant::now()));
            // Here it comes after an answer of the database.
            lane.heartbeat.beat(poll_interval);
            tokio::select! {
                () = lane.wakeup.notified() => {
                    self.poll_interval = FIRST_POLL;
                    return;
                }
                () = lane.recheck.notified() => {}
                () = tokio::time::sleep(due_in.map_or(poll_interval, |due_in| due_in.min(poll_interval))) => {
                    self.poll_interval = (poll_interval * 2).max(FIRST_POLL);
                }
            }
            self.expire().await;
            // An error here shows again in the claim, which deals with it.
            let began = Instant::now();
            let start = lane.scan_state().next_due_position(began);
            let Ok(next_due) = lane.next_due(start, began).await else {
                return;
            };
            lane.observe_next_due(&next_due);
            next_due_at = next_due.next_due_at();
            // A hold whose time has come is not a reason to look at once, over and over.
            hold = next_due.hold.filter(|hold| hold.until > next_due.at);
            if hold.is_none() && next_due_at.is_some_and(|due_at| due_at <= next_due.at) {
                return;
            }
        }
    }

    /// Ends rows whose time is over while nobody claims them, every now and then.
    async fn expire(&mut self) {
        let now = Instant::now();
        if now >= self.next_expiry {
            self.next_expiry = now + EXPIRE_EVERY;
            // An error here shows again in the claim, which deals with it.
            let lost_before = self.lane.outage_grace().lost_before();
            let outbox = &self.lane.shared.outbox;
            if let Ok(ended) = outbox.expire(&self.lane.app, lost_before).await {
                self.lane.stats.ended_uncalled(self.lane.now(), ended);
            }
        }
    }

    fn has_listener(&self) -> bool {
        self.lane.shared.listening.load(Ordering::Relaxed)
    }

    fn max_poll_interval(&self) -> Duration {
        let poll = self.lane.shared.timing.poll_interval;
        if self.has_listener() {
            poll
        } else {
            poll.min(POLL_WITHOUT_LISTENER)
        }
    }
}

fn after(batch: &Batch, lookahead: Lookahead) -> Next {
    if batch.hold.is_none() && (batch.slots == 0 || batch.is_full()) {
        Next::ClaimAt(batch.next_slot_at - HORIZON / 2 - lookahead.get())
    } else {
        Next::Sleep {
            next_due_at: batch.next_due_at,
            hold: batch.hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Ended, HoldKind};

    const AT: DbTime = DbTime::from_micros(1_000_000_000);

    fn batch(slots: usize, expired: usize) -> Batch {
        Batch {
            messages: Vec::new(),
            slots,
            ended: Ended {
                expired,
                unknown: 0,
            },
            at: AT,
            next_slot_at: AT + HORIZON,
            next_due_at: None,
            hold: None,
            bell_switched_on: false,
            last_fresh: None,
            nothing_again: true,
            slowed_to_per_s: None,
        }
    }

    #[test]
    fn a_lane_claims_again_when_half_of_the_horizon_is_free() {
        let again = Next::ClaimAt(AT + HORIZON / 2);
        let near = Lookahead::default();
        assert_eq!(after(&batch(0, 0), near), again);
        assert_eq!(after(&batch(3, 3), near), again);
        let mut far = near;
        far.observe(HORIZON / 4);
        let earlier = Next::ClaimAt(AT + HORIZON / 2 - far.get());
        assert_eq!(after(&batch(3, 3), far), earlier);
    }

    #[test]
    fn a_lane_that_has_taken_everything_sleeps() {
        assert_eq!(
            after(&batch(3, 2), Lookahead::default()),
            Next::Sleep {
                next_due_at: None,
                hold: None
            }
        );
    }

    #[test]
    fn a_held_lane_sleeps_whatever_its_probe_took() {
        let hold = Some(Hold {
            kind: HoldKind::Unauthorized,
            until: AT + HORIZON,
        });
        let probe = Batch {
            hold,
            ..batch(1, 1)
        };
        assert_eq!(
            after(&probe, Lookahead::default()),
            Next::Sleep {
                next_due_at: None,
                hold
            }
        );
    }
}
