//! A person steps in: by the command line, or by the same functions in SQL.

use std::time::Duration;

use serde_json::{Value, json};

use super::{fleet, lane};
use crate::harness::{APP_ID, Finished, PATIENCE, Worker, World, peer};

/// A command of somebody called olga.
fn olga(world: &World, arguments: &[&str]) -> Worker {
    world.command(arguments).env("USER", "olga")
}

/// What a command prints that does what it is asked for.
async fn done(world: &World, arguments: &[&str]) -> String {
    let finished = olga(world, arguments).finish().await;
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished.stdout
}

async fn ends_with(world: &World, arguments: &[&str], code: i32, phrases: &[&str]) -> Finished {
    let finished = olga(world, arguments).finish().await;
    assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
    for phrase in phrases {
        assert!(
            finished.stderr.contains(phrase),
            "{phrase:?} is missing: {arguments:?}: {finished:?}"
        );
    }
    finished
}

async fn status(world: &World) -> (String, Value) {
    let json = done(world, &["status", "--json"]).await;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    (done(world, &["status"]).await, json[0]["lane"].clone())
}

/// A lane without a worker.
async fn open_lane(world: &World, app: &str) {
    world
        .execute(&format!(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
             values ('{app}', 100, 100, signaling.slot_rate(100))"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_the_calls_of_the_whole_fleet_and_resume_goes_on() {
    let world = World::new().await;
    let _fleet = fleet(3, || world.worker().env("WORKER_RATE", "100")).await;
    world.insert_many(200).await;
    world.until_accepted(50).await;
    let pause = ["pause", "default", "--reason", "the vendor is down"];
    assert_eq!(done(&world, &pause).await, "default is paused\n");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = world.seen().calls;
    assert!(calls < 200, "it was too late for this test");
    world.insert(peer(json!({"payload": "new"}))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.seen().calls, calls, "calls of a paused app");
    assert_eq!(
        world
            .count("claim_id is not null and status = 'pending'")
            .await,
        0,
        "what was not sent went back"
    );
    assert_eq!(world.count("status = 'pending' and attempts > 0").await, 0);

    let (text, shown) = status(&world).await;
    assert!(
        text.contains("paused by olga@") && text.contains(": the vendor is down"),
        "{text}"
    );
    assert!(
        shown["paused_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("olga@")),
        "{shown}"
    );
    assert_eq!(shown["pause_reason"], "the vendor is down");
    let paused_at: String = lane(
        &world,
        "to_char(paused_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')",
    )
    .await;
    assert!(
        shown["paused_at"]
            .as_str()
            .is_some_and(|at| at.starts_with(&paused_at)),
        "{shown}"
    );
    assert!(text.contains(&format!("since {paused_at}Z")), "{text}");

    // Again is no news, and who paused it first is who paused it.
    let again = done(&world, &["pause", "default", "--reason", "me too"]).await;
    assert!(again.contains("paused already"), "{again}");
    assert!(
        !world
            .ask::<bool>("select signaling.pause('default', 'and me')")
            .await
    );
    assert_eq!(
        lane::<String>(&world, "pause_reason").await,
        "the vendor is down"
    );

    assert_eq!(
        done(&world, &["resume", "default"]).await,
        "default sends again\n"
    );
    world.until_all_final().await;
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        201
    );
    assert_eq!(
        done(&world, &["resume", "default"]).await,
        "default was not paused\n"
    );
    assert!(
        !world
            .ask::<bool>("select signaling.resume('default')")
            .await
    );
    let (text, shown) = status(&world).await;
    assert!(!text.contains("paused"), "{text}");
    assert_eq!(
        (
            &shown["paused_at"],
            &shown["paused_by"],
            &shown["pause_reason"]
        ),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn an_idle_worker_learns_at_once_that_its_app_was_resumed() {
    let world = World::new().await;
    let _worker = world.worker().env("WORKER_POLL", "60s").start();
    world.until_asleep().await;
    assert!(world.ask::<bool>("select signaling.pause('default')").await);
    let by: String = lane(&world, "paused_by").await;
    assert_eq!(by, world.ask::<String>("select session_user::text").await);
    let id = world.insert(peer(json!({}))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.row(id).await.status, "pending");
    let resumed = std::time::Instant::now();
    assert!(
        world
            .ask::<bool>("select signaling.resume('default')")
            .await
    );
    world.until_final(id).await;
    assert!(
        resumed.elapsed() < Duration::from_secs(5),
        "sent {:?} later",
        resumed.elapsed()
    );
}

#[tokio::test]
async fn a_paused_app_stays_paused_over_a_restart_and_its_messages_expire() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    world.until_asleep().await;
    world.execute("select signaling.pause('default')").await;
    worker.stop().await;
    let kept = world.insert(peer(json!({}))).await;
    let worker = world.worker().start();
    worker.until_logged("worker started").await;
    let expiring = world
        .insert(peer(json!({"expires_at": world.time_in(300).await})))
        .await;
    assert_eq!(world.until_final(expiring).await.status, "expired");
    assert_eq!(world.row(kept).await.status, "pending");
    assert_eq!(world.seen().calls, 0);
    world.execute("select signaling.resume('default')").await;
    assert_eq!(world.until_final(kept).await.status, "message_sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_changes_the_pace_of_running_workers_and_outlasts_them() {
    let world = World::new().await;
    let mut workers = fleet(2, || world.worker().env("WORKER_RATE", "200")).await;
    world.insert_many(800).await;
    world.until_accepted(50).await;
    let said = done(&world, &["limit", "default", "50"]).await;
    assert_eq!(said, "the limit of default is now 50 calls/s\n");
    let from = world.seen().apps[APP_ID].last_at_us + 500_000;
    let enough = |summary: &signaling_worker::simulator::Summary| {
        summary.apps[APP_ID].last_at_us > from + 2_000_000
    };
    world
        .simulator
        .ledger()
        .wait_until(PATIENCE, enough)
        .await
        .expect("calls");
    let in_two_seconds = world
        .simulator
        .ledger()
        .calls()
        .iter()
        .filter(|call| (from..from + 2_000_000).contains(&call.at_us))
        .count();
    assert!(
        (50..=102).contains(&in_two_seconds),
        "{in_two_seconds} calls in two seconds"
    );
    let again = done(&world, &["limit", "default", "50"]).await;
    assert_eq!(again, "the limit of default was already 50 calls/s\n");
    assert!(
        !world
            .ask::<bool>("select signaling.set_limit('default', 50)")
            .await
    );

    for worker in &mut workers {
        worker.stop().await;
    }
    let _worker = fleet(1, || world.worker().env("WORKER_RATE", "400")).await;
    let limits =
        "array[limit_per_s, configured_per_s, round((rate_per_s * 1.02)::numeric, 6)]::float8[]";
    assert_eq!(lane::<Vec<f64>>(&world, limits).await, [50.0, 400.0, 50.0]);
    let (text, shown) = status(&world).await;
    assert!(text.contains("limit 50 calls/s, set by olga@"), "{text}");
    assert_eq!(shown["limit_per_s"], 50.0);
    assert!(
        shown["limit_set_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("olga@")),
        "{shown}"
    );
    assert!(lane::<bool>(&world, "limit_set_at > now() - interval '1 minute'").await);

    let before = world.count("status = 'pending'").await;
    assert!(before > 300, "{before} are left");
    let restored = done(&world, &["limit", "default", "configured"]).await;
    assert_eq!(restored, "the limit of default is now the configured one\n");
    let begun = std::time::Instant::now();
    world.until_all_final().await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{before} messages in {:?}",
        begun.elapsed()
    );
    assert_eq!(
        lane::<Vec<f64>>(&world, limits).await,
        [400.0, 400.0, 400.0]
    );
    assert!(lane::<bool>(&world, "limit_set_by is null and limit_set_at is null").await);
    let again = done(&world, &["limit", "default", "configured"]).await;
    assert_eq!(
        again,
        "the limit of default was already the configured one\n"
    );
    assert!(
        !world
            .ask::<bool>("select signaling.set_limit('default', null)")
            .await
    );
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        800
    );
}

#[tokio::test]
async fn a_limit_that_is_none_is_refused() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    for limit in ["0", "-5", "0.5", "1000001", "NaN", "inf", "fast"] {
        ends_with(
            &world,
            &["limit", "default", "--", limit],
            2,
            &["1,000,000"],
        )
        .await;
    }
    for limit in ["0", "-5", "0.5", "1000001", "'NaN'", "'Infinity'"] {
        let refused = sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(format!(
            "select signaling.set_limit('default', {limit})"
        )))
        .fetch_one(&world.pool)
        .await
        .expect_err(limit);
        assert!(refused.to_string().contains("limit_per_s"), "{refused}");
    }
    assert!(lane::<bool>(&world, "limit_per_s = 100").await);
}

#[tokio::test]
async fn a_lane_that_a_429_has_slowed_climbs_on_when_its_limit_changes() {
    let world = World::new().await;
    open_lane(&world, "default").await;
    world
        .execute("update signaling.lane set rate_per_s = 20, rate_at = clock_timestamp()")
        .await;
    world
        .execute("select signaling.set_limit('default', 400)")
        .await;
    let rate: f64 = lane(&world, "rate_per_s").await;
    assert!((20.0..30.0).contains(&rate), "{rate}");
    world
        .execute("select signaling.set_limit('default', 10)")
        .await;
    let rate: f64 = lane(&world, "rate_per_s").await;
    assert!((rate - 10.0 / 1.02).abs() < 1e-6, "{rate}");
}

#[tokio::test]
async fn an_unknown_app_is_an_error_that_lists_the_apps() {
    let world = World::new().await;
    for arguments in [
        &["pause", "nobody"][..],
        &["resume", "nobody"],
        &["limit", "nobody", "5"],
    ] {
        ends_with(
            &world,
            arguments,
            1,
            &["there is no app 'nobody'", "no worker has been started yet"],
        )
        .await;
    }
    open_lane(&world, "one").await;
    open_lane(&world, "two").await;
    for arguments in [
        &["pause", "nobody"][..],
        &["resume", "nobody"],
        &["limit", "nobody", "5"],
    ] {
        ends_with(
            &world,
            arguments,
            1,
            &["there is no app 'nobody'", "the apps are: one, two"],
        )
        .await;
    }
    for call in [
        "pause('nobody')",
        "resume('nobody')",
        "set_limit('nobody', 5)",
        "pause(null)",
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!("select signaling.{call}")))
            .execute(&world.pool)
            .await
            .expect_err(call);
        assert!(refused.to_string().contains("there is no app"), "{refused}");
    }
}

