//! The worker makes rows again that it needs, after a truncate has emptied their table.

use time::OffsetDateTime;

use super::{Claim, database_error, now, session, world};
use crate::schema::try_to;
use harness::World;

/// The tables that a truncate may empty. A `truncate … cascade` empties those that refer to them, too.
pub(crate) const TABLES: [&str; 10] = [
    "outbox",
    "attempt",
    "lane",
    "wakeup",
    "retention",
    "minute_stats",
    "queue_counts",
    "queue_counts_turn",
    "worker",
    "worker_app",
];

async fn truncate(world: &World, tables: &str) {
    world
        .execute(&format!("truncate {tables} restart identity cascade"))
        .await;
}

/// Opens the default app's lane anew; whether its first slot lies a second ahead of that.
async fn opens_a_second_ahead(world: &World, is_missing: bool) -> bool {
    let before = now(world).await;
    let _: String = world
        .ask(&format!(
            "select result from signaling.open_lane('default', 102, is_missing => {is_missing}) where result = 'made'"
        ))
        .await;
    let slot_at: OffsetDateTime = world.lane("next_slot_at").await;
    let second = time::Duration::SECOND;
    (before + second..=now(world).await + second).contains(&slot_at)
}

#[tokio::test]
async fn every_function_of_a_worker_gets_through_while_a_table_is_empty() {
    let world = world().await;
    let mut connection = world.connect().await;
    for table in TABLES {
        for call in session::READ_COMMITTED_ONLY
            .into_iter()
            .chain(session::ANY_LEVEL)
        {
            truncate(&world, &format!("signaling.{table}")).await;
            let called = try_to(&mut connection, &format!("select * from signaling.{call}")).await;
            match called {
                Err(error) if table == "lane" && call.starts_with("claim(") => {
                    let error = database_error(error);
                    assert_eq!(error.message(), "the app default has no lane");
                }
                called => assert!(called.is_ok(), "{call} without {table}: {called:?}"),
            }
        }
        world.open_lane("default").await;
    }
}

#[tokio::test]
async fn the_first_slot_of_a_lane_that_was_deleted_lies_behind_all_slots_of_the_old_one() {
    let world = world().await;
    // A worker with the longest lookahead has slots until 0.95 s from now.
    truncate(&world, "signaling.lane").await;
    assert!(opens_a_second_ahead(&world, true).await);

    // A worker that starts beside others takes a missing lane for deleted.
    world.pretend_worker("another", "1", "default").await;
    truncate(&world, "signaling.lane").await;
    assert!(opens_a_second_ahead(&world, false).await);

    truncate(&world, "signaling.lane, signaling.worker").await;
    let is_first = !opens_a_second_ahead(&world, false).await;
    assert!(is_first, "the first worker of an app waits for nothing");
}

#[tokio::test]
async fn a_lane_that_was_deleted_has_the_configured_limit_and_sends() {
    let world = world().await;
    world
        .set_lane("limit_per_s = 5, limit_set_by = 'olga', paused_at = now(), paused_by = 'olga'")
        .await;
    truncate(&world, "signaling.lane").await;
    let open = "select signaling.open_lane('default', 102)";
    world.execute(open).await;
    world.insert_many(3).await;
    let claimed = Claim::default().run(&world.pool).await;
    assert_eq!((claimed.messages.len(), claimed.lane.hold), (3, None));
    assert!(world.lane::<bool>("limit_per_s = 102").await);
}

#[tokio::test]
async fn messages_are_counted_and_deleted_again_after_the_single_rows_are_gone() {
    let world = world().await;
    let count = "select signaling.refresh_queue_counts()";
    let delete = "select has_turn from signaling.delete_finished(gen_random_uuid(), '1 hour')";
    for _ in 0..2 {
        assert!(world.ask::<bool>(count).await);
        assert!(world.ask::<bool>(delete).await);
        truncate(&world, "signaling.queue_counts_turn, signaling.retention").await;
    }
}
