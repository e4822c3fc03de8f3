//! `signaling_producer::enqueue`

use std::collections::BTreeSet;

use serde_json::{Value, json};
use signaling_producer::{EnqueueError, NewMessage, enqueue};
use sqlx::{Acquire, Connection, PgConnection, Postgres};
use time::macros::datetime;

use harness::{World, execute};

fn message(payload: &str) -> NewMessage {
    NewMessage::to_peer("alice", "bob", payload)
}

fn keyed(key: &str) -> NewMessage {
    NewMessage {
        dedupe_key: Some(key.to_owned()),
        ..message(key)
    }
}

fn changed(mut message: NewMessage, change: impl FnOnce(&mut NewMessage)) -> NewMessage {
    change(&mut message);
    message
}

fn numbered(count: usize) -> Vec<NewMessage> {
    (0..count).map(|n| message(&format!("m{n}"))).collect()
}

async fn inserted<'a, 'c, A>(database: A, messages: &'a [NewMessage]) -> Vec<Option<i64>>
where
    A: Acquire<'c, Database = Postgres> + Send + 'a,
{
    enqueue(database, messages).await.expect("inserted")
}

/// The constraint that refuses a message.
fn constraint(refused: Result<Vec<Option<i64>>, EnqueueError>) -> String {
    match refused {
        Err(EnqueueError::Refused { constraint }) => constraint,
        other => panic!("not refused by a constraint: {other:?}"),
    }
}

/// The columns of a row that the producer wrote.
async fn written_columns(world: &World, id: i64) -> Value {
    let row: String = world
        .ask(&format!(
            "select (to_jsonb(outbox) - array['id', 'due_at', 'expires_at', 'created_at'])::text
             from signaling.outbox where id = {id}"
        ))
        .await;
    serde_json::from_str(&row).expect("JSON")
}

#[tokio::test]
async fn a_message_exists_if_the_transaction_commits_and_not_after_a_rollback() {
    let world = World::new().await;
    for count in [1, 1_500] {
        let mut transaction = world.pool.begin().await.expect("begun");
        let ids = inserted(&mut transaction, &numbered(count)).await;
        assert_eq!(ids.len(), count);
        transaction.rollback().await.expect("rolled back");
        assert_eq!(world.count("true").await, 0);
    }

    let mut transaction = world.pool.begin().await.expect("begun");
    let ids = inserted(&mut *transaction, &[message("hi")]).await;
    assert_eq!(world.count("true").await, 0);
    transaction.commit().await.expect("committed");
    let id = ids[0].expect("an id");
    let _worker = world.worker().start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.calls_of("hi").len(), 1);
}