/// Finished messages of many kinds, by what they are called.
async fn finished_messages(world: &World) {
    for (name, columns) in [
        (
            "old",
            "status = 'failed', finished_at = '2020-01-01Z', http_status = 400, error = 'HTTP 400: illegal name'",
        ),
        (
            "new",
            "status = 'failed', finished_at = '2021-01-01Z', http_status = 500, error = 'HTTP 500: busy'",
        ),
        (
            "unanswered",
            "status = 'failed', finished_at = '2021-06-01Z', error = 'connection refused'",
        ),
        (
            "foreign",
            "status = 'failed', finished_at = '2021-01-01Z', http_status = 404, error = 'HTTP 404', app = 'other'",
        ),
        (
            "late",
            "status = 'expired', finished_at = '2021-01-01Z', expires_at = '2020-12-31Z', error = 'not sent before its expires_at'",
        ),
        (
            "unwanted",
            "status = 'cancelled', finished_at = '2021-01-01Z'",
        ),
        (
            "doubtful",
            "status = 'unknown', finished_at = '2021-01-01Z', at_most_once = true",
        ),
        (
            "sent",
            "status = 'message_sent', finished_at = '2021-01-01Z', sent_at = '2021-01-01Z'",
        ),
        ("waiting", "due_at = '2100-01-01Z'"),
    ] {
        let id = world.insert(peer(json!({"payload": name}))).await;
        world
            .execute(&format!(
                "update signaling.outbox set attempts = 10, {columns} where id = {id}"
            ))
            .await;
    }
    open_lane(world, "default").await;
    open_lane(world, "other").await;
}

