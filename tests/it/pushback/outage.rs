//! An API that is away, or answers with nothing but errors.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use simulator::{Behaviour, Simulator, SimulatorConfig};
use tempfile::NamedTempFile;

use super::{lane, until_lane};
use testkit::{API_KEY, API_SECRET, PATIENCE, World, basic, peer};
use testkit::{fleet, warm_up};

const MESSAGES: u32 = 300;

/// Calls, also those that found nobody to connect to, by the workers' own account.
async fn failed_calls(world: &World) -> i64 {
    world.ask("select count(*) from signaling.attempt").await
}

async fn until_probed(world: &World, probes: i32) {
    until_lane(
        world,
        &format!("hold = 'unavailable' and hold_probes >= {probes}"),
    )
    .await;
}

/// Nobody has a message, and almost none has been called.
async fn until_given_back(world: &World) {
    world
        .until("messages are given back", PATIENCE, async || {
            world
                .count("status = 'pending' and claim_id is not null")
                .await
                <= 1
        })
        .await;
    let unharmed = world
        .count("status = 'pending' and attempts = 0 and error is null")
        .await;
    assert!(unharmed >= 240, "only {unharmed} are unharmed");
}

async fn assert_all_sent_for_little(world: &World) {
    world.until_all_final().await;
    let sent = world.count("status = 'message_sent'").await;
    assert_eq!(sent, i64::from(MESSAGES) + 1);
    let attempts: i64 = world
        .ask("select sum(attempts) from signaling.outbox")
        .await;
    assert!(
        attempts * 10 <= i64::from(MESSAGES) * 12,
        "{attempts} attempts for {MESSAGES} messages"
    );
    until_lane(
        world,
        "hold is null and hold_until is null and hold_since is null and hold_reason is null and hold_probes = 0",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_can_not_be_reached_burns_no_messages() {
    let mut world = World::new().await;
    let fleet = fleet(3, || world.worker()).await;
    warm_up(&world).await;
    world.simulator.stop().await;
    world.insert_many(300).await;
    until_probed(&world, 2).await;

    let calls = failed_calls(&world).await;
    assert!(calls < 60, "{calls} calls while it was away");
    until_given_back(&world).await;
    let status = world.command(&["status"]).finish().await.stdout;
    assert!(status.contains("unavailable since"), "{status}");

    world.simulator = Simulator::start(SimulatorConfig {
        bind: world.simulator.address(),
        ledger: Some(world.simulator.ledger().clone()),
        behaviour: world.simulator.config(),
        ..SimulatorConfig::default()
    })
    .await
    .expect("a simulator again");
    assert_all_sent_for_little(&world).await;
    let seen = world.seen();
    assert_eq!((seen.accepted, seen.duplicates), (301, 0));
    drop(fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_answers_500_fails_no_message_and_is_probed_every_four_seconds() {
    let world = World::new().await;
    let _fleet = fleet(3, || world.worker()).await;
    warm_up(&world).await;
    world.set_faults(&["500"]);
    world.insert_many(300).await;
    until_probed(&world, 2).await;
    let reason: String = lane(&world, "hold_reason").await;
    assert!(reason.contains("500"), "{reason}");
    until_given_back(&world).await;

    // As after an outage of hours.
    world
        .execute("update signaling.lane set hold_probes = 1000, hold_until = clock_timestamp()")
        .await;
    until_probed(&world, 1001).await;
    let pause: f64 = lane(
        &world,
        "extract(epoch from hold_until - clock_timestamp())::float8",
    )
    .await;
    assert!(pause > 2.0 && pause <= 4.0, "the next call is in {pause} s");
    let calls = world.seen().calls;
    assert!(calls < 60, "{calls} calls while it was out of order");

    world.set_faults(&[]);
    world
        .execute("update signaling.lane set hold_until = clock_timestamp()")
        .await;
    assert_all_sent_for_little(&world).await;
    assert_eq!(world.seen().duplicates, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_fleet_makes_one_probe_at_a_time() {
    let world = World::new().await;
    let _fleet = fleet(3, || world.worker()).await;
    warm_up(&world).await;
    world.set_faults(&["503"]);
    world.insert_many(300).await;
    until_probed(&world, 1).await;
    until_given_back(&world).await;
    let (before, probes): (u64, i32) = (world.seen().calls, lane(&world, "hold_probes").await);
    until_probed(&world, probes + 2).await;
    // One more where a probe was under way when the counting began.
    let calls = world.seen().calls - before;
    assert!((2..=3).contains(&calls), "{calls} calls for two probes");
}

#[tokio::test]
async fn an_app_whose_api_is_away_does_not_delay_another() {
    let world = World::new().await;
    let away = Simulator::start(SimulatorConfig {
        behaviour: Behaviour {
            credentials: basic(API_KEY, API_SECRET),
            ..Behaviour::default()
        },
        ..SimulatorConfig::default()
    })
    .await
    .expect("another simulator");
    away.stop().await;
    let mut config = NamedTempFile::new().expect("a file");
    for (alias, base_url) in [
        ("away", away.base_url()),
        ("fine", world.simulator.base_url()),
    ] {
        writeln!(
            config,
            "[apps.{alias}]\napp_id = \"{alias}-id\"\napi_key = \"{API_KEY}\"\napi_secret = \"{API_SECRET}\"\nbase_url = \"{base_url}\""
        )
        .expect("written");
    }
    for _ in 0..100 {
        world.insert(peer(json!({"app": "away"}))).await;
    }
    let path = config.path().to_str().expect("a path");
    let worker = world.worker_without_app().arg("--config").arg(path).start();
    worker.until_logged("lane_held").await;
    for number in 0..50 {
        world
            .insert(peer(
                json!({"app": "fine", "payload": format!("fine {number}")}),
            ))
            .await;
    }
    world
        .until("the other app's are sent", PATIENCE, async || {
            world
                .count("app = 'fine' and status = 'message_sent'")
                .await
                == 50
        })
        .await;
    let latest: f64 = world
        .ask("select max(extract(epoch from sent_at - due_at))::float8 from signaling.outbox where app = 'fine'")
        .await;
    assert!(
        latest < Duration::from_secs(2).as_secs_f64(),
        "late by {latest} s"
    );
    assert_eq!(
        world.count("app = 'away' and status = 'pending'").await,
        100
    );
    let holds: Vec<(String, Option<String>)> =
        sqlx::query_as("select app, hold from signaling.lane order by app")
            .fetch_all(&world.pool)
            .await
            .expect("the lanes");
    assert_eq!(
        holds,
        [
            ("away".to_owned(), Some("unavailable".to_owned())),
            ("fine".to_owned(), None)
        ]
    );
}
