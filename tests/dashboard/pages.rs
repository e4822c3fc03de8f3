//! Content and HTTP headers of the pages.

use serde_json::json;

use super::fixtures;
use super::server::{Dashboard, count_pending};
use harness::{PATIENCE, World, assert_contains, peer};

#[tokio::test]
async fn each_page_reports_a_database_that_is_not_reached_yet_and_recovers() {
    let world = World::new().await;
    let (dashboard, mut proxy) = Dashboard::without_database(&world).await;
    for path in ["/", "/messages", "/messages/1", "/failures"] {
        let page = dashboard.get(path).await;
        assert_eq!(page.status, 503, "{path}");
        let parts = ["not reached the database yet", "data-every-s"];
        assert_contains(&page.body, &parts);
    }
    proxy.accept();
    let holds = async || dashboard.get("/").await.status == 200;
    world.until("the overview is there", PATIENCE, holds).await;
}

#[tokio::test]
async fn the_overview_shows_each_lanes_state_and_its_reason() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    world.insert(peer(json!({}))).await;
    for app in ["orders", "chat", "left"] {
        world.open_lane(app).await;
    }
    world
        .execute(
            "select signaling.pause('orders', 'the vendor is down', 'operator');
             update signaling.lane set hold = 'unauthorized', hold_reason = 'the API answered 401', hold_since = now(),
                    hold_until = now() + interval '1 hour' where app = 'chat'",
        )
        .await;
    world.pretend_worker("chat-worker", "1", "chat").await;
    fixtures::an_hour_of_stats(&world, "chat").await;
    count_pending(&world).await;
    let parts = [
        "no worker",
        "No worker has served this app yet",
        "No worker that serves the app is alive",
        "The app is paused by operator since",
        ": the vendor is down",
        "the API refuses its credentials (the API answered 401)",
        "role=\"img\"",
        "limit 100 (dashed)",
        "href=\"/messages?app=default&amp;state=queued\"",
        "href=\"/failures?app=chat&amp;outcome=throttled\"",
        ">300<span",
    ];
    dashboard.shows("/", &parts).await;
}

#[tokio::test]
async fn the_overview_names_live_dead_and_stepped_aside_workers() {
    let world = World::new().await;
    world.open_lane("default").await;
    world.pretend_worker("healthy", "1.2.3", "default").await;
    world.pretend_worker("refused", "1.3.0", "default").await;
    world
        .pretend_aside("refused", "default", "2026-01-31T12:00:00Z", "HTTP 401")
        .await;
    world.pretend_worker("killed", "1.2.3", "default").await;
    world
        .execute("update signaling.worker set seen_at = now() - interval '1 minute' where name = 'killed'")
        .await;
    let dashboard = Dashboard::of(&world).await;
    let parts = [
        "<td>1.2.3</td>",
        "<td>1.3.0</td>",
        "has stepped aside since <time>2026-01-31T12:00:00Z</time>",
        "“HTTP 401”",
        "check the worker's credentials and its network",
        ">dead</span>",
        "default: 0 accepted, 8 failed; ",
    ];
    dashboard.shows("/", &parts).await;
}

#[tokio::test]
async fn a_messages_page_shows_the_fault_of_a_failure_and_an_advice() {
    let world = World::new().await;
    world.open_lane("default").await;
    let id = world.insert(peer(json!({"due_at": "2100-01-01Z"}))).await;
    world
        .execute(&format!(
            "update signaling.outbox set sent_at = now(), uncharged = 1 where id = {id};
             insert into signaling.attempt (message_id, attempt, sent_at, outcome, error, fault, evidence, claimed_by)
             values ({id}, 1, now(), 'transient', 'HTTP 503', 'worker', 'others are accepted', 'worker-7')"
        ))
        .await;
    let dashboard = Dashboard::of(&world).await;
    let parts = [
        "but no worker that serves the app is alive",
        "call 1 failed. Fault: the worker worker-7 (others are accepted); not charged.",
        "</b>check this worker",
        "<dd>0 of 10 charged, 1 not charged</dd>",
    ];
    dashboard.shows(&format!("/messages/{id}"), &parts).await;
}

#[tokio::test]
async fn every_page_escapes_the_texts_of_rows() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let id = hostile(&world).await;
    for path in [
        "/".to_owned(),
        "/messages".to_owned(),
        format!("/messages/{id}?payload=1"),
        "/failures".to_owned(),
        "/messages?app=%3Cscript%3E%22%27&error=%22%3E%3Cscript%3E".to_owned(),
        "/failures?app=%3Cscript%3Emarked()%3C/script%3E".to_owned(),
    ] {
        let page = dashboard.page(&path).await;
        assert_eq!(page.matches("<script").count(), 1, "{path}: {page}");
        for unescaped in ["<img", "\"javascript:", "style=", "onerror=\""] {
            assert!(!page.contains(unescaped), "{path}: {page}");
        }
    }
}

