//! Polls for all lanes of a process. Each poll is one statement, however many idle apps there are.
//!
//! - `next_due` finds messages of idle lanes that no notification announced, and messages of busy lanes before the scan
//!   position. `lane/poll_plan.rs` decides how often.
//! - `expire` ends messages that expire while no worker claims them.
//!
//! Without notifications (behind a pooler, without a connection of the listener, or where `can_notify` refuses) the poller
//! polls idle lanes at least every 200 ms.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Process;
use super::lane::Lane;
use super::panic_point::panic_point;
use crate::outbox::{AdaptiveTimeout, BEGINNING, ScanPosition, is_timeout};

const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// Lanes whose polls are due within this time share a statement.
const TICK: Duration = Duration::from_millis(20);
/// Inserts notify for a minute after each renewal.
const RENEW_WAKEUP_EVERY: Duration = Duration::from_secs(15);

pub(super) async fn run(process: Arc<Process>) {
    tokio::join!(poll_forever(&process), expire_forever(&process));
}

async fn poll_forever(process: &Process) {
    let mut next_renewal = Instant::now();
    loop {
        panic_point("poller", 0);
        let now = Instant::now();
        let is_due = |lane: &&Arc<Lane>| lane.polls.lock().next_poll() <= now + TICK;
        let lanes: Vec<_> = process.lanes.values().filter(is_due).collect();
        if !lanes.is_empty() {
            let is_listening = process.shared.listening.load(Ordering::Relaxed);
            let renews_wakeup = is_listening && now >= next_renewal;
            if renews_wakeup {
                next_renewal = now + RENEW_WAKEUP_EVERY;
            }
            poll(process, &lanes, renews_wakeup).await;
        }
        let next_polls = process
            .lanes
            .values()
            .map(|lane| lane.polls.lock().next_poll());
        let soonest = Instant::now() + TICK;
        let next_poll = next_polls.min().unwrap_or(soonest).max(soonest);
        tokio::select! {
            () = tokio::time::sleep_until(next_poll.into()) => {}
            () = process.shared.poll_planned.notified() => tokio::time::sleep(TICK).await,
        }
    }
}

async fn poll(process: &Process, lanes: &[&Arc<Lane>], renews_wakeup: bool) {
    let shared = &process.shared;
    let began = Instant::now();
    let position = |lane: &Lane| {
        let polls = lane.polls.lock();
        if polls.next_full_scan() <= began + TICK {
            BEGINNING
        } else {
            polls.position
        }
    };
    let positions = lanes.iter().map(|lane| (&*lane.app, position(lane)));
    let positions: Vec<(&str, ScanPosition)> = positions.collect();
    let poll_interval = shared.config.timing.poll_interval * 2;
    let environment = shared.config.environment.as_deref();
    let polling = shared
        .outbox
        .next_due(&positions, poll_interval, renews_wakeup, environment);
    // The claim loops log errors of the database.
    let found = polling.await.unwrap_or_default();
    let now = Instant::now();
    for (lane, (app, position)) in lanes.iter().zip(&positions) {
        let next_poll = lane.plan_poll(now);
        let is_idle = lane.polls.lock().is_idle;
        if let Some(next_due) = found.get(*app) {
            if *position == BEGINNING {
                lane.polls.lock().scanned(began, now, next_due);
            }
            // The loop of an idle lane does not beat by itself.
            if is_idle {
                lane.heartbeat
                    .beat(next_poll.saturating_duration_since(now));
            }
            lane.polled(next_due);
        } else {
            // The database failed, or the lane's row was deleted. The loop of an idle lane then claims and handles it.
            lane.polls.lock().poll_failed(now);
            lane.outage_grace.lock().failed();
            if is_idle {
                lane.wakeup.notify_one();
            }
        }
    }
}

async fn expire_forever(process: &Process) {
    let apps: Vec<&str> = process.lanes.keys().map(String::as_str).collect();
    let timeout = AdaptiveTimeout::default();
    let mut one_by_one = false;
    loop {
        let ended_before = process
            .lanes
            .values()
            .filter_map(|lane| lane.ended_before());
        let outbox = &process.shared.outbox;
        let expired = outbox
            .expire(&apps, ended_before.min(), &timeout, one_by_one)
            .await;
        // One message of one app may make the statement for all apps wait. The next statement finds it.
        one_by_one = !one_by_one && expired.as_ref().is_err_and(is_timeout);
        // The claim loop logs other errors of the database.
        for expired in expired.into_iter().flatten() {
            if let Some(lane) = process.lanes.get(&expired.app) {
                lane.stats.ended_uncalled(lane.shared.now(), expired.ended);
                lane.log_refused(expired.refused);
            }
        }
        tokio::time::sleep(EXPIRE_EVERY).await;
    }
}
