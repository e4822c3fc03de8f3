//! The environment of a lane: workers of another one get no message, until the app is adopted.

use serde_json::{Value, json};

use super::{Claim, Claimed, attempt_lines, refusal, set_workers, world};
use harness::{World, assert_contains, peer};

/// A world with a lane of the environment `production`, and so many messages.
async fn production(messages: i32) -> World {
    let world = world().await;
    assert_eq!(open(&world, "'production'").await, "named");
    world.insert_many(messages).await;
    world
}

/// Opens the default app's lane for an environment; the result.
async fn open(world: &World, environment: &str) -> String {
    world
        .ask(&format!(
            "select result from signaling.open_lane('default', 102, {environment})"
        ))
        .await
}

/// The claim of a worker of an environment.
async fn claim(world: &World, environment: Option<&'static str>) -> Claimed {
    let claim = Claim {
        environment,
        ..Claim::default()
    };
    claim.run(&world.pool).await
}

async fn adopt(world: &World, arguments: &str) -> Value {
    world
        .ask(&format!("select signaling.adopt('default', {arguments})"))
        .await
}

#[tokio::test]
async fn a_lane_belongs_to_the_environment_of_the_first_worker_that_has_one() {
    let world = world().await;
    assert!(world.lane::<bool>("environment is null").await);
    assert_eq!(open(&world, "null").await, "open");
    assert_eq!(open(&world, "'production'").await, "named");
    assert_eq!(open(&world, "'production'").await, "open");
    assert_eq!(world.lane::<String>("environment").await, "production");
    world.execute("delete from signaling.lane").await;
    assert_eq!(open(&world, "'staging'").await, "made");
    assert_eq!(world.lane::<String>("environment").await, "staging");
}

#[tokio::test]
async fn a_worker_of_another_environment_or_of_none_is_refused_and_changes_nothing() {
    let world = production(7).await;
    let before: String = world.lane("lane::text").await;
    for environment in ["'staging'", "null"] {
        let refused: Value = world
            .ask(&format!(
                "select to_jsonb(opened) from signaling.open_lane('default', 5, {environment}) as opened"
            ))
            .await;
        assert_eq!(
            refused,
            json!({"result": "refused", "lane_environment": "production", "pending": 7})
        );
    }
    assert_eq!(world.lane::<String>("lane::text").await, before);
}

#[tokio::test]
async fn a_claim_for_another_environment_gets_no_message_and_says_why() {
    let world = production(3).await;
    for (worker, environment) in [(Some("staging"), "'staging'"), (None, "null")] {
        let claimed = claim(&world, worker).await;
        assert_eq!(claimed.lane.hold.as_deref(), Some("other_environment"));
        assert!(claimed.has_no_slot(), "{claimed:?}");
        let looked: String = world
            .ask(&format!(
                "select due->'hold'->>'kind' from signaling.next_due(array['default'], '{{-infinity}}', '{{0}}', '{{-infinity}}', '{{0}}',
                     '1 second', '2 seconds', environment => {environment})"
            ))
            .await;
        assert_eq!(looked, "other_environment");
    }
    assert_eq!(claim(&world, Some("production")).await.messages.len(), 3);
}

#[tokio::test]
async fn an_adopted_app_whose_messages_are_sent_gives_them_to_the_new_environment() {
    let world = production(3).await;
    world
        .set_lane(
            "hold = 'unavailable', hold_since = now(), hold_until = now() + interval '1 hour',
         retry_after_until = now() + interval '1 hour', rate_per_s = 1, rate_at = now(), throttled_at = now(),
         next_slot_at = now() + interval '1 day'",
        )
        .await;
    let expected = json!({"is_done": true, "previous": "production", "cancelled": 0, "pending": 3});
    let adopted = adopt(&world, "'staging', cancels_pending => false").await;
    assert_eq!(adopted, expected);
    let is_fresh =
        "hold is null and retry_after_until is null and throttled_at is null and rate_per_s = 100
                    and next_slot_at <= clock_timestamp() + interval '1 second'";
    assert!(world.lane::<bool>(is_fresh).await);
    world.set_lane("next_slot_at = 'epoch'").await;
    assert_eq!(claim(&world, Some("production")).await.messages.len(), 0);
    assert_eq!(claim(&world, Some("staging")).await.messages.len(), 3);
}

