//! `signaling.obstacle`: everything that keeps an app from sending.

use serde_json::json;

use super::set_workers;
use harness::{World, peer};

async fn kinds(world: &World) -> Vec<String> {
    let kinds = "select kind from signaling.obstacle where app = 'default' order by rank";
    world.column(kinds).await
}

async fn with_lane(change: &str) -> World {
    let world = World::new().await;
    world.open_lane("default").await;
    world.set_lane(change).await;
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
    let changes = "paused_at = null, paused_by = null, hold = 'unauthorized',
                   retry_after_until = now() - interval '1 second'";
    world.set_lane(changes).await;
    assert_eq!(kinds(&world).await, ["unauthorized"]);
    world
        .set_lane("hold = null, hold_since = null, hold_until = null")
        .await;
    assert!(kinds(&world).await.is_empty());
}

#[tokio::test]
async fn an_app_of_another_environment_than_all_its_workers_is_told_of() {
    let world = with_lane("environment = 'production'").await;
    world.insert(peer(json!({}))).await;
    assert_eq!(kinds(&world).await, ["no_worker"]);
    world.pretend_worker("a-worker", "1", "default").await;
    assert_eq!(kinds(&world).await, ["other_environment"]);
    let sentence: String = world.ask("select sentence from signaling.obstacle").await;
    let expected = "the app belongs to the environment production, and the workers";
    assert!(sentence.starts_with(expected), "{sentence}");
    set_workers(&world, "environment = 'production'").await;
    assert!(kinds(&world).await.is_empty());
    let waits_for: String = world.ask("select waits_for from signaling.delivery").await;
    assert_eq!(waits_for, "the next free slot of the app");
}

#[tokio::test]
async fn a_message_and_a_resume_tell_of_the_same_obstacles() {
    let world = with_lane(ALL).await;
    world.insert(peer(json!({}))).await;
    let first = "select waits_for = (select waits_for from signaling.obstacle order by rank limit 1) from signaling.delivery";
    assert!(world.ask::<bool>(first).await);
    let resumed: String = world.ask("select signaling.resume('default')").await;
    let still = "select sentence from signaling.obstacle order by rank";
    let still: Vec<String> = world.column(still).await;
    assert_eq!(still.len(), 2);
    let ended = "resumed, and ended the wait that the API has asked for";
    let expected = format!("{ended}; but {}; and {}", still[0], still[1]);
    assert_eq!(resumed, expected);
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
    let retry = async |arguments: &str| -> serde_json::Value {
        world
            .ask(&format!(
                "select coalesce(jsonb_object_agg(app_of_messages, messages), '{{}}') from signaling.retry({arguments})"
            ))
            .await
    };
    let dry_run = retry("dry_run => true").await;
    assert_eq!(dry_run, json!({"one": 1, "two": 2}));
    let two = retry("app => 'two', max_rows => 1").await;
    assert_eq!(two, json!({"two": 1}));
    assert_eq!(retry("").await, json!({"one": 1, "two": 1}));
    assert_eq!(retry("").await, json!({}));
}
