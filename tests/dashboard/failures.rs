//! Failures in groups, and sending a group again.

use serde_json::json;

use super::server::Dashboard;
use super::shown;
use testkit::{World, peer};

#[tokio::test]
async fn failures_are_grouped_with_a_count_and_an_example() {
    let world = World::new().await;
    shown::messages_of_all_states(&world, 20).await;
    let dashboard = Dashboard::of(&world).await;
    let page = dashboard.page("/failures").await;
    let example: i64 = world
        .ask("select max(id) from signaling.outbox where status = 'failed'")
        .await;
    for part in [
        "the API answered 404 (not found): no such user",
        "no answer within 15s",
        "the API answered 503 (service unavailable)",
        &format!("href=\"/messages/{example}\""),
        "20 <a class=\"button\"",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    assert_eq!(
        page.matches("<td class=\"number\">20</td>").count(),
        6,
        "{page}"
    );
    let rejected = dashboard
        .page("/failures?outcome=rejected&app=default")
        .await;
    assert!(
        rejected.contains("no such user") && !rejected.contains("no answer"),
        "{rejected}"
    );
    assert!(
        dashboard
            .page("/failures?app=other")
            .await
            .contains("Nothing failed")
    );
}

#[tokio::test]
async fn a_group_is_sent_again_and_nothing_else() {
    let world = World::new().await;
    shown::messages_of_all_states(&world, 20).await;
    world
        .execute("update signaling.outbox set error = 'another one' where id in (select id from signaling.outbox where status = 'failed' order by id limit 5)")
        .await;
    let dashboard = Dashboard::of(&world).await;
    let page = dashboard.page("/failures").await;
    let (_, rest) = page
        .split_once("href=\"/actions/retry-group?")
        .expect("an action");
    let query = rest
        .split('"')
        .next()
        .expect("an end")
        .replace("&amp;", "&");
    let question = dashboard
        .page(&format!("/actions/retry-group?{query}"))
        .await;
    assert!(
        question.contains("Send about 15 messages again?"),
        "{question}"
    );
    assert_eq!(
        world.count("status = 'failed'").await,
        20,
        "a question changes nothing"
    );

    let to = dashboard.post("/actions/retry-group", &query).await;
    assert!(
        dashboard
            .page(&to)
            .await
            .contains("15 messages will be sent again")
    );
    assert_eq!(world.count("status = 'failed'").await, 5);
    assert_eq!(
        world
            .count("status = 'failed' and error = 'another one'")
            .await,
        5
    );
    let to = dashboard.post("/actions/retry-group", &query).await;
    assert!(
        dashboard
            .page(&to)
            .await
            .contains("0 messages will be sent again")
    );
    assert_eq!(world.count("status = 'failed'").await, 5);
}

#[tokio::test]
async fn real_failures_of_a_worker_are_shown_and_their_messages_tell_each_call() {
    let world = World::new().await;
    world.set_faults(&["503:count=2"]);
    let dashboard = Dashboard::start(world.worker()).await;
    let id = world.insert(peer(json!({}))).await;
    world.until_final(id).await;
    assert!(dashboard.page("/failures").await.contains("503"));
    let page = dashboard.page(&format!("/messages/{id}")).await;
    for part in ["Call 1", "Call 2", "503", "sent", "Inserted"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
}

#[tokio::test]
async fn where_not_all_failures_are_looked_at_the_page_says_so_whatever_it_is_asked_for() {
    let world = World::new().await;
    world
        .insert(peer(json!({"app": "seldom", "destination": "user-1"})))
        .await;
    world.insert(peer(json!({}))).await;
    // One of an app that seldom fails, and then so many of another one that just all are looked at.
    world
        .execute(
            "insert into signaling.attempt (message_id, attempt, outcome, error)
             select message.id, 1, 'transient', 'of ' || message.app
             from signaling.outbox as message, generate_series(1, case message.app when 'seldom' then 1 else 9999 end)
             order by message.id",
        )
        .await;
    let dashboard = Dashboard::of(&world).await;
    assert!(dashboard.page("/failures").await.contains("of default"));
    assert!(!dashboard.page("/failures").await.contains("were looked at"));
    for filter in ["app=seldom", "outcome=rejected"] {
        world
            .execute("insert into signaling.attempt (message_id, attempt, outcome, error) select max(id), 2, 'transient', 'of default' from signaling.outbox")
            .await;
        let page = dashboard.page(&format!("/failures?{filter}")).await;
        for part in [
            "of all apps, the newest 10,000 were looked at",
            "None of these is like that",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("Nothing failed"), "{page}");
    }
}
