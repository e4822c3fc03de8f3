//! 429, with and without `Retry-After`.

use std::time::{Duration, SystemTime};

use serde_json::json;
use simulator::{Fault, FaultRule};
use time::OffsetDateTime;

use super::{lane, logged};
use testkit::{PATIENCE, World, peer, slow_api};
use testkit::{fleet, warm_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_429s_cuts_the_rate_once_costs_no_attempt_and_the_rate_comes_back() {
    // The answers are slow enough for all calls of the burst to have started before the first answer comes.
    let world = World::with(slow_api(150)).await;
    let debug = || {
        world
            .worker()
            .env("WORKER_LOG", "info,signaling_worker=debug")
    };
    let fleet = fleet(3, debug).await;
    // With few calls at a time, as at a worker's start, the 429s would not come together.
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
        let rate_after_cut: f64 = lane(
            &world,
            "signaling.present_rate(rate_per_s, rate_at, limit_per_s, rate_at) / signaling.slot_rate(limit_per_s)",
        )
        .await;
        let seconds_since: f64 = lane(
            &world,
            "extract(epoch from clock_timestamp() - throttled_at)::float8",
        )
        .await;
        assert!(seconds_since < 20.0, "it says when");
        assert!(
            rate_after_cut >= rate * 0.99 && rate_after_cut <= 1.0,
            "cut {burst} leaves {rate_after_cut} of the full rate"
        );
    }

    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        420
    );
    let throttled: i64 = world
        .ask("select count(*) from signaling.attempt where outcome = 'throttled' and http_status = 429 and attempt = 1")
        .await;
    assert_eq!(throttled, 40);
    assert_eq!((world.seen().accepted, world.seen().duplicates), (420, 0));
    let is_back: bool = lane(
        &world,
        "signaling.present_rate(rate_per_s, rate_at, limit_per_s, throttled_at + interval '20 s')
         = signaling.slot_rate(limit_per_s)",
    )
    .await;
    assert!(is_back, "the lane is at its full rate again 20 s later");
}

#[tokio::test]
async fn a_retry_after_may_be_an_http_date() {
    let world = World::new().await;
    let worker = world.worker().start();
    warm_up(&world).await;
    let now: OffsetDateTime = world.ask("select clock_timestamp()").await;
    let asked = (now + Duration::from_secs(3))
        .replace_nanosecond(0)
        .expect("a time");
    let rule = FaultRule {
        count: Some(1),
        ..FaultRule::from(Fault::Status {
            code: 429,
            retry_after: Some(httpdate::fmt_http_date(SystemTime::from(asked))),
            body: None,
        })
    };
    world.simulator.set_faults(vec![rule]).expect("a fault");
    world.insert_many(1).await;
    worker.until_logged("lane_throttled").await;
    world.insert_many(20).await;
    world.until_all_final().await;

    let first: OffsetDateTime = world
        .ask("select min(sent_at) from signaling.outbox where payload <> 'warm-up'")
        .await;
    assert!(
        first >= asked,
        "called at {first}, {} too early",
        asked - first
    );
    assert!(
        first - asked < Duration::from_secs(5),
        "called at {first}, {} late",
        first - asked
    );
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        22
    );
}

#[tokio::test]
async fn an_absurd_retry_after_is_bounded_by_an_hour() {
    for absurd in [
        "86400",
        "999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let world = World::new().await;
        let rule = FaultRule::from(Fault::Status {
            code: 429,
            retry_after: Some(absurd.to_owned()),
            body: None,
        });
        world.simulator.set_faults(vec![rule]).expect("a fault");
        let id = world.insert(peer(json!({}))).await;
        let worker = world.worker().start();
        worker.until_logged("lane_throttled").await;
        world
            .until("the refusal is recorded", PATIENCE, async || {
                !world.attempts(id).await.is_empty()
            })
            .await;
        let seconds: f64 = lane(
            &world,
            "extract(epoch from retry_after_until - clock_timestamp())::float8",
        )
        .await;
        assert!(
            seconds > 3_500.0 && seconds <= 3_600.0,
            "{absurd}: no call for {seconds} s"
        );
        let row = world.row(id).await;
        assert_eq!((row.status.as_str(), row.attempts), ("pending", 0));
        let again: f64 = world
            .ask("select extract(epoch from due_at - clock_timestamp())::float8 from signaling.outbox")
            .await;
        assert!(again <= 3_600.0, "{absurd}: called again in {again} s");
    }
}

#[tokio::test]
async fn a_retry_after_that_can_not_be_read_is_as_good_as_none() {
    let world = World::new().await;
    world.set_faults(&[
        "429:count=1,retry_after=soon",
        "429:count=1,retry_after=-5",
        "429:count=1,retry_after=0",
    ]);
    let id = world.insert(peer(json!({"max_attempts": 1}))).await;
    let _worker = world.worker().start();
    let row = world.until_final(id).await;
    assert_eq!((row.status.as_str(), row.attempts), ("message_sent", 1));
    assert_eq!(world.attempts(id).await.len(), 3);
}

#[tokio::test]
async fn the_rate_climbs_by_5_percent_a_second_and_never_above_the_limits_slots() {
    let world = World::new().await;
    let rate_after = async |rate: f64, seconds: f64, limit: f64| -> f64 {
        world
            .ask(&format!(
                "select signaling.present_rate({rate}::float8, '2030-01-01Z', {limit}::float8,
                                               timestamptz '2030-01-01Z' + {seconds} * interval '1 s')"
            ))
            .await
    };
    let full = 500.0 / 1.02;
    for (rate, seconds, expected) in [
        (100.0, 0.0, 100.0),
        (100.0, 1.0, 105.0),
        (100.0, 0.5, 100.0 * 1.05_f64.sqrt()),
        (100.0, 10.0, 100.0 * 1.05_f64.powi(10)),
        (100.0, 3_600.0, full),
        (0.5, 86_400.0 * 365.0 * 60.0, full),
        (full, 5.0, full),
        // A limit that was lowered holds at once, and a clock that went back changes nothing.
        (700.0, 0.0, full),
        (100.0, -60.0, 100.0),
    ] {
        let actual = rate_after(rate, seconds, 500.0).await;
        assert!(
            (actual - expected).abs() < 1e-6,
            "{rate} after {seconds} s is {actual}, not {expected}"
        );
    }
    let slots: f64 = world.ask("select signaling.slot_rate(500)").await;
    assert!((slots - full).abs() < 1e-9, "{slots}");
}

#[tokio::test]
async fn a_message_expires_also_while_its_app_waits_for_retry_after() {
    let world = World::new().await;
    world.set_faults(&["429:retry_after=600"]);
    world.insert(peer(json!({}))).await;
    let worker = world.worker().start();
    worker.until_logged("lane_throttled").await;
    let id = world
        .insert(peer(json!({"expires_at": world.time_in(300).await})))
        .await;
    let row = world.until_final(id).await;
    assert_eq!(row.status, "expired");
}