/// What is pending, but for what has always been.
async fn pending(world: &World) -> Vec<String> {
    world
        .ask(
            "select coalesce(array_agg(payload order by payload), '{}') from signaling.outbox
             where status = 'pending' and payload <> 'waiting'",
        )
        .await
}

/// The flags of `worker retry`, the arguments of `signaling.retry()`, and the messages that they are about.
const FILTERS: &[(&str, &str, &[&str])] = &[
    ("", "", &["foreign", "new", "old", "unanswered"]),
    (
        "--app default",
        "app => 'default'",
        &["new", "old", "unanswered"],
    ),
    ("--app other", "'other'", &["foreign"]),
    (
        "--since 2021-01-01T00:00:00Z",
        "since => '2021-01-01Z'",
        &["foreign", "new", "unanswered"],
    ),
    (
        "--until 2021-01-01T00:00:00Z",
        "until => '2021-01-01Z'",
        &["old"],
    ),
    (
        "--since 2021-01-01T01:00:00+01:00 --until 2021-02-01T00:00:00Z",
        "since => '2021-01-01Z', until => '2021-02-01Z'",
        &["foreign", "new"],
    ),
    (
        "--status expired",
        "statuses => array['expired']",
        &["late"],
    ),
    (
        "--status cancelled --status unknown",
        "statuses => array['cancelled', 'unknown']",
        &["doubtful", "unwanted"],
    ),
    ("--error %illegal%", "error_like => '%illegal%'", &["old"]),
    ("--error illegal", "error_like => 'illegal'", &[]),
    (
        "--http-status 400 --http-status 404",
        "http_statuses => array[400, 404]",
        &["foreign", "old"],
    ),
    ("--id 1", "ids => array[1]", &["old"]),
    ("--id 1 --id 2", "ids => array[1, 2]", &["new", "old"]),
    // It succeeded.
    ("--id 8", "ids => array[8]", &[]),
    (
        "--app default --http-status 500 --error %busy",
        "'default', http_statuses => array[500], error_like => '%busy'",
        &["new"],
    ),
];

