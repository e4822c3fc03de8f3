//! `worker workers`

use serde_json::{Value, json};

use harness::{PATIENCE, World, assert_contains};

async fn workers_json(world: &World) -> Value {
    let printed = world.run(&["workers", "--json"]).await;
    serde_json::from_str(&printed).expect("JSON")
}

#[tokio::test]
async fn workers_advises_to_start_a_worker_if_none_is_alive() {
    let world = World::new().await;
    let text = world.run(&["workers"]).await;
    let advice = "workers alive: 0\n  -> start a worker";
    assert!(text.starts_with(advice), "{text}");
    assert_eq!(workers_json(&world).await, json!([]));
}

#[tokio::test]
async fn a_worker_is_listed_with_its_counters_until_it_stops() {
    let world = World::new().await;
    world.set_faults(&["400:destination=user-3"]);
    world.insert_many(3).await;
    let mut worker = world.worker().env("WORKER_NAME", "the-worker").start();
    world
        .until("its calls are counted", PATIENCE, async || {
            let app = workers_json(&world).await[0]["apps"][0].clone();
            app["accepted"] == 2 && app["failed"] == 1
        })
        .await;
    let worker_json = &workers_json(&world).await[0];
    assert_eq!(worker_json["name"], "the-worker");
    assert_eq!(worker_json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(worker_json["is_alive"], true);
    assert_eq!(worker_json["apps"][0]["app"], "default");
    assert_eq!(worker_json["apps"][0]["stepped_aside_at"], Value::Null);
    let phrases = [
        "workers alive: 1\n",
        concat!("version    ", env!("CARGO_PKG_VERSION"), "\n"),
        "\nthe-worker\n",
        "alive, reported",
        "default: 2 accepted, 1 failed\n",
    ];
    assert_contains(&world.run(&["workers"]).await, &phrases);
    worker.stop().await;
    assert_eq!(workers_json(&world).await, json!([]));
}

#[tokio::test]
async fn a_killed_worker_is_shown_as_dead_with_advice() {
    let world = World::new().await;
    for name in ["killed", "other"] {
        world.pretend_worker(name, "1", "default").await;
    }
    world
        .execute("update signaling.worker set seen_at = now() - interval '1 minute' where name = 'killed'")
        .await;
    let text = world.run(&["workers"]).await;
    let (alive, dead) = text.split_once("\nkilled\n").expect("the dead one");
    assert_contains(alive, &["workers alive: 1\n", "\nother\n"]);
    assert_contains(
        dead,
        &["dead: it last reported 1m", "-> look for the cause"],
    );
}

#[tokio::test]
async fn a_worker_with_wrong_credentials_is_shown_as_stepped_aside() {
    let world = World::new().await;
    let right = world.worker().env("WORKER_NAME", "right").start();
    let wrong = world.worker().env("WORKER_NAME", "wrong");
    let wrong = wrong.env("AGORA_API_SECRET", "not-the-secret").start();
    for worker in [&right, &wrong] {
        worker.until_logged("worker_started").await;
    }
    let has_stepped_aside = "select exists (select from signaling.fleet where name = 'wrong' and stepped_aside_at is not null)";
    world
        .until("the wrong one steps aside", PATIENCE, async || {
            world.insert_many(20).await;
            world.ask(has_stepped_aside).await
        })
        .await;
    let text = world.run(&["workers"]).await;
    let (_, shown) = text.split_once("\nwrong\n").expect("the worker");
    let phrases = [
        "has stepped aside since 2",
        "401",
        "-> check the worker's credentials",
    ];
    assert_contains(shown, &phrases);
    world.until_all_final().await;
    assert_eq!(world.count("status <> 'message_sent'").await, 0);
}
