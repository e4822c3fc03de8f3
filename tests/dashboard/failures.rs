//! The failure groups.

use serde_json::json;

use super::fixtures;
use super::server::Dashboard;
use harness::{World, peer};

#[tokio::test]
async fn failures_are_grouped_with_a_count_and_an_example() {
    let world = World::new().await;
    fixtures::messages_of_all_states(&world, 20).await;
    let dashboard = Dashboard::of(&world).await;
    let example: i64 = world
        .ask("select max(id) from signaling.outbox where status = 'failed'")
        .await;
    let parts = [
        ": illegal parameter",
        "no response within 15s",
        ": internal error",
        &format!("href=\"/messages/{example}\""),
    ];
    let page = dashboard.shows("/failures", &parts).await;
    let found = page.matches("<td class=\"number\">20</td>").count();
    assert_eq!(found, 7, "{page}");
    let rejected = "/failures?outcome=rejected&app=default";
    let rejected = dashboard.shows(rejected, &["illegal parameter"]).await;
    assert!(!rejected.contains("no response within"), "{rejected}");
    dashboard
        .shows("/failures?app=other", &["None of these calls matches"])
        .await;
}

#[tokio::test]
async fn a_workers_failures_are_listed_and_their_messages_show_each_call() {
    let world = World::new().await;
    world.set_faults(&["503:count=2"]);
    let dashboard = Dashboard::start(world.worker()).await;
    let id = world.insert(peer(json!({}))).await;
    world.until_final(id).await;
    dashboard.shows("/failures", &["503"]).await;
    let parts = [
        "call 1: ambiguous, HTTP 503",
        "call 2",
        "inserted",
        "call 3: accepted",
    ];
    dashboard.shows(&format!("/messages/{id}"), &parts).await;
}

#[tokio::test]
async fn a_page_that_counts_only_the_newest_failures_says_so_with_any_filter() {
    let world = World::new().await;
    world
        .insert(peer(json!({"app": "seldom", "destination": "user-1"})))
        .await;
    world.insert(peer(json!({}))).await;
    // The page counts all of these calls, and no more.
    world
        .execute(
            "insert into signaling.attempt (message_id, attempt, outcome, error)
             select message.id, 1, 'transient', 'of ' || message.app
             from signaling.outbox as message, generate_series(1, case message.app when 'seldom' then 1 else 9999 end)
             order by message.id",
        )
        .await;
    let dashboard = Dashboard::of(&world).await;
    dashboard.shows("/failures", &["of default"]).await;
    world
        .execute(
            "insert into signaling.attempt (message_id, attempt, outcome, error)
             select max(id), 2, 'transient', 'of default' from signaling.outbox",
        )
        .await;
    for filter in ["app=seldom", "outcome=rejected"] {
        let parts = [
            "the newest 10,000 failed calls of all apps",
            "None of these calls matches",
        ];
        let page = dashboard
            .shows(&format!("/failures?{filter}"), &parts)
            .await;
        assert!(!page.contains("No call failed"), "{page}");
    }
}