/// How many messages `worker retry` says that it is about.
async fn messages(world: &World, arguments: &[&str]) -> usize {
    let said = done(world, arguments).await;
    let number = said
        .split_once(" message")
        .and_then(|(number, _)| number.parse().ok());
    number.unwrap_or_else(|| panic!("{arguments:?} says {said}"))
}

#[tokio::test]
async fn retry_takes_what_it_is_asked_for_and_a_dry_run_only_counts() {
    let world = World::new().await;
    finished_messages(&world).await;
    world
        .execute(
            "create table public.before as select * from signaling.outbox;
             alter table signaling.outbox disable trigger message_is_inserted_as_pending",
        )
        .await;
    let as_before = "truncate signaling.outbox cascade;
         insert into signaling.outbox overriding system value select * from public.before";
    for (flags, arguments, expected) in FILTERS {
        let count = expected.len();
        let command = ["retry"].into_iter().chain(flags.split_whitespace());
        let retry: Vec<_> = command.clone().collect();
        let dry_run: Vec<_> = command.chain(["--dry-run"]).collect();
        assert_eq!(messages(&world, &dry_run).await, count, "{flags}");
        assert_eq!(pending(&world).await, [""; 0], "a dry run changes nothing");
        assert_eq!(messages(&world, &retry).await, count, "{flags}");
        assert_eq!(pending(&world).await, *expected, "{flags}");
        let again = messages(&world, &retry).await;
        assert_eq!(again, 0, "{flags}: once is enough");
        world.execute(as_before).await;

        let count = i64::try_from(count).expect("few");
        let comma = if arguments.is_empty() { "" } else { ", " };
        let dry_run = format!("select signaling.retry({arguments}{comma}dry_run => true)");
        assert_eq!(world.ask::<i64>(&dry_run).await, count, "{dry_run}");
        assert_eq!(pending(&world).await, [""; 0], "a dry run changes nothing");
        let retry = format!("select signaling.retry({arguments})");
        assert_eq!(world.ask::<i64>(&retry).await, count, "{retry}");
        assert_eq!(pending(&world).await, *expected, "{retry}");
        assert_eq!(world.ask::<i64>(&retry).await, 0, "{retry}");
        world.execute(as_before).await;
    }
}

