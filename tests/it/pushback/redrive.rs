//! `worker retry` and `signaling.retry`: an operator sends finished messages again.

use harness::{World, assert_contains, peer};
use serde_json::json;
use sqlx::AssertSqlSafe;

/// The name and the columns of finished messages, and of one that waits.
const MESSAGES: [&str; 9] = [
    "old: status = 'failed', finished_at = '2020-01-01Z', http_status = 400, error = 'HTTP 400: illegal name'",
    "new: status = 'failed', finished_at = '2021-01-01Z', http_status = 500, error = 'HTTP 500: busy'",
    "unanswered: status = 'failed', finished_at = '2021-06-01Z', error = 'connection refused'",
    "foreign: status = 'failed', finished_at = '2021-01-01Z', http_status = 404, error = 'HTTP 404', app = 'other'",
    "late: status = 'expired', finished_at = '2021-01-01Z', expires_at = '2020-12-31Z', error = 'not sent'",
    "unwanted: status = 'cancelled', finished_at = '2021-01-01Z'",
    "doubtful: status = 'unknown', finished_at = '2021-01-01Z', at_most_once = true",
    "sent: status = 'message_sent', finished_at = '2021-01-01Z', sent_at = '2021-01-01Z'",
    "waiting: due_at = '2100-01-01Z'",
];

/// Inserts the messages. The payload is the name.
async fn insert_messages(world: &World) {
    for message in MESSAGES {
        let (name, columns) = message.split_once(": ").expect("a name");
        let id = world.insert(peer(json!({"payload": name}))).await;
        let change = format!("attempts = 10, {columns} where id = {id}");
        world.set_messages(&change).await;
    }
    world.open_lane("default").await;
    world.open_lane("other").await;
}

/// The names of the pending messages without the one that was pending from the start.
async fn pending(world: &World) -> Vec<String> {
    world
        .ask(
            "select coalesce(array_agg(payload order by payload), '{}') from signaling.outbox
             where status = 'pending' and payload <> 'waiting'",
        )
        .await
}

/// Flags of `worker retry`, the same filter as arguments of `signaling.retry()`, and the messages that it chooses.
/// Message 8 was sent, so no filter chooses it.
const FILTERS: &str = "
    --all | | foreign new old unanswered
    --app default | app => 'default' | new old unanswered
    --app other | 'other' | foreign
    --since 2021-01-01T00:00:00Z | since => '2021-01-01Z' | foreign new unanswered
    --until 2021-01-01T00:00:00Z | until => '2021-01-01Z' | old
    --since 2021-01-01T01:00:00+01:00 --until 2021-02-01T00:00:00Z | since => '2021-01-01Z', until => '2021-02-01Z' | foreign new
    --status expired | statuses => array['expired'] | late
    --status cancelled --status unknown | statuses => array['cancelled', 'unknown'] | doubtful unwanted
    --error %illegal% | error_like => '%illegal%' | old
    --error illegal | error_like => 'illegal' |
    --http-status 400 --http-status 404 | http_statuses => array[400, 404] | foreign old
    --id 1 | ids => array[1] | old
    --id 1 --id 2 | ids => array[1, 2] | new old
    --id 8 | ids => array[8] |
    --app default --http-status 500 --error %busy | 'default', http_statuses => array[500], error_like => '%busy' | new";

/// The number of messages that `worker retry` reports.
async fn messages(world: &World, arguments: &[&str]) -> usize {
    let said = world.run(arguments).await;
    if said.contains("no message is due again") {
        return 0;
    }
    // The command prints a line for each app.
    let counted = said.lines().filter_map(|line| line.split_once(" message"));
    let numbers: Vec<usize> = counted
        .filter_map(|(number, _)| number.parse().ok())
        .collect();
    assert!(!numbers.is_empty(), "{arguments:?} says {said}");
    numbers.iter().sum()
}

/// The number of messages that `signaling.retry` reports.
async fn retried(world: &World, arguments: &str) -> usize {
    let retry =
        format!("select coalesce(sum(messages), 0)::bigint from signaling.retry({arguments})");
    usize::try_from(world.ask::<i64>(&retry).await).expect("a count")
}

