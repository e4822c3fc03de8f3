//! `signaling.obstacle`: everything that keeps an app from sending.

use serde_json::json;
use testkit::{World, peer};

async fn kinds(world: &World) -> Vec<String> {
    world
        .ask(
            "select coalesce(array_agg(kind order by rank), '{}') from signaling.obstacle where app = 'default'",
        )
        .await
}

async fn with_lane(change: &str) -> World {
    let world = World::new().await;
    world
        .execute(&format!(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s) values ('default', 100, 100, 98);
             update signaling.lane set {change}"
        ))
        .await;
    world
}

const ALL: &str =
    "paused_at = 'infinity', paused_by = 'olga', hold = 'unavailable', hold_since = 'infinity',
                   hold_until = now(), retry_after_until = 'infinity'";

#[tokio::test]
async fn all_obstacles_are_listed_the_one_that_people_can_end_first() {
    let world = with_lane(ALL).await;
    let found = kinds(&world).await;
    assert_eq!(found, ["paused", "no_worker", "unavailable", "retry_after"]);
    let is_complete =
        "select bool_and(sentence is not null and waits_for is not null) from signaling.obstacle";
    assert!(world.ask::<bool>(is_complete).await);
    world.pretend_worker("a-worker", "1", "default").await;
    world
        .set_lane(
            "paused_at = null, paused_by = null, hold = 'unauthorized',
                                       retry_after_until = now() - interval '1 second'",
        )
        .await;
    assert_eq!(kinds(&world).await, ["unauthorized"]);
    world
        .set_lane("hold = null, hold_since = null, hold_until = null")
        .await;
    assert!(kinds(&world).await.is_empty());
}

#[tokio::test]
async fn an_app_of_another_environment_than_all_its_workers_is_told_of() {
    let world = with_lane("environment = 'production'").await;
    assert_eq!(kinds(&world).await, ["no_worker"]);
    world.pretend_worker("a-worker", "1", "default").await;
    assert_eq!(kinds(&world).await, ["other_environment"]);
    let sentence: String = world.ask("select sentence from signaling.obstacle").await;
    assert!(
        sentence.starts_with("the app belongs to the environment production, and the workers"),
        "{sentence}"
    );
    world
        .execute("update signaling.worker set environment = 'production'")
        .await;
    assert!(kinds(&world).await.is_empty());
}

#[tokio::test]
async fn a_message_and_a_resume_tell_of_the_same_obstacles() {
    let world = with_lane(ALL).await;
    world.insert(peer(json!({}))).await;
    let first = "select waits_for = (select waits_for from signaling.obstacle order by rank limit 1) from signaling.delivery";
    assert!(world.ask::<bool>(first).await);
    let said: String = world.ask("select signaling.resume('default')").await;
    let still: Vec<String> = world
        .ask("select array_agg(sentence order by rank) from signaling.obstacle")
        .await;
    assert_eq!(still.len(), 2);
    let expected = "resumed, and ended the wait that the API has asked for";
    assert_eq!(
        said,
        format!("{expected}; but {}; and {}", still[0], still[1])
    );
    assert!(world.ask::<bool>(first).await);
}

#[tokio::test]
async fn retry_counts_the_messages_of_each_app() {
    let world = World::new().await;
    for app in ["one", "two", "two"] {
        world.insert(peer(json!({"app": app}))).await;
    }
    world
        .set_messages("status = 'failed', finished_at = now()")
        .await;
    let counted = |arguments: &str| {
        format!(
            "select jsonb_object_agg(app_of_messages, messages) from signaling.retry({arguments})"
        )
    };
    let dry: serde_json::Value = world.ask(&counted("dry_run => true")).await;
    assert_eq!(dry, json!({"one": 1, "two": 2}));
    let retried: serde_json::Value = world.ask(&counted("app => 'two', max_rows => 1")).await;
    assert_eq!(retried, json!({"two": 1}));
    assert_eq!(
        world
            .ask::<i64>("select coalesce(sum(messages), 0)::bigint from signaling.retry()")
            .await,
        2
    );
    assert_eq!(
        world
            .ask::<i64>("select coalesce(sum(messages), 0)::bigint from signaling.retry()")
            .await,
        0
    );
}
