//! Looks for all lanes of a process at once: when messages are due that no notification has told of, and which messages'
//! time is over while no worker claims them. Each is one statement, however many idle apps there are.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{AdaptiveTimeout, Look, NextDue, Outbox, ScanPosition, is_timeout};
use crate::pace::DbTime;

/// How often messages are ended whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// The pause after the database has failed.
const DATABASE_PAUSE: Duration = Duration::from_millis(200);
/// Lanes whose turns come within this time take them together, so that they share a statement, also from then on.
const TOGETHER: Duration = Duration::from_millis(50);
/// How often a look has inserts go on to notify: far less than the minute for which they do.
const RENEW_WAKEUP_EVERY: Duration = Duration::from_secs(15);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// When the poller looks next. A lane that becomes idle sets it earlier.
#[derive(Debug)]
pub(super) struct PollAlarm {
    at: Mutex<Instant>,
    changed: Notify,
}

impl Default for PollAlarm {
    fn default() -> Self {
        Self {
            at: Mutex::new(Instant::now()),
            changed: Notify::new(),
        }
    }
}

impl PollAlarm {
    /// Has the poller look at this time, or earlier.
    pub(super) fn set(&self, at: Instant) {
        let mut next = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if at < *next {
            *next = at;
            self.changed.notify_one();
        }
    }

    fn clear(&self) {
        let mut next = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *next = Instant::now() + LONGEST_PAUSE;
    }

    async fn wait(&self) {
        loop {
            let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => return,
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Polls for the lanes of one process.
pub(super) struct Poller {
    outbox: Arc<Outbox>,
    lanes: Vec<Arc<Lane>>,
    poll_interval: Duration,
    environment: Option<String>,
}

impl Poller {
    pub(super) fn new(outbox: &Arc<Outbox>, lanes: &[Arc<Lane>], poll_interval: Duration) -> Self {
        let environment = lanes
            .first()
            .and_then(|lane| lane.shared.environment.clone());
        Self {
            environment,
            outbox: Arc::clone(outbox),
            lanes: lanes.to_vec(),
            poll_interval,
        }
    }

    pub(super) async fn run(self, shutdown: CancellationToken) {
        tokio::join!(
            shutdown.run_until_cancelled(self.poll()),
            shutdown.run_until_cancelled(self.expire()),
        );
    }

    async fn poll(&self) {
        let Some(shared) = self.lanes.first().map(|lane| Arc::clone(&lane.shared)) else {
            return;
        };
        let mut next_renewal = Instant::now();
        loop {
            // Cleared before the lanes are asked: what a lane sets meanwhile stays.
            shared.poll_alarm.clear();
            panic_point("poller", 0);
            let now = Instant::now();
            let turns = self.turns(now);
            if !turns.is_empty() {
                let renews_wakeup = shared.listening.load(Ordering::Relaxed) && now >= next_renewal;
                if !self.look(&turns, renews_wakeup).await {
                    tokio::time::sleep(DATABASE_PAUSE).await;
                } else if renews_wakeup {
                    next_renewal = now + RENEW_WAKEUP_EVERY;
                }
            }
            for lane in &self.lanes {
                shared.poll_alarm.set(next_turn(lane));
            }
            shared.poll_alarm.wait().await;
        }
    }

    /// The lanes to look at now: those whose time has come, and with them those whose time is near.
    fn turns(&self, now: Instant) -> Vec<Turn<'_>> {
        if self.lanes.iter().all(|lane| next_turn(lane) > now) {
            return Vec::new();
        }
        let near = now + TOGETHER;
        let lanes = self.lanes.iter().filter(|lane| next_turn(lane) <= near);
        lanes.map(|lane| Turn::new(lane, near)).collect()
    }

    /// Looks at some lanes. False if the database has failed.
    async fn look(&self, turns: &[Turn<'_>], renews_wakeup: bool) -> bool {
        let began = Instant::now();
        let looks: Vec<Look<'_>> = turns
            .iter()
            .map(|turn| Look {
                app: &turn.lane.app,
                position: turn.position,
            })
            .collect();
        let found = self
            .outbox
            .next_due(
                &looks,
                self.poll_interval * 2,
                renews_wakeup,
                self.environment.as_deref(),
            )
            .await;
        let now = Instant::now();
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(
                    event = "look_failed",
                    error = database_error_text(&error),
                    "the lanes can't be looked at: trying again"
                );
                for turn in turns {
                    turn.failed(now);
                }
                return false;
            }
        };
        for turn in turns {
            match found.get(&turn.lane.app) {
                Some(next_due) => turn.found(began, now, next_due),
                // The lane's row is gone.
                None => turn.failed(now),
            }
        }
        true
    }

    /// Ends messages whose time is over while no worker claims them.
    async fn expire(&self) {
        let apps: Vec<&str> = self.lanes.iter().map(|lane| lane.app.as_str()).collect();
        let timeout = AdaptiveTimeout::default();
        let mut isolates = false;
        loop {
            let ended = self
                .outbox
                .expire(&apps, self.over_before(), &timeout, isolates)
                .await;
            // One message of one app may keep all others waiting.
            isolates = !isolates && ended.as_ref().is_err_and(is_timeout);
            // Any other error shows again in the claim.
            for expired in ended.into_iter().flatten() {
                for lane in self.lanes.iter().filter(|lane| lane.app == expired.app) {
                    lane.stats.ended_uncalled(lane.now(), expired.ended);
                    lane.log_refused(expired.refused);
                }
            }
            tokio::time::sleep(EXPIRE_EVERY).await;
        }
    }

    /// Leases and expiries up to this time are over: the earliest such time of all lanes.
    fn over_before(&self) -> Option<DbTime> {
        let lanes = self.lanes.iter();
        lanes.filter_map(|lane| lane.over_before()).min()
    }
}

/// A lane that is looked at.
struct Turn<'l> {
    lane: &'l Lane,
    position: ScanPosition,
    is_full: bool,
}

impl<'l> Turn<'l> {
    fn new(lane: &'l Lane, near: Instant) -> Self {
        let scan = lane.scan_state();
        let is_full = scan.next_full_look() <= near;
        let position = if is_full {
            ScanPosition::BEGINNING
        } else {
            scan.position()
        };
        Self {
            lane,
            position,
            is_full,
        }
    }

    fn found(&self, began: Instant, now: Instant, next_due: &NextDue) {
        let lane = self.lane;
        let next_poll = lane.plan_poll(now);
        if self.is_full {
            lane.scan_state().looked(began, now, next_due);
        }
        if lane.schedule().next_poll().is_some() {
            lane.heartbeat
                .beat(next_poll.saturating_duration_since(now));
        }
        lane.observe_next_due(next_due);
    }

    /// An idle lane claims, and its loop deals with the database.
    fn failed(&self, now: Instant) {
        let lane = self.lane;
        lane.plan_poll(now);
        lane.scan_state().look_failed(now);
        lane.outage_grace().failed();
        if lane.schedule().next_poll().is_some() {
            lane.wake();
        }
    }
}

/// When a lane is to be looked at: when it needs a full look, or if it is idle by its schedule.
fn next_turn(lane: &Lane) -> Instant {
    let next_poll = lane.schedule().next_poll();
    let next_full_look = lane.scan_state().next_full_look();
    next_poll.map_or(next_full_look, |next_poll| next_poll.min(next_full_look))
}