#[tokio::test]
async fn a_message_that_is_sent_again_has_all_its_attempts_and_no_expiry_that_is_over() {
    let world = World::new().await;
    finished_messages(&world).await;
    let all = "array['failed', 'expired', 'cancelled', 'unknown']";
    assert_eq!(
        world
            .ask::<i64>(&format!(
                "select signaling.retry(statuses => {all}, max_rows => 2)"
            ))
            .await,
        2
    );
    assert_eq!(
        world
            .ask::<i64>(&format!(
                "select signaling.retry(statuses => {all}, max_rows => 100)"
            ))
            .await,
        5
    );
    assert_eq!(
        world
            .count(
                "status = 'pending' and attempts = 0 and finished_at is null and claim_id is null
                 and due_at <= now() and expires_at is null"
            )
            .await,
        7
    );
    world
        .execute("update signaling.outbox set app = 'default'")
        .await;
    let _worker = world.worker().start();
    world
        .until("all are sent", PATIENCE, async || {
            world
                .count("status = 'message_sent' and attempts = 1")
                .await
                == 7
        })
        .await;
    assert_eq!(world.seen().calls, 7);
}

#[tokio::test]
async fn messages_that_succeeded_or_are_not_finished_can_not_be_sent_again() {
    let world = World::new().await;
    finished_messages(&world).await;
    for status in [
        "message_sent",
        "message_delivered",
        "message_offline",
        "pending",
        "nonsense",
    ] {
        ends_with(&world, &["retry", "--status", status], 2, &[status]).await;
        let refused = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select signaling.retry(statuses => array['failed', '{status}'])"
        )))
        .execute(&world.pool)
        .await
        .expect_err(status);
        assert!(
            refused.to_string().contains("can be sent again"),
            "{refused}"
        );
    }
    assert_eq!(pending(&world).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_sent_again_keep_the_pace() {
    let world = World::new().await;
    world.insert_many(200).await;
    world
        .execute("update signaling.outbox set status = 'failed', attempts = 10, sent_at = now(), finished_at = now()")
        .await;
    let _fleet = fleet(2, || world.worker().env("WORKER_RATE", "100")).await;
    world.until_asleep().await;
    let retried = messages(&world, &["retry", "--app", "default"]).await;
    assert_eq!(retried, 200);
    world.until_all_final().await;
    assert_eq!(
        world
            .count("status = 'message_sent' and attempts = 1")
            .await,
        200
    );
    let starts: i64 = world
        .ask("select signaling.peak_rate('default', now() - interval '1 minute', now())")
        .await;
    assert!(starts <= 100, "{starts} calls in a second");
    assert_eq!(world.seen().apps[APP_ID].by_status.get(&200), Some(&200));
}

#[tokio::test]
async fn cancel_says_of_each_message_whether_it_did() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(world.insert(peer(json!({}))).await.to_string());
    }
    let said = done(&world, &["cancel", &ids[0], &ids[1]]).await;
    assert_eq!(
        said,
        format!("{} cancelled\n{} cancelled\n", ids[0], ids[1])
    );
    assert_eq!(world.count("status = 'cancelled'").await, 2);
    let other = world.insert(peer(json!({}))).await.to_string();
    let finished = ends_with(
        &world,
        &["cancel", &ids[0], &other, "4711"],
        1,
        &["cancelled"],
    )
    .await;
    for line in [
        format!("{} not cancelled", ids[0]),
        format!("{other} cancelled"),
        "4711 not cancelled".to_owned(),
    ] {
        assert!(finished.stdout.contains(&line), "{finished:?}");
    }
    assert_eq!(world.count("status = 'cancelled'").await, 3);
}