/// Inserts a message, an attempt, two lanes and a worker whose texts are scripts.
pub(super) async fn hostile(world: &World) -> i64 {
    let script = "<script>window.marked=1</script>\"><img src=x onerror=window.marked=1>'";
    let id: i64 = sqlx::query_scalar(
        "insert into signaling.outbox (sender, destination, payload, dedupe_key, traceparent)
         values ('<b onclick=marked()>', 'javascript:window.marked=1', $1, $1, $1) returning id",
    )
    .bind(script)
    .fetch_one(&world.pool)
    .await
    .expect("a message");
    for statement in [
        "update signaling.outbox set status = 'failed', finished_at = now(), sent_at = now(), attempts = 1, http_status = 400,
                error = $1, request_id = $1, claimed_by = $1",
        "insert into signaling.attempt (message_id, attempt, sent_at, http_status, outcome, error, fault, evidence, claimed_by)
         select id, 1, now(), 400, 'rejected', $1, 'worker', $1, $1 from signaling.outbox",
        "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s, hold, hold_reason, hold_since, hold_until,
                                     limit_set_by)
         values ('held', 9, 9, 8, 'unavailable', $1, now(), now(), $1)",
        "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s, paused_at, paused_by, pause_reason)
         values ('default', 9, 9, 8, now(), $1, $1)",
        "insert into signaling.worker
         values (gen_random_uuid(), $1, $1, $1, '{default,held}', now(), now() + interval '1 hour')",
        "insert into signaling.worker_app (app, worker_id, stepped_aside_at, stepped_aside_reason)
         select 'held', worker_id, now(), $1 from signaling.worker where name = $1",
    ] {
        sqlx::query(statement)
            .bind(script)
            .execute(&world.pool)
            .await
            .expect("written");
    }
    id
}

#[tokio::test]
async fn a_payload_is_shown_only_on_request_and_cached_nowhere() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    let message = json!({"payload": "a word for bob", "dedupe_key": "key-of-content"});
    let id = world.insert(peer(message)).await;
    for path in ["/", "/messages", "/failures", &format!("/messages/{id}")] {
        let page = dashboard.get(path).await;
        for secret in ["a word for bob", "key-of-content"] {
            assert!(!page.body.contains(secret), "{path}");
        }
        assert_eq!(page.header("cache-control"), Some("no-store"), "{path}");
    }
    let with_payload = format!("/messages/{id}?payload=1");
    dashboard.shows(&with_payload, &["a word for bob"]).await;
}

#[tokio::test]
async fn the_assets_that_a_page_names_exist() {
    let world = World::new().await;
    let (dashboard, _proxy) = Dashboard::without_database(&world).await;
    let page = dashboard.get("/").await.body;
    for (url, kind) in [
        ("/assets/dashboard.css", "text/css; charset=utf-8"),
        ("/assets/dashboard.js", "text/javascript; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        assert!(page.contains(&format!("=\"{url}\"")), "{page}");
        let asset = dashboard.get(url).await;
        assert_eq!(asset.status, 200, "{url}");
        assert_eq!(asset.header("content-type"), Some(kind));
    }
}

#[tokio::test]
async fn a_wrong_url_gets_a_page_that_explains_the_mistake() {
    let world = World::new().await;
    let dashboard = Dashboard::of(&world).await;
    for (path, status, phrase) in [
        ("/messages/17", 404, "There is no message 17"),
        ("/messages/seventeen", 404, "There is no message seventeen"),
        ("/messages?since=yesterday", 400, "2030-01-31T12:00"),
    ] {
        let page = dashboard.get(path).await;
        assert_eq!(page.status, status, "{path}");
        assert_contains(&page.body, &[phrase]);
    }
}

#[tokio::test]
async fn the_overview_shows_one_backlog_everywhere() {
    let world = World::new().await;
    world.open_lane("default").await;
    world.insert_many(5).await;
    world
        .set_messages(
            "claim_id = gen_random_uuid(), claimed_by = 'w', due_at = now() + interval '1 minute'
             where id <= 2",
        )
        .await;
    let dashboard = Dashboard::of(&world).await;
    count_pending(&world).await;
    let parts = [
        "<dt>Backlog</dt><dd><strong>3</strong>",
        "Now 3, at most 3.",
        ">2<span class=\"unseen\"> sending",
    ];
    dashboard.shows("/", &parts).await;
}

#[tokio::test]
async fn a_retry_warns_if_an_earlier_call_may_have_had_an_effect() {
    const WARNING: &str = "The recipient may get the message twice";
    let world = World::new().await;
    fixtures::messages_of_all_states(&world, 1).await;
    let dashboard = Dashboard::of(&world).await;
    let failed: i64 = world
        .ask("select id from signaling.outbox where status = 'failed'")
        .await;
    let path = format!("/messages/{failed}");
    let rejected = dashboard.shows(&path, &["Retry"]).await;
    assert!(!rejected.contains(WARNING), "{rejected}");
    let ambiguous =
        format!("update signaling.attempt set outcome = 'ambiguous' where message_id = {failed}");
    world.execute(&ambiguous).await;
    dashboard.shows(&path, &[WARNING]).await;
}
