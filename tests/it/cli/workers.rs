//! `worker workers`

use serde_json::{Value, json};

use testkit::{PATIENCE, Worker, World, assert_contains};

async fn workers_json(world: &World) -> Value {
    let finished = world.run(&["workers", "--json"]).await;
    serde_json::from_str(&finished).expect("JSON")
}

async fn workers_text(world: &World) -> String {
    world.run(&["workers"]).await
}

fn named(world: &World, name: &str) -> Worker {
    world.worker().env("WORKER_NAME", name)
}

async fn until_alive(world: &World, count: usize) {
    world
        .until("the workers are alive", PATIENCE, async || {
            let workers = workers_json(world).await;
            let workers = workers.as_array().expect("an array");
            workers
                .iter()
                .filter(|worker| worker["is_alive"] == true)
                .count()
                == count
        })
        .await;
}

#[tokio::test]
async fn workers_advises_to_start_a_worker_if_none_is_alive() {
    let world = World::new().await;
    let text = workers_text(&world).await;
    assert!(
        text.starts_with("workers alive: 0\n  -> start a worker"),
        "{text}"
    );
    assert_eq!(workers_json(&world).await, json!([]));
}

#[tokio::test]
async fn a_worker_is_listed_with_its_counters_until_it_stops() {
    let world = World::new().await;
    world.set_faults(&["400:destination=user-3"]);
    world.insert_many(3).await;
    let mut worker = named(&world, "the-worker").start();
    world
        .until("its calls are counted", PATIENCE, async || {
            let app = workers_json(&world).await[0]["apps"][0].clone();
            app["accepted"] == 2 && app["failed"] == 1
        })
        .await;
    let workers = workers_json(&world).await;
    assert_eq!(workers[0]["name"], "the-worker");
    assert_eq!(workers[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(workers[0]["is_alive"], true);
    assert_eq!(workers[0]["apps"][0]["app"], "default");
    assert_eq!(workers[0]["apps"][0]["stepped_aside_at"], Value::Null);
    let text = workers_text(&world).await;
    let phrases = [
        "workers alive: 1\n",
        concat!("version    ", env!("CARGO_PKG_VERSION"), "\n"),
        "\nthe-worker\n",
        "alive, reported",
        "default: 2 accepted, 1 failed\n",
    ];
    assert_contains(&text, &phrases);
    worker.stop().await;
    assert_eq!(workers_json(&world).await, json!([]));
}

#[tokio::test]
async fn a_killed_worker_is_shown_as_dead_with_advice() {
    let world = World::new().await;
    let mut killed = named(&world, "killed").start();
    let _other = named(&world, "other").start();
    until_alive(&world, 2).await;
    killed.kill().await;
    world
        .execute("update signaling.worker set seen_at = seen_at - interval '1 minute' where name = 'killed'")
        .await;
    until_alive(&world, 1).await;
    let text = workers_text(&world).await;
    let (alive, dead) = text.split_once("\nkilled\n").expect("the dead one");
    assert!(alive.contains("workers alive: 1\n"), "{text}");
    assert!(alive.contains("\nother\n"), "{text}");
    assert!(dead.contains("dead: it last reported 1m"), "{text}");
    assert!(dead.contains("-> look for the cause"), "{text}");
}

#[tokio::test]
async fn a_worker_with_wrong_credentials_is_shown_as_stepped_aside() {
    let world = World::new().await;
    let _right = named(&world, "right").start();
    let _wrong = named(&world, "wrong")
        .env("AGORA_API_SECRET", "not-the-secret")
        .start();
    until_alive(&world, 2).await;
    let stepped_aside = async || -> bool {
        world
            .ask("select exists (select from signaling.fleet where name = 'wrong' and stepped_aside_at is not null)")
            .await
    };
    world
        .until("the wrong one steps aside", PATIENCE, async || {
            world.insert_many(20).await;
            stepped_aside().await
        })
        .await;
    let text = workers_text(&world).await;
    let (_, wrong) = text.split_once("\nwrong\n").expect("the worker");
    for phrase in [
        "has stepped aside since 2",
        "401",
        "-> check the worker's credentials",
        "credentials",
    ] {
        assert!(wrong.contains(phrase), "{phrase:?} is missing: {text}");
    }
    world.until_all_final().await;
    assert_eq!(world.count("status <> 'message_sent'").await, 0);
}
