//! What can be done by the pages: a question first, which changes nothing, and then a POST.

use hyper::{Method, StatusCode};
use serde_json::json;

use super::server::Dashboard;
use super::shown::open_lane;
use crate::harness::{World, peer};

#[tokio::test]
async fn an_app_is_paused_limited_and_resumed_after_a_question() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    let dashboard = Dashboard::of(&world).await;
    let lane = async |columns: &str| -> String {
        world
            .ask(&format!(
                "select coalesce(({columns})::text, 'nothing') from signaling.lane"
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
    assert!(dashboard.page(&to).await.contains("It sends again"));
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