#[tokio::test]
async fn an_adopted_app_whose_messages_are_cancelled_has_none_that_is_pending() {
    let world = production(5).await;
    world
        .execute(
            "update signaling.outbox
             set claim_id = gen_random_uuid(), due_at = now() + interval '1 hour', claimed_by = 'w' where id = 1;
             update signaling.outbox set sent_at = now(), attempts = 1, error = 'HTTP 500' where id = 2",
        )
        .await;
    world.insert(peer(json!({"due_at": "2999-01-01"}))).await;
    let other = world.insert(peer(json!({"app": "other"}))).await;

    // The first call leaves two messages for the second one.
    for (is_done, cancelled, pending, environment) in
        [(false, 4, 2, "production"), (true, 2, 0, "staging")]
    {
        let adopted = adopt(&world, "'staging', true, max_rows => 4").await;
        let expected = json!({"is_done": is_done, "previous": "production", "cancelled": cancelled, "pending": pending});
        assert_eq!(adopted, expected);
        assert_eq!(world.lane::<String>("environment").await, environment);
    }
    assert_eq!(world.count("status = 'cancelled'").await, 6);
    assert_eq!(world.row(other).await.status, "pending");
    // The source may have called what it had claimed.
    let lost = "1 lost worker charged w";
    assert_eq!(attempt_lines(&world, 1).await, [lost]);
    assert_eq!(world.row(2).await.error.as_deref(), Some("HTTP 500"));
}

#[tokio::test]
async fn an_app_that_belongs_to_the_environment_is_not_adopted_again() {
    let world = production(3).await;
    let adopted = adopt(&world, "'production', true").await;
    assert_eq!(adopted["cancelled"], 0);
    assert_eq!(world.count("status = 'pending'").await, 3);
}

#[tokio::test]
async fn an_app_is_not_adopted_while_a_worker_of_its_environment_is_alive() {
    let world = production(3).await;
    world.pretend_worker("w1", "1", "default").await;
    set_workers(&world, "environment = 'production', seen_at = now()").await;
    let refused = refusal(&world, "select signaling.adopt('default', 'staging', true)").await;
    assert_eq!(refused.code(), "22023");
    let phrase = "the worker w1 of the environment production";
    assert_contains(refused.message(), &[phrase]);
    assert_eq!(world.count("status = 'pending'").await, 3);

    set_workers(&world, "seen_at = now() - interval '31 seconds'").await;
    adopt(&world, "'staging', true").await;
    let workers: i64 = world.ask("select count(*) from signaling.worker").await;
    assert_eq!(workers, 0, "a dead worker of the source");
}

#[tokio::test]
async fn a_worker_of_another_environment_does_not_count_as_serving() {
    let world = production(0).await;
    let report = |environment: &str| {
        format!(
            "select others from signaling.report_worker('c0ffee00-0000-4000-8000-000000000000', 'me', '1', 'h',
                 '{{default}}', '{{default}}', '{{0}}', '{{0}}', '{{false}}', '{{null}}', {environment})"
        )
    };
    world.pretend_worker("other", "1", "default").await;
    set_workers(&world, "environment = 'staging'").await;
    world
        .execute("insert into signaling.worker_app (app, worker_id) select 'default', worker_id from signaling.worker")
        .await;
    assert_eq!(world.ask::<i32>(&report("'production'")).await, 0);
    assert_eq!(world.ask::<i32>(&report("'staging'")).await, 1);
}

#[tokio::test]
async fn an_environment_has_a_name_that_can_stand_in_a_command() {
    let world = world().await;
    for name in ["", "a b", "x'y", &"x".repeat(65)] {
        let change = format!("update signaling.lane set environment = $${name}$$");
        assert_eq!(
            refusal(&world, &change).await.constraint(),
            Some("environment_is_not_a_name_of_1_to_64_letters_digits_dots_dashes"),
            "{name}"
        );
    }
}
