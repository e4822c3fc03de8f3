//! The lane of one app: its loop, and what its deliveries share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery;
use super::health::{Health, Verdict};
use super::recorder::Delivered;
use crate::config::Timing;
use crate::outbox::{Batch, ClaimRequest, Hold, HoldKind, Outbox, explain};
use crate::outcome::{MAX_RETRY_AFTER, Outcome};
use crate::pace::{DbTime, HORIZON};
use crate::retry::RetryPolicy;
use crate::signaling::{Client, RetryAfter};

/// What all lanes of a process share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Arc<Outbox>,
    /// Who claims, for people.
    pub(super) name: String,
    pub(super) timing: Timing,
    pub(super) retry: RetryPolicy,
    /// Whether this process hears the bell at present.
    pub(super) listening: Arc<AtomicBool>,
}

/// One app, as its loop and its deliveries see it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) app: String,
    pub(super) client: Arc<Client>,
    pub(super) shared: Arc<Shared>,
    /// A permit for each message from its claim until it is recorded: what bounds memory and connections.
    room: Arc<Semaphore>,
    max_in_flight: usize,
    /// Something is due: claim.
    bell: Notify,
    /// Something will be due: look when.
    look: Notify,
    /// Cancelled to give back all messages that wait for their slots. A new one takes its place.
    wave: Mutex<CancellationToken>,
    health: Health,
    shutdown: CancellationToken,
}

/// How long a process that begins waits for the answer to its first call.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// The longest nap of a lane that can't hear the bell.
const DEAF_POLL: Duration = Duration::from_millis(200);
/// The first nap after the bell was switched on, or without one.
const FIRST_NAP: Duration = Duration::from_millis(5);
/// After so long asleep a lane claims, so that the bell stays on: less than half of the minute that a claim asks for.
const BELL_RENEWAL: Duration = Duration::from_secs(25);
/// The pause after the database has failed, at first and at most.
const DATABASE_PAUSE: Duration = Duration::from_millis(100);
const DATABASE_PAUSE_CAP: Duration = Duration::from_secs(2);

impl Lane {
    pub(super) fn new(
        app: String,
        client: Arc<Client>,
        max_in_flight: usize,
        shared: Arc<Shared>,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            app,
            client,
            shared,
            room: Arc::new(Semaphore::new(max_in_flight)),
            max_in_flight,
            bell: Notify::new(),
            look: Notify::new(),
            wave: Mutex::new(shutdown.child_token()),
            health: Health::default(),
            shutdown: shutdown.clone(),
        }
    }

    /// Messages between their claim and their record.
    pub(super) fn in_flight(&self) -> usize {
        self.max_in_flight - self.room.available_permits()
    }

    /// Wakes the loop: something is due.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Makes a sleeping loop look when something is due.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// The present estimate of the database's time.
    pub(super) fn now(&self) -> DbTime {
        // A lane has claimed, and so read the clock, before anybody asks.
        self.shared
            .outbox
            .clock()
            .get()
            .map_or(DbTime::from_micros(0), |clock| clock.at(Instant::now()))
    }

    fn wave(&self) -> CancellationToken {
        self.wave
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Gives back every message that waits for its slot, unharmed.
    fn give_back(&self) {
        let mut wave = self.wave.lock().unwrap_or_else(PoisonError::into_inner);
        wave.cancel();
        *wave = self.shutdown.child_token();
    }

    /// Holds the app for the whole fleet: its messages are not at fault.
    pub(super) async fn hold(&self, kind: HoldKind, reason: &str, probe: bool) {
        self.give_back();
        match self
            .shared
            .outbox
            .hold(&self.app, kind, reason, probe)
            .await
        {
            Ok(true) => tracing::warn!(
                app = self.app,
                hold = kind.as_str(),
                reason,
                "lane held: its messages wait, one call at a time is tried"
            ),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                app = self.app,
                error = explain(&error),
                "the lane could not be held"
            ),
        }
    }

    /// Takes in what a call said of the API's state, and does for the whole fleet what follows from it.
    pub(super) async fn heed(&self, outcome: &Outcome, sent_at: DbTime, error: &str, probe: bool) {
        match self.health.judge(outcome, probe) {
            Verdict::Well => {}
            Verdict::Recovered => self.release().await,
            Verdict::Hold(kind) => self.hold(kind, error, probe).await,
        }
        if let Outcome::Throttled(retry_after) = outcome {
            let asked = retry_after.map_or(Duration::ZERO, |RetryAfter(asked)| {
                asked.min(MAX_RETRY_AFTER)
            });
            self.throttle(sent_at, asked).await;
        }
    }

    /// Slows the app for the whole fleet.
    async fn throttle(&self, sent_at: DbTime, retry_after: Duration) {
        if retry_after > Duration::ZERO {
            self.give_back();
        }
        match self
            .shared
            .outbox
            .throttle(&self.app, sent_at, retry_after)
            .await
        {
            Ok(Some(rate_per_s)) => {
                self.give_back();
                tracing::warn!(
                    app = self.app,
                    rate_per_s = format!("{rate_per_s:.1}"),
                    retry_after = %humantime::format_duration(retry_after),
                    "lane slowed: the API answered 429"
                );
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                app = self.app,
                error = explain(&error),
                "the lane could not be slowed"
            ),
        }
    }

    /// Lets another message probe, where the one that was to did not make a call.
    pub(super) async fn give_back_probe(&self) {
        if let Err(error) = self.shared.outbox.give_back_probe(&self.app).await {
            tracing::debug!(
                app = self.app,
                error = explain(&error),
                "a probe could not be given back: the next one is later"
            );
        }
        self.look();
    }

    /// Lets the app go on for the whole fleet.
    async fn release(&self) {
        match self.shared.outbox.release(&self.app).await {
            Ok(true) => tracing::info!(app = self.app, "lane released: sending again"),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                app = self.app,
                error = explain(&error),
                "the lane could not be released"
            ),
        }
    }
}

