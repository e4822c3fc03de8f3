//! Polls for all lanes of a process. Each poll is one statement, however many idle apps there are.
//!
//! - `next_due` finds messages of idle lanes that no notification announced, and for busy lanes the messages before the scan
//!   position (`lane/poll_plan.rs`), which also decides how often.
//! - `expire` ends messages whose time is over while no worker claims them.
//!
//! Without notifications (behind a pooler, without a connection of the listener, or where `can_notify` refuses) the poller
//! polls idle lanes at least every 200 ms.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Process;
use super::lane::Lane;
use super::panic_point::panic_point;
use crate::error_text::database_error_text;
use crate::outbox::{AdaptiveTimeout, NextDue, ScanPosition, is_timeout};

const EXPIRE_EVERY: Duration = Duration::from_secs(1);
const DATABASE_PAUSE: Duration = Duration::from_millis(200);
/// Lanes whose polls are due within this time share a statement, now and from then on.
const TOGETHER: Duration = Duration::from_millis(50);
/// Inserts notify for a minute after each renewal.
const RENEW_WAKEUP_EVERY: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

pub(super) async fn run(process: Arc<Process>) {
    let shutdown = &process.shared.shutdown;
    tokio::join!(
        shutdown.run_until_cancelled(poll_forever(&process)),
        shutdown.run_until_cancelled(expire_forever(&process)),
    );
}

async fn poll_forever(process: &Process) {
    let shared = &process.shared;
    let mut poll_at = shared.poll_at.subscribe();
    let mut next_renewal = Instant::now();
    loop {
        // Reset before the lanes are read, so that an earlier time that a lane sets meanwhile stays.
        shared.poll_at.send_replace(Instant::now() + LONGEST_PAUSE);
        panic_point("poller", 0);
        let now = Instant::now();
        let polls = due_polls(&process.lanes, now);
        if !polls.is_empty() {
            let renews_wakeup = shared.listening.load(Ordering::Relaxed) && now >= next_renewal;
            if !poll(process, &polls, renews_wakeup).await {
                tokio::time::sleep(DATABASE_PAUSE).await;
            } else if renews_wakeup {
                next_renewal = now + RENEW_WAKEUP_EVERY;
            }
        }
        for lane in &process.lanes {
            shared.poll_by(lane.polls.lock().next_poll());
        }
        loop {
            let at = *poll_at.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(at.into()) => break,
                _ = poll_at.changed() => {}
            }
        }
    }
}

fn due_polls(lanes: &[Arc<Lane>], now: Instant) -> Vec<Poll<'_>> {
    let next_poll = |lane: &Lane| lane.polls.lock().next_poll();
    if lanes.iter().all(|lane| next_poll(lane) > now) {
        return Vec::new();
    }
    let soon = now + TOGETHER;
    let lanes = lanes.iter().filter(|lane| next_poll(lane) <= soon);
    lanes.map(|lane| Poll::new(lane, soon)).collect()
}

/// Polls some lanes in one statement. False if the database failed.
async fn poll(process: &Process, polls: &[Poll<'_>], renews_wakeup: bool) -> bool {
    let shared = &process.shared;
    let began = Instant::now();
    let lanes = polls.iter().map(|poll| (&*poll.lane.app, poll.position));
    let lanes: Vec<(&str, ScanPosition)> = lanes.collect();
    let poll_interval = shared.timing.poll_interval * 2;
    let environment = shared.environment.as_deref();
    let next_due = shared
        .outbox
        .next_due(&lanes, poll_interval, renews_wakeup, environment)
        .await;
    let now = Instant::now();
    let next_due = next_due.inspect_err(|error| {
        tracing::debug!(
            event = "poll_failed",
            error = database_error_text(error),
            "the poll for due messages failed: trying again"
        );
    });
    for poll in polls {
        match next_due.as_ref().map(|found| found.get(&poll.lane.app)) {
            Ok(Some(next_due)) => poll.succeeded(began, now, next_due),
            // The database failed, or the lane's row was deleted.
            Ok(None) | Err(_) => poll.failed(now),
        }
    }
    next_due.is_ok()
}

async fn expire_forever(process: &Process) {
    let apps: Vec<&str> = process.lanes.iter().map(|lane| lane.app.as_str()).collect();
    let timeout = AdaptiveTimeout::default();
    let mut one_by_one = false;
    loop {
        let ended_before = process.lanes.iter().filter_map(|lane| lane.ended_before());
        let ended_before = ended_before.min();
        let outbox = &process.shared.outbox;
        let expired = outbox
            .expire(&apps, ended_before, &timeout, one_by_one)
            .await;
        // One message of one app may make the statement for all apps wait. The next statement finds it.
        one_by_one = !one_by_one && expired.as_ref().is_err_and(is_timeout);
        // The claim loop logs other errors of the database.
        for expired in expired.into_iter().flatten() {
            if let Some(lane) = process.lane(&expired.app) {
                lane.stats.ended_uncalled(lane.shared.now(), expired.ended);
                lane.log_refused(expired.refused);
            }
        }
        tokio::time::sleep(EXPIRE_EVERY).await;
    }
}

/// The poll of one lane.
struct Poll<'l> {
    lane: &'l Lane,
    position: ScanPosition,
    is_full_scan: bool,
}

impl<'l> Poll<'l> {
    fn new(lane: &'l Lane, soon: Instant) -> Self {
        let polls = lane.polls.lock();
        let is_full_scan = polls.next_full_scan() <= soon;
        let position = if is_full_scan {
            ScanPosition::BEGINNING
        } else {
            polls.position
        };
        Self {
            lane,
            position,
            is_full_scan,
        }
    }

    fn is_idle(&self) -> bool {
        self.lane.polls.lock().is_idle
    }

    fn succeeded(&self, began: Instant, now: Instant, next_due: &NextDue) {
        let next_poll = self.lane.plan_poll(now);
        if self.is_full_scan {
            self.lane.polls.lock().scanned(began, now, next_due);
        }
        // The loop of an idle lane does not beat by itself.
        if self.is_idle() {
            let wait = next_poll.saturating_duration_since(now);
            self.lane.heartbeat.beat(wait);
        }
        self.lane.polled(next_due);
    }

    /// Wakes an idle lane, whose loop then claims and handles the failure of the database.
    fn failed(&self, now: Instant) {
        self.lane.plan_poll(now);
        self.lane.polls.lock().poll_failed(now);
        self.lane.outage_grace.lock().failed();
        if self.is_idle() {
            self.lane.wake();
        }
    }
}
