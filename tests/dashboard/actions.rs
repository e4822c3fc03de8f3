//! Actions of the dashboard: a page asks for confirmation and changes nothing, a POST acts.

use serde_json::json;

use super::database_proxy::{DatabaseProxy, Network};
use super::server::Dashboard;
use harness::{World, assert_contains, peer};

#[tokio::test]
async fn an_operator_confirms_and_pauses_resumes_and_limits_an_app() {
    let world = World::new().await;
    world.open_lane("default").await;
    let dashboard = Dashboard::of(&world).await;
    let lane = async |columns: &str| -> String {
        let text = format!("coalesce(({columns})::text, 'nothing')");
        world.lane(&text).await
    };
    let (pause, resume) = ("/actions/pause", "/actions/resume");
    let limit = "/actions/limit";
    let parts = ["Pause default?", "No worker on any host", "Limit default?"];
    dashboard.shows("/", &parts).await;
    let response = dashboard.get(&format!("{pause}?app=default")).await;
    assert_eq!(response.status, 405);
    assert_eq!(lane("paused_at").await, "nothing");

    let next = dashboard.post(pause, "app=default&reason=%3Cthe+vendor%3E");
    let parts = ["is paused by dashboard", "Resume default?"];
    dashboard.shows(&next.await, &parts).await;
    let found = lane("paused_by || ': ' || pause_reason").await;
    assert_eq!(found, "dashboard: <the vendor>");
    let next = dashboard.post(resume, "app=default").await;
    let page = dashboard.shows(&next, &["Pause default?"]).await;
    assert!(!page.contains("is paused by"), "{page}");
    assert_eq!(lane("paused_at").await, "nothing");

    let next = dashboard.post(limit, "app=default&limit=42").await;
    dashboard.shows(&next, &[" of 42, set by hand"]).await;
    let found = lane("limit_per_s || ' by ' || limit_set_by").await;
    assert_eq!(found, "42 by dashboard");
    dashboard.post(limit, "app=default&limit=").await;
    assert_eq!(lane("limit_per_s").await, "100");
    for (path, form) in [
        (limit, "app=default&limit=0"),
        (limit, "app=default&limit=NaN"),
        (limit, "app=default&limit=fast"),
        (pause, "app=nobody"),
    ] {
        let response = dashboard.try_post(path, form).await;
        assert_eq!(response.status, 400, "{path} {form}: {}", response.body);
    }
}

#[tokio::test]
async fn an_operator_sees_and_ends_a_wait_that_the_api_has_asked_for() {
    let world = World::new().await;
    world.open_lane("default").await;
    world.pretend_worker("the-worker", "1", "default").await;
    world
        .set_lane("retry_after_until = '2100-01-01T00:00:00Z'")
        .await;
    let dashboard = Dashboard::of(&world).await;
    let (pause, resume) = ("/actions/pause", "/actions/resume");
    let wait = "no call before 2100-01-01T00:00:00Z, as the API asked";
    let parts = [wait, pause, resume, "may answer 429 again"];
    dashboard.shows("/", &parts).await;
    let next = dashboard.post(resume, "app=default").await;
    let page = dashboard.shows(&next, &[pause]).await;
    assert!(!page.contains(resume) && !page.contains(wait), "{page}");
}

#[tokio::test]
async fn an_operator_confirms_and_cancels_a_message_and_sends_it_again() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let id = world.insert(peer(json!({}))).await;
    let status = async || world.row(id).await.status;
    let (page, form) = (format!("/messages/{id}"), format!("id={id}"));
    let (cancel, retry) = (
        format!("Cancel message {id}?"),
        format!("Retry message {id}?"),
    );
    let shown = dashboard.shows(&page, &[&cancel]).await;
    assert!(!shown.contains(&retry), "{shown}");
    assert_eq!(status().await, "pending");
    let next = dashboard.post("/actions/cancel", &form).await;
    let shown = dashboard.shows(&next, &[">cancelled</span>", &retry]).await;
    assert!(!shown.contains(&cancel), "{shown}");
    assert_eq!(status().await, "cancelled");
    let next = dashboard.post("/actions/retry", &form).await;
    dashboard.shows(&next, &[">queued</span>", &cancel]).await;
    assert_eq!(status().await, "pending");
    let response = dashboard.try_post("/actions/send", &form).await;
    assert_eq!(response.status, 404);
}

#[tokio::test]
async fn an_action_that_changes_no_message_says_so() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let pending = world.insert(peer(json!({}))).await;
    let sending = world.insert(peer(json!({}))).await;
    world
        .execute(&format!(
            "update signaling.outbox set claim_id = gen_random_uuid(), claimed_by = 'a worker',
                                         due_at = now() + interval '1 minute' where id = {sending}"
        ))
        .await;
    for (action, form, status, part) in [
        (
            "cancel",
            format!("id={sending}"),
            409,
            "a worker is sending it",
        ),
        ("retry", format!("id={pending}"), 409, "it is pending"),
        ("cancel", String::new(), 400, "names no message"),
        ("retry", "id=".into(), 422, "id"),
    ] {
        let response = dashboard
            .try_post(&format!("/actions/{action}"), &form)
            .await;
        assert_eq!(
            response.status, status,
            "{action} {form}: {}",
            response.body
        );
        assert!(response.body.contains(part), "{}", response.body);
        assert!(!response.body.contains("data-every-s"), "{}", response.body);
    }
    assert_eq!(world.count("status = 'pending'").await, 2);
}

#[tokio::test]
async fn a_change_that_the_database_does_not_make_in_time_is_reported_as_not_done() {
    let world = World::new().await;
    world.open_lane("default").await;
    let proxy = DatabaseProxy::open(&world);
    let dashboard = Dashboard::through(&proxy, &world).await;
    let pause_fails = async || {
        let response = dashboard.try_post("/actions/pause", "app=default").await;
        assert_eq!(response.status, 500);
        assert_contains(
            &response.body,
            &["Not confirmed", "this change was not made"],
        );
        // The script must not fetch the response to a POST again as if it were a page.
        assert!(!response.body.contains("data-every-s"), "{}", response.body);
        assert!(!world.lane::<bool>("paused_at is not null").await);
    };

    // Another session holds a lock on the row.
    let client = world
        .open_transaction("select from signaling.lane where app = 'default' for update")
        .await;
    pause_fails().await;
    client.rollback().await.expect("released");

    // The network drops the worker's bytes on an established connection.
    dashboard.post("/actions/resume", "app=default").await;
    proxy.set(Network::Swallowing);
    pause_fails().await;
}