/// The loop of a lane, with what only it uses.
pub(super) struct LaneLoop {
    lane: Arc<Lane>,
    records: mpsc::Sender<Delivered>,
    deliveries: TaskTracker,
    database_pause: Duration,
}

/// What a lane does after a claim.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    /// There may be more: claim again when half of the horizon is free.
    Until(DbTime),
    /// The database has failed: try again after a while.
    For(Duration),
    /// Everything due is taken, or nothing may be: sleep until the bell, or something is due.
    Sleep {
        next_due_at: Option<DbTime>,
        hold: Option<Hold>,
        nap: Duration,
    },
}

impl LaneLoop {
    pub(super) fn new(
        lane: Arc<Lane>,
        records: mpsc::Sender<Delivered>,
        deliveries: TaskTracker,
    ) -> Self {
        Self {
            lane,
            records,
            deliveries,
            database_pause: DATABASE_PAUSE,
        }
    }

    /// Wait for room, claim, hand out, rest: until the shutdown. A claim is not interrupted: its rows are handed out,
    /// and given back by their deliveries.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let Some(room) = shutdown.run_until_cancelled(self.wait_for_room()).await else {
                return;
            };
            let rest = match self.claim(room).await {
                Ok(batch) => {
                    let rest = self.rest_after(&batch);
                    self.hand_out(batch);
                    rest
                }
                Err(error) => self.pause_for_database(&error),
            };
            if shutdown
                .run_until_cancelled(self.rest(rest))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Waits until there is room for a message; for how many there is. A process begins with one call at a time, so
    /// that a fleet with wrong credentials makes a handful of calls. It does not wait for long: the first call may
    /// be one that waits for its receiver.
    async fn wait_for_room(&self) -> usize {
        let lane = &self.lane;
        if !lane.health.is_proven() {
            let all = u32::try_from(lane.max_in_flight).unwrap_or(u32::MAX);
            match tokio::time::timeout(FIRST_ANSWER, lane.room.acquire_many(all)).await {
                Ok(_) if !lane.health.is_proven() => return 1,
                Ok(_) => {}
                Err(_) => lane.health.assume_well(),
            }
        }
        // Only this loop takes permits, so what is available stays so.
        if let Ok(permit) = lane.room.acquire().await {
            drop(permit);
        }
        lane.room.available_permits()
    }

    async fn claim(&mut self, rows: usize) -> Result<Batch, sqlx::Error> {
        let shared = &self.lane.shared;
        let request = ClaimRequest {
            app: &self.lane.app,
            rows,
            lease: shared.timing.lease,
            claimed_by: &shared.name,
            bell: shared.listening.load(Ordering::Relaxed),
        };
        let batch = shared.outbox.claim(&request).await?;
        if self.database_pause != DATABASE_PAUSE {
            tracing::info!(app = self.lane.app, "the database answers again");
            self.database_pause = DATABASE_PAUSE;
        }
        Ok(batch)
    }

    fn pause_for_database(&mut self, error: &sqlx::Error) -> Rest {
        if self.database_pause == DATABASE_PAUSE {
            tracing::warn!(
                app = self.lane.app,
                error = explain(error),
                "the database fails: trying again until it answers"
            );
        }
        // Spread, so that a fleet does not come back all at once.
        let pause = self.database_pause.mul_f64(rand::random_range(0.5..1.0));
        self.database_pause = (self.database_pause * 2).min(DATABASE_PAUSE_CAP);
        Rest::For(pause)
    }

    fn hand_out(&self, batch: Batch) {
        if batch.hold.is_some() {
            self.lane.give_back();
        }
        for claimed in batch.messages {
            // There is room: the claim was for no more rows than that.
            let Ok(room) = Arc::clone(&self.lane.room).try_acquire_owned() else {
                break;
            };
            let delivery = delivery::deliver(
                Arc::clone(&self.lane),
                claimed,
                self.lane.wave(),
                room,
                self.records.clone(),
            );
            self.deliveries.spawn(delivery);
        }
    }

    fn rest_after(&self, batch: &Batch) -> Rest {
        let poll = self.lane.shared.timing.poll;
        if self.lane.shared.listening.load(Ordering::Relaxed) {
            rest_after(
                batch,
                if batch.bell_switched_on {
                    FIRST_NAP
                } else {
                    poll
                },
            )
        } else {
            rest_after(batch, FIRST_NAP)
        }
    }

    async fn rest(&self, rest: Rest) {
        match rest {
            Rest::Until(at) => {
                let wait = at.since(self.lane.now());
                let poll = self.lane.shared.timing.poll;
                if wait > poll {
                    // The API asked for a long pause: meanwhile rows expire, and a person may step in.
                    Box::pin(self.sleep(None, None, poll)).await;
                } else {
                    tokio::time::sleep(wait).await;
                }
            }
            Rest::For(pause) => tokio::time::sleep(pause).await,
            Rest::Sleep {
                next_due_at,
                hold,
                nap,
            } => Box::pin(self.sleep(next_due_at, hold, nap)).await,
        }
    }

    /// Sleeps until the bell rings or something is due. Naps get longer: an insert whose transaction was open while
    /// the bell was switched on does not ring it, and is found about as long after its commit as it took.
    async fn sleep(
        &self,
        mut next_due_at: Option<DbTime>,
        mut hold: Option<Hold>,
        mut nap: Duration,
    ) {
        let lane = &self.lane;
        // A claim wants the bell for a minute and renews that in its second half: back to it in time.
        let bell_fades = Instant::now() + BELL_RENEWAL;
        while Instant::now() < bell_fades {
            let now = lane.now();
            let held_for = hold.map(|hold| hold.until.since(now));
            // What is due while the lane is held waits for the hold's end.
            let due_in = match held_for {
                Some(held_for) => Some(held_for),
                None => next_due_at.map(|due_at| due_at.since(now)),
            };
            let longest = nap.min(self.longest_nap());
            tokio::select! {
                () = lane.bell.notified() => return,
                () = lane.look.notified() => {}
                () = tokio::time::sleep(due_in.map_or(longest, |due_in| due_in.min(longest))) => {
                    nap = longest * 2;
                    if nap >= lane.shared.timing.poll && lane.shared.outbox.expire(&lane.app).await.is_err() {
                        return;
                    }
                }
            }
            // An error here shows again in the claim, which deals with it.
            let Ok(peek) = lane.shared.outbox.peek(&lane.app).await else {
                return;
            };
            let is_due = peek.next_due_at.is_some_and(|due_at| due_at <= peek.at);
            let is_held = peek.hold.is_some_and(|hold| hold.until > peek.at);
            if is_due && !is_held {
                return;
            }
            // Time that has passed in a hold is not a reason to look at once, over and over.
            next_due_at = peek.next_due_at;
            hold = peek.hold.filter(|hold| hold.until > peek.at);
        }
    }

    fn longest_nap(&self) -> Duration {
        let poll = self.lane.shared.timing.poll;
        if self.lane.shared.listening.load(Ordering::Relaxed) {
            poll
        } else {
            poll.min(DEAF_POLL)
        }
    }
}