#[tokio::test]
async fn thousands_of_messages_are_inserted_in_order_with_their_ids() {
    let world = World::new().await;
    assert_eq!(inserted(&world.pool, &[]).await, []);
    let pool = world.pool.clone();
    // An application may insert in a task of its own.
    let task = tokio::spawn(async move { inserted(&pool, &numbered(4_321)).await });
    let ids = task.await.expect("done").into_iter();
    let ids: Vec<i64> = ids.map(|id| id.expect("an id")).collect();
    assert!(ids.is_sorted());
    let there: Vec<(i64, String)> =
        sqlx::query_as("select id, payload from signaling.outbox order by id")
            .fetch_all(&world.pool)
            .await
            .expect("rows");
    let payloads = (0..4_321).map(|n| format!("m{n}"));
    assert_eq!(there, ids.into_iter().zip(payloads).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_refused_message_rejects_the_whole_call_and_is_named() {
    let world = World::new().await;
    world
        .execute("alter table signaling.outbox add constraint payload_is_not_polite check (payload <> 'hey')")
        .await;
    for count in [10, 2_500] {
        let mut messages = numbered(count);
        messages.push(message("hey"));
        let mut connection = world.pool.acquire().await.expect("a connection");
        let refused = enqueue(&mut *connection, &messages).await;
        assert_eq!(constraint(refused), "payload_is_not_polite");
        assert_eq!(world.count("true").await, 0);
    }
    // The caller's own savepoint keeps its transaction usable.
    let mut transaction = world.pool.begin().await.expect("begun");
    let mut savepoint = transaction.begin().await.expect("a savepoint");
    constraint(enqueue(&mut savepoint, &[message("hey")]).await);
    savepoint.rollback().await.expect("rolled back");
    inserted(&mut *transaction, &[message("hello")]).await;
    transaction.commit().await.expect("committed");
    assert_eq!(world.count("payload = 'hello'").await, 1);
}

#[tokio::test]
async fn a_forbidden_value_is_refused_and_the_error_names_the_mistake() {
    let world = World::new().await;
    let due_at = |due_at| changed(message("hi"), |message| message.due_at = Some(due_at));
    let channel = NewMessage::to_channel("alice", "lobby", "hi");
    let mut to_both = channel.clone();
    to_both.destination = Some("bob".into());
    for (forbidden, name) in [
        (message(""), "payload_is_empty"),
        (
            changed(message("hi"), |message| message.sender = "a/b".into()),
            "sender_has_a_forbidden_character",
        ),
        (to_both, "both_destination_and_channel_name_are_given"),
        (
            changed(channel, |message| message.wait_for_ack = true),
            "wait_for_ack_is_for_peer_messages_only",
        ),
        (
            due_at(datetime!(9999-12-31 23:59:59 -05:00)),
            "due_at_is_before_year_1_or_after_year_9999",
        ),
    ] {
        assert_eq!(constraint(enqueue(&world.pool, &[forbidden]).await), name);
    }
    // Neither is a value of a column.
    for impossible in [
        due_at(datetime!(0000-12-31 23:59:59 UTC)),
        due_at(datetime!(-4714-01-01 00:00 UTC)),
    ] {
        let refused = enqueue(&world.pool, &[impossible]).await;
        assert!(
            matches!(refused, Err(EnqueueError::Database(_))),
            "{refused:?}"
        );
    }
    assert_eq!(world.count("true").await, 0);
}

/// Postgres would quote a part of the text in its error and in its log.
#[tokio::test]
async fn enqueue_refuses_nul_and_too_many_messages_without_a_statement() {
    let world = World::new().await;
    let of = |change: fn(&mut NewMessage)| {
        let mut changed = message("secret thoughts");
        change(&mut changed);
        changed
    };
    for (column, with_nul) in [
        ("app", of(|m| m.app = Some("a\0b".into()))),
        ("sender", of(|m| m.sender = "a\0b".into())),
        ("destination", of(|m| m.destination = Some("\0".into()))),
        ("channel_name", of(|m| m.channel_name = Some("\0".into()))),
        ("payload", of(|m| m.payload.push('\0'))),
        ("dedupe_key", of(|m| m.dedupe_key = Some("a\0".into()))),
        ("traceparent", of(|m| m.traceparent = Some("\0a".into()))),
    ] {
        let mut transaction = world.pool.begin().await.expect("begun");
        let refused = enqueue(&mut transaction, &[with_nul]).await;
        let error = refused.expect_err("refused");
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{error:?}"
        );
        let is_named = matches!(error, EnqueueError::Nul { column: named } if named == column);
        assert!(is_named, "{column}: {error:?}");
        // No statement failed, so the transaction goes on.
        enqueue(&mut transaction, &[message("hi")])
            .await
            .expect("inserted");
    }
    let refused = enqueue(&world.pool, &numbered(5_001)).await;
    let error = refused.expect_err("too many").to_string();
    assert!(
        error.contains("5001 messages are more than the 5000"),
        "{error}"
    );
    let ids = enqueue(&world.pool, &numbered(5_000)).await;
    assert_eq!(ids.expect("inserted").len(), 5_000);
    assert_eq!(world.count("true").await, 5_000);
}

#[tokio::test]
async fn a_message_with_a_known_key_has_no_id() {
    let world = World::new().await;
    let of_app = |key| changed(keyed(key), |message| message.app = Some("news".to_owned()));
    let first = [
        keyed("one"),
        message("x"),
        keyed("one"),
        of_app("one"),
        keyed("two"),
    ];
    let again = [keyed("two"), keyed("three"), message("y"), of_app("one")];
    for (messages, payloads) in [
        (&first[..], &["one", "x", "", "one", "two"][..]),
        (&again, &["", "three", "y", ""]),
    ] {
        for (id, payload) in inserted(&world.pool, messages).await.iter().zip(payloads) {
            assert_eq!(id.is_some(), !payload.is_empty(), "{payload}");
            if let Some(id) = id {
                assert_eq!(written_columns(&world, *id).await["payload"], *payload);
            }
        }
    }
    assert_eq!(world.count("true").await, 6);

    // Across statements of one call, too.
    let mut many = numbered(1_200);
    many.insert(0, keyed("four"));
    many.push(keyed("four"));
    let ids = inserted(&world.pool, &many).await;
    assert!(ids[0].is_some());
    assert_eq!(ids.last(), Some(&None));
    assert_eq!(ids.iter().flatten().count(), 1_201);
}

#[tokio::test]
async fn every_column_arrives_and_other_columns_have_their_defaults() {
    let world = World::new().await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let full = NewMessage {
        app: Some("news".to_owned()),
        wait_for_ack: true,
        enable_offline_messaging: true,
        enable_historical_messaging: true,
        due_at: Some(datetime!(2030-01-31 12:00 UTC)),
        expires_at: Some(datetime!(2031-01-31 12:00 +1)),
        max_attempts: Some(3),
        at_most_once: true,
        traceparent: Some(traceparent.to_owned()),
        ..keyed("k")
    };
    let channel = NewMessage::to_channel("alice", "lobby", "Hello all");
    let ids = inserted(&world.pool, &[full, channel]).await;
    let [Some(full), Some(channel)] = ids[..] else {
        panic!("two ids: {ids:?}");
    };
    let expected = json!({
        "app": "news", "sender": "alice", "destination": "bob", "channel_name": null, "payload": "k",
        "wait_for_ack": true, "enable_offline_messaging": true, "enable_historical_messaging": true,
        "max_attempts": 3, "at_most_once": true, "dedupe_key": "k",
        "traceparent": traceparent,
    });
    let columns = written_columns(&world, full).await;
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(columns[column], *value, "{column}");
    }
    let times = "due_at = '2030-01-31 12:00Z' and expires_at = '2031-01-31 11:00Z'";
    assert_eq!(world.count(times).await, 1);

    let plain = world
        .insert(json!({"sender": "alice", "channel_name": "lobby", "payload": "Hello all"}))
        .await;
    let found = written_columns(&world, channel).await;
    assert_eq!(found, written_columns(&world, plain).await);
    let times = format!("id = {channel} and due_at = created_at and expires_at is null");
    assert_eq!(world.count(&times).await, 1);
}