#[tokio::test]
async fn retry_chooses_the_messages_of_its_filter_and_a_dry_run_only_counts() {
    let world = World::new().await;
    insert_messages(&world).await;
    world
        .execute(
            "create table public.before as select * from signaling.outbox;
             alter table signaling.outbox disable trigger check_message",
        )
        .await;
    let as_before = "truncate signaling.outbox cascade;
         insert into signaling.outbox overriding system value select * from public.before";
    for line in FILTERS.lines().skip(1) {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [flags, arguments, expected] = columns[..] else {
            panic!("three columns: {line}");
        };
        let expected: Vec<_> = expected.split_whitespace().collect();
        let count = expected.len();
        let command = ["retry"].into_iter().chain(flags.split_whitespace());
        let retry: Vec<_> = command.clone().collect();
        let dry_run: Vec<_> = command.chain(["--dry-run"]).collect();
        assert_eq!(messages(&world, &dry_run).await, count, "{flags}");
        assert_eq!(pending(&world).await, [""; 0], "a dry run changes nothing");
        assert_eq!(messages(&world, &retry).await, count, "{flags}");
        assert_eq!(pending(&world).await, expected, "{flags}");
        let again = messages(&world, &retry).await;
        assert_eq!(again, 0, "{flags}: the messages are pending already");
        world.execute(as_before).await;

        let comma = if arguments.is_empty() { "" } else { ", " };
        let dry_run = format!("{arguments}{comma}dry_run => true");
        assert_eq!(retried(&world, &dry_run).await, count, "{dry_run}");
        assert_eq!(pending(&world).await, [""; 0], "a dry run changes nothing");
        assert_eq!(retried(&world, arguments).await, count, "{arguments}");
        assert_eq!(pending(&world).await, expected, "{arguments}");
        assert_eq!(retried(&world, arguments).await, 0, "{arguments}");
        world.execute(as_before).await;
    }
}

#[tokio::test]
async fn a_message_that_is_sent_again_has_all_attempts_and_no_past_expiry() {
    let world = World::new().await;
    insert_messages(&world).await;
    let all = "array['failed', 'expired', 'cancelled', 'unknown']";
    for (max_rows, expected) in [(2, 2), (100, 5)] {
        let arguments = format!("statuses => {all}, max_rows => {max_rows}");
        assert_eq!(retried(&world, &arguments).await, expected);
    }
    let as_new = "status = 'pending' and attempts = 0 and finished_at is null and claim_id is null
                  and due_at <= now() and expires_at is null";
    assert_eq!(world.count(as_new).await, 7);
    world.set_messages("app = 'default'").await;
    let _worker = world.worker().start();
    world
        .until_count(7, "status = 'message_sent' and attempts = 1")
        .await;
    assert_eq!(world.seen().calls, 7);
}

#[tokio::test]
async fn messages_that_succeeded_or_are_not_finished_can_not_be_sent_again() {
    let world = World::new().await;
    insert_messages(&world).await;
    for status in [
        "message_sent",
        "message_delivered",
        "message_offline",
        "pending",
        "nonsense",
    ] {
        let command = world.command(&["retry", "--status", status]);
        command.fails(2, &[status]).await;
        let retry = format!("select signaling.retry(statuses => array['failed', '{status}'])");
        let retried = sqlx::query(AssertSqlSafe(retry)).execute(&world.pool).await;
        let refused = retried.expect_err(status).to_string();
        assert_contains(&refused, &["can be sent again"]);
    }
    assert_eq!(pending(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_time_range_without_a_moment_is_refused() {
    let world = World::new().await;
    let phrase = "--since 2100-01-01T00:00:00Z is not before 20";
    let future = ["retry", "--since", "2100-01-01"];
    world.command(&future).fails(2, &[phrase]).await;
    let day = "2026-02-01";
    let empty = ["retry", "--dry-run", "--since", day, "--until", day];
    let phrase = "--since 2026-02-01T00:00:00Z is not before 2026-02-01T00:00:00Z";
    world.command(&empty).fails(2, &[phrase]).await;
}
