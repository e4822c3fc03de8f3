//! Values that Postgres can store and drivers can't read, in a table without its constraints.

use harness::World;

/// The ends of `timestamptz`, and years beyond RFC 3339.
const TIMES: [&str; 6] = [
    "infinity",
    "-infinity",
    "294276-12-31 23:59:59.999999+00",
    "10000-01-02 00:00:00+00",
    "0044-03-15 12:00:00+00 BC",
    "4714-11-24 00:00:00+00 BC",
];

#[tokio::test]
async fn no_time_in_a_row_or_a_lane_ends_a_worker() {
    let world = World::new().await;
    world
        .execute(
            "alter table signaling.outbox
             drop constraint due_at_is_before_year_1_or_after_year_9999,
             drop constraint expires_at_is_before_year_1_or_after_year_9999",
        )
        .await;
    let mut worker = world.worker().start();
    world.insert_many(5).await;
    world.until_all_final().await;
    for time in TIMES {
        world
            .execute(&format!(
                "insert into signaling.outbox (sender, destination, payload, due_at, created_at) values
                     ('alice', 'bob', 'due', '{time}', default), ('alice', 'bob', 'created', default, '{time}');
                 insert into signaling.outbox (sender, destination, payload, expires_at)
                 values ('alice', 'bob', 'expires', '{time}');
                 update signaling.lane set throttled_at = '{time}', limit_set_at = '{time}'"
            ))
            .await;
    }
    // Three messages are due after the year 9999, and three expired before the year 1.
    world.until_count(3, "status = 'pending'").await;
    assert_eq!(world.count("status = 'expired'").await, 3);
    assert_eq!(world.seen().calls, 5 + 12);
    for id in 1..=23 {
        world.run(&["message", &id.to_string()]).await;
    }
    for arguments in [&["status"][..], &["status", "--json"]] {
        world.run(arguments).await;
    }
    worker.stop().await;
    assert_eq!(worker.logged("task_panicked"), 0);
}

#[tokio::test]
async fn a_lane_with_impossible_slots_stops_no_worker() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    world.assert_sends().await;
    // A constraint refuses infinite times.
    for time in ["294276-12-31 00:00:00+00", "4714-11-24 00:00:00+00 BC"] {
        world
            .set_lane(&format!(
                "next_slot_at = '{time}', rate_at = '{time}', rate_per_s = 'NaN'"
            ))
            .await;
        world.insert_many(1).await;
        world.run(&["status"]).await;
        assert!(worker.is_running(), "{time}");
    }
    world
        .set_lane("next_slot_at = now(), rate_at = now(), rate_per_s = 490")
        .await;
    world.until_all_final().await;
    worker.stop().await;
}