/// Objects in the schemas of an application never replace those of the library.
#[tokio::test]
async fn the_applications_search_path_changes_nothing() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(&world.url).await.expect("connected");
    execute(
            &mut connection,
            "create schema shop;
             create table shop.outbox (id bigint);
             create function shop.now() returns timestamptz language sql as 'select timestamptz ''epoch''';
             create function shop.unnest(pg_catalog.text[]) returns setof pg_catalog.text language sql as 'select null';
             create domain shop.text as pg_catalog.int4;
             create domain shop.int4 as pg_catalog.text;
             create domain shop.timestamptz as pg_catalog.bool;
             set search_path = shop, pg_catalog",
        )
        .await;
    let ids = inserted(&mut connection, &[message("hi"), keyed("k")]).await;
    assert_eq!(ids.iter().flatten().count(), 2);
    assert_eq!(world.count("due_at = created_at").await, 2);
}

#[test]
fn the_library_depends_on_no_server_client_or_command_line() {
    let crates_of = |package: &str| {
        let mut tree = std::process::Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "--offline", "--package", package])
            .args(["--edges", "normal", "--prefix", "none"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = tree.output().expect("cargo runs");
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        let names = lines.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (library, worker) = (
        crates_of("signaling-producer"),
        crates_of("signaling-worker"),
    );
    assert!(library.contains("sqlx"));
    for name in ["axum", "clap", "hyper", "opentelemetry", "plotters"] {
        assert!(worker.contains(name) && !library.contains(name), "{name}");
    }
}
