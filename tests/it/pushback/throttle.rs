//! 429 responses with and without `Retry-After`.

use std::time::{Duration, SystemTime};

use serde_json::json;
use time::OffsetDateTime;

use super::logged;
use testkit::{World, fleet, peer, slow_api};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_429s_cuts_the_rate_once_costs_no_attempt_and_is_temporary() {
    // All calls of a burst start before the first response, so they share one cut.
    let world = World::with(slow_api(150)).await;
    let debug = || {
        world
            .worker()
            .env("WORKER_LOG", "info,signaling_worker=debug")
    };
    let fleet = fleet(3, debug).await;
    // A new worker sends few messages at a time, and its 429s would come one by one.
    world.insert_many(300).await;
    world.until_all_final().await;
    let cuts = || logged(&fleet, "lane_rate_cut");

    for (burst, rate) in [(1, 0.8), (2, 0.8 * 0.8)] {
        world.set_faults(&["429:count=20"]);
        world
            .execute(&format!(
                "insert into signaling.outbox (sender, destination, payload, max_attempts)
                 select 'alice', 'user-{burst}-' || n, 'burst {burst} ' || n, 1 from generate_series(1, 60) as n"
            ))
            .await;
        world.until_all_final().await;
        assert_eq!(cuts(), burst, "one cut for a burst");
        let share: f64 = world
            .lane("signaling.present_rate(rate_per_s, rate_at, limit_per_s, rate_at) / signaling.slot_rate(limit_per_s)")
            .await;
        assert!(
            (rate * 0.99..=1.0).contains(&share),
            "cut {burst} leaves {share} of the full rate"
        );
        let is_recent = "throttled_at > clock_timestamp() - interval '20 s'";
        assert!(world.lane::<bool>(is_recent).await);
    }

    world.assert_sent_once(420).await;
    let throttled = "select count(*) from signaling.attempt
                     where outcome = 'throttled' and http_status = 429 and attempt = 1";
    assert_eq!(world.ask::<i64>(throttled).await, 40);
    assert_eq!((world.seen().accepted, world.seen().duplicates), (420, 0));
    let is_back: bool = world.lane("signaling.present_rate(rate_per_s, rate_at, limit_per_s, throttled_at + interval '20 s')
         = signaling.slot_rate(limit_per_s)",
    )
    .await;
    assert!(is_back, "the lane is at its full rate again 20 s later");
}

#[tokio::test]
async fn a_retry_after_may_be_an_http_date() {
    let world = World::new().await;
    let worker = world.worker().start();
    world.assert_sends().await;
    let now: OffsetDateTime = world.ask("select clock_timestamp()").await;
    let asked = (now + Duration::from_secs(3))
        .replace_nanosecond(0)
        .expect("a time");
    let date = httpdate::fmt_http_date(SystemTime::from(asked));
    world.set_faults(&[&format!("429:count=1,retry_after={date}")]);
    world.insert_many(1).await;
    worker.until_logged("lane_throttled").await;
    world.insert_many(20).await;
    world.until_all_final().await;

    let first: OffsetDateTime = world
        .ask("select min(sent_at) from signaling.outbox where payload <> 'first'")
        .await;
    let late = first - asked;
    assert!(
        !late.is_negative() && late < Duration::from_secs(5),
        "sent {late} after the date"
    );
    world.assert_sent_once(22).await;
}

#[tokio::test]
async fn an_absurd_retry_after_is_bounded_by_an_hour() {
    for absurd in [
        "86400",
        "999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let world = World::new().await;
        world.set_faults(&[&format!("429:retry_after={absurd}")]);
        let id = world.insert(peer(json!({}))).await;
        let worker = world.worker().start();
        worker.until_logged("lane_throttled").await;
        world.until_count(1, "uncharged > 0").await;
        let seconds: f64 = world
            .lane("extract(epoch from retry_after_until - clock_timestamp())::float8")
            .await;
        assert!(
            (3_500.0..=3_600.0).contains(&seconds),
            "{absurd}: no call for {seconds} s"
        );
        let row = world.row(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("pending", 0));
        let is_soon = "due_at <= clock_timestamp() + interval '1 hour'";
        assert_eq!(world.count(is_soon).await, 1, "{absurd}");
    }
}