/// Decides what to do after a claim.
fn rest_after(batch: &Batch, nap: Duration) -> Rest {
    if batch.hold.is_none() && (batch.slots == 0 || batch.is_full()) {
        return Rest::Until(batch.next_slot_at - HORIZON / 2);
    }
    Rest::Sleep {
        next_due_at: batch.next_due_at,
        hold: batch.hold,
        nap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: DbTime = DbTime::from_micros(1_000_000_000);
    const NAP: Duration = Duration::from_millis(7);

    fn batch(slots: usize, ended: usize) -> Batch {
        Batch {
            messages: Vec::new(),
            slots,
            ended,
            at: AT,
            next_slot_at: AT + HORIZON,
            next_due_at: None,
            hold: None,
            bell_switched_on: false,
        }
    }

    #[test]
    fn a_lane_claims_again_when_half_of_the_horizon_is_free() {
        let again = Rest::Until(AT + HORIZON / 2);
        assert_eq!(rest_after(&batch(0, 0), NAP), again);
        assert_eq!(rest_after(&batch(3, 3), NAP), again);
    }

    #[test]
    fn a_lane_that_has_taken_everything_sleeps() {
        assert_eq!(
            rest_after(&batch(3, 2), NAP),
            Rest::Sleep {
                next_due_at: None,
                hold: None,
                nap: NAP
            }
        );
    }

    #[test]
    fn a_held_lane_sleeps_whatever_its_probe_took() {
        let hold = Some(Hold {
            kind: HoldKind::Parked,
            until: AT + NAP,
        });
        let probe = Batch {
            hold,
            ..batch(1, 1)
        };
        assert_eq!(
            rest_after(&probe, NAP),
            Rest::Sleep {
                next_due_at: None,
                hold,
                nap: NAP
            }
        );
    }
}
