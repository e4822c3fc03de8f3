//! Several apps in one worker.

use harness::{World, app_table};

/// Inserts messages of an app, and asserts that each is sent soon after its due time.
async fn assert_prompt(world: &World, app: &str, count: i32) {
    world.insert_many_of(app, count).await;
    let sent = format!("app = '{app}' and status = 'message_sent'");
    world.until_count(count.into(), &sent).await;
    let late = format!("app = '{app}' and sent_at > due_at + interval '3 s'");
    assert_eq!(world.count(&late).await, 0, "late messages");
}

#[tokio::test]
async fn an_app_whose_calls_hang_does_not_delay_another() {
    let world = World::new().await;
    world.set_faults(&["hang:app=stuck-id"]);
    let config = app_table("stuck", "max_in_flight = 20") + &app_table("quick", "");
    // More messages than may be in flight.
    world.insert_many_of("stuck", 40).await;
    let _worker = world
        .worker_without_app()
        .file("WORKER_CONFIG", &config)
        .start();
    world.until_accepted(2).await;
    assert_prompt(&world, "quick", 100).await;
    let pending = "app = 'stuck' and status = 'pending'";
    assert_eq!(world.count(pending).await, 40);
    let seen = world.seen();
    assert_eq!(seen.apps["quick-id"].calls, 100);
    assert!(seen.apps["stuck-id"].calls <= 20, "{seen:?}");
}

#[tokio::test]
async fn an_app_that_is_held_does_not_delay_another() {
    for (lines, hold) in [
        ("", "unauthorized"),
        ("base_url = \"http://127.0.0.1:9\"", "unavailable"),
    ] {
        let world = World::new().await;
        world.set_faults(&["401:app=held-id"]);
        let config = app_table("held", lines) + &app_table("fine", "");
        world.insert_many_of("held", 100).await;
        let worker = world
            .worker_without_app()
            .file("WORKER_CONFIG", &config)
            .start();
        worker.until_logged("lane_held").await;
        assert_prompt(&world, "fine", 50).await;
        let pending = "app = 'held' and status = 'pending'";
        assert_eq!(world.count(pending).await, 100);
        let holds = "select coalesce(hold, '') from signaling.lane order by app";
        assert_eq!(world.column::<String>(holds).await, ["", hold]);
    }
}

#[tokio::test]
async fn each_app_has_its_own_limit_and_base_url() {
    let world = World::new().await;
    let other = World::new().await;
    let base_url = format!("base_url = \"{}\"", other.simulator.base_url());
    let config = app_table("narrow", "rate = 20") + &app_table("elsewhere", &base_url);
    world.insert_many_of("narrow", 30).await;
    world.insert_many_of("elsewhere", 1).await;
    let _worker = world
        .worker_without_app()
        .file("WORKER_CONFIG", &config)
        .start();
    world.until_all_final().await;
    assert_eq!((world.seen().calls, other.seen().calls), (30, 1));
    let worst = world.seen().apps["narrow-id"].worst_sliding_second;
    assert!(worst <= 20, "{worst} calls in a second");
}
