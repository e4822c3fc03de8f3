//! Actions of the dashboard: a GET asks for confirmation and changes nothing, a POST acts.

use hyper::{Method, StatusCode};
use serde_json::json;

use super::database_proxy::DatabaseProxy;
use super::server::Dashboard;
use super::shown::open_lane;
use testkit::{World, peer};

#[tokio::test]
async fn an_app_is_paused_limited_and_resumed_after_a_question() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    let dashboard = Dashboard::of(&world).await;
    let lane = async |columns: &str| -> String {
        world
            .ask(&format!(
                "select coalesce(({columns})::text, 'nothing') from signaling.lane where app = 'default'"
            ))
            .await
    };
    let question = dashboard.page("/actions/pause?app=default").await;
    assert!(
        question.contains("Pause default?") && question.contains("on any host"),
        "{question}"
    );
    assert_eq!(lane("paused_at").await, "nothing");

    let to = dashboard
        .post("/actions/pause", "app=default&reason=%3Cthe+vendor%3E")
        .await;
    assert!(
        dashboard
            .page(&to)
            .await
            .contains("Paused. Calls in flight")
    );
    assert_eq!(
        lane("paused_by || ': ' || pause_reason").await,
        "dashboard: <the vendor>"
    );
    let to = dashboard.post("/actions/pause", "app=default").await;
    assert!(dashboard.page(&to).await.contains("It was paused already"));

    dashboard.page("/actions/resume?app=default").await;
    let to = dashboard.post("/actions/resume", "app=default").await;
    assert!(dashboard.page(&to).await.contains("Resumed."));
    assert_eq!(lane("paused_at").await, "nothing");

    dashboard.page("/actions/limit?app=default").await;
    dashboard
        .post("/actions/limit", "app=default&limit=42")
        .await;
    assert_eq!(
        lane("limit_per_s || ' by ' || limit_set_by").await,
        "42 by dashboard"
    );
    dashboard
        .post("/actions/limit", "app=default&limit=42&configured=1")
        .await;
    assert_eq!(lane("limit_per_s").await, "100");
    for (path, form) in [
        ("/actions/limit", "app=default&limit=0"),
        ("/actions/limit", "app=default"),
        ("/actions/pause", "app=nobody"),
    ] {
        let answer = dashboard.ask(Method::POST, path, form, &[]).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{path} {form}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_wait_that_the_api_has_asked_for_is_shown_and_can_be_ended() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    world.pretend_worker("the-worker", "1", "default").await;
    world
        .execute("update signaling.lane set retry_after_until = '2100-01-01T00:00:00Z' where app = 'default'")
        .await;
    let dashboard = Dashboard::of(&world).await;
    let page = dashboard.page("/").await;
    for part in [
        "The API has asked to wait until",
        "2100-01-01T00:00:00Z",
        "/actions/resume?app=default",
        "/actions/pause?app=default",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let question = dashboard.page("/actions/resume?app=default").await;
    assert!(question.contains("may answer 429 again"), "{question}");
    let to = dashboard.post("/actions/resume", "app=default").await;
    let page = dashboard.page(&to).await;
    assert!(page.contains("Resumed."), "{page}");
    assert!(!page.contains("/actions/resume?app=default"), "{page}");
}

#[tokio::test]
async fn a_message_is_cancelled_and_sent_again_after_a_question() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let id = world.insert(peer(json!({}))).await;
    let form = format!("id={id}");
    dashboard.page(&format!("/actions/cancel?{form}")).await;
    assert_eq!(world.row(id).await.status, "pending");
    let to = dashboard.post("/actions/cancel", &form).await;
    assert!(dashboard.page(&to).await.contains("Cancelled."));
    assert_eq!(world.row(id).await.status, "cancelled");
    let to = dashboard.post("/actions/cancel", &form).await;
    assert!(dashboard.page(&to).await.contains("Not cancelled"));

    dashboard.page(&format!("/actions/retry?{form}")).await;
    assert_eq!(world.row(id).await.status, "cancelled");
    let to = dashboard.post("/actions/retry", &form).await;
    assert!(
        dashboard
            .page(&to)
            .await
            .contains("1 message will be sent again")
    );
    assert_eq!(world.row(id).await.status, "pending");
    let answer = dashboard.get(&format!("/actions/retry?{form}")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("is queued"), "{}", answer.text);
}

#[tokio::test]
async fn a_form_without_an_end_is_refused() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let form = format!("app=default&reason={}", "x".repeat(20_000));
    let answer = dashboard
        .ask(Method::POST, "/actions/pause", &form, &[])
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_the_database_does_not_do_in_time_is_told_as_not_done() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    let proxy = DatabaseProxy::open(&world);
    let dashboard = Dashboard::through(&proxy, &world).await;
    let is_paused = "select paused_at is not null from signaling.lane where app = 'default'";

    // Another session holds a lock on the row.
    let mut client = world.pool.begin().await.expect("a transaction");
    sqlx::query("select from signaling.lane where app = 'default' for update")
        .execute(&mut *client)
        .await
        .expect("locked");
    let told = async || {
        let answer = dashboard.ask(Method::POST, "/actions/pause", "app=default", &[]);
        let answer = answer.await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        for part in ["Not done", "nothing was changed"] {
            assert!(answer.text.contains(part), "{}", answer.text);
        }
        // The script must not fetch the response to a POST again as if it were a page.
        assert!(!answer.text.contains("data-every-s"), "{}", answer.text);
    };
    told().await;
    client.rollback().await.expect("let go");
    assert!(!world.ask::<bool>(is_paused).await);

    // The network drops what the worker sends on an established connection.
    dashboard.post("/actions/resume", "app=default").await;
    proxy.swallow();
    told().await;
    assert!(!world.ask::<bool>(is_paused).await);
}
