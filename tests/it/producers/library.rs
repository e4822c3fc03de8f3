//! `signaling_worker::enqueue`

use std::collections::BTreeSet;

use serde_json::{Value, json};
use signaling_worker::{EnqueueError, NewMessage, enqueue};
use sqlx::{Acquire, Connection, Executor, PgConnection};
use time::macros::datetime;

use testkit::World;

fn message(payload: &str) -> NewMessage {
    NewMessage::to_peer("alice", "bob", payload)
}

fn keyed(key: &str) -> NewMessage {
    NewMessage {
        dedupe_key: Some(key.to_owned()),
        ..message(key)
    }
}

fn numbered(count: usize) -> Vec<NewMessage> {
    (0..count).map(|n| message(&format!("m{n}"))).collect()
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
        let ids = enqueue(&mut transaction, &numbered(count))
            .await
            .expect("inserted");
        assert_eq!(ids.len(), count);
        transaction.rollback().await.expect("rolled back");
        assert_eq!(world.count("true").await, 0);
    }

    let mut transaction = world.pool.begin().await.expect("begun");
    let ids = enqueue(&mut transaction, &[message("hi")])
        .await
        .expect("inserted");
    assert_eq!(world.count("true").await, 0);
    transaction.commit().await.expect("committed");
    let id = ids[0].expect("an id");
    let mut worker = world.worker().start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    assert_eq!(world.calls_of("hi").len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn thousands_of_messages_are_inserted_in_order_with_their_ids() {
    let world = World::new().await;
    let ids = enqueue(&world.pool, &numbered(4_321))
        .await
        .expect("inserted");
    let ids: Vec<i64> = ids.into_iter().map(|id| id.expect("an id")).collect();
    assert!(ids.is_sorted());
    let there: Vec<(i64, String)> =
        sqlx::query_as("select id, payload from signaling.outbox order by id")
            .fetch_all(&world.pool)
            .await
            .expect("rows");
    let expected: Vec<_> = ids
        .into_iter()
        .enumerate()
        .map(|(n, id)| (id, format!("m{n}")))
        .collect();
    assert_eq!(there, expected);
    assert!(
        enqueue(&world.pool, &[])
            .await
            .expect("nothing to do")
            .is_empty()
    );
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
        let error = enqueue(&mut *connection, &messages)
            .await
            .expect_err("refused");
        assert!(
            matches!(&error, EnqueueError::Refused { constraint } if constraint == "payload_is_not_polite"),
            "{error}"
        );
        assert_eq!(world.count("true").await, 0);
    }
    // The caller's own savepoint keeps its transaction usable.
    let mut transaction = world.pool.begin().await.expect("begun");
    let mut savepoint = transaction.begin().await.expect("a savepoint");
    enqueue(&mut savepoint, &[message("hey")])
        .await
        .expect_err("refused");
    savepoint.rollback().await.expect("rolled back");
    enqueue(&mut transaction, &[message("hello")])
        .await
        .expect("inserted");
    transaction.commit().await.expect("committed");
    assert_eq!(world.count("payload = 'hello'").await, 1);
}

#[tokio::test]
async fn a_forbidden_value_is_refused_and_the_error_names_the_mistake() {
    let world = World::new().await;
    let channel = NewMessage::to_channel("alice", "lobby", "hi");
    let due_at = |due_at| NewMessage {
        due_at: Some(due_at),
        ..message("hi")
    };
    for (forbidden, name) in [
        (message(""), "payload_is_empty"),
        (
            NewMessage {
                sender: "a/b".into(),
                ..message("hi")
            },
            "sender_has_a_forbidden_character",
        ),
        (
            NewMessage {
                destination: Some("bob".into()),
                ..channel.clone()
            },
            "both_destination_and_channel_name_are_given",
        ),
        (
            NewMessage {
                wait_for_ack: true,
                ..channel
            },
            "wait_for_ack_is_for_peer_messages_only",
        ),
        (
            due_at(datetime!(9999-12-31 23:59:59 -05:00)),
            "due_at_is_before_year_1_or_after_year_9999",
        ),
    ] {
        let error = enqueue(&world.pool, &[forbidden])
            .await
            .expect_err("refused");
        assert!(
            matches!(&error, EnqueueError::Refused { constraint } if constraint == name),
            "{error}"
        );
    }
    // Neither is a value of a column.
    for impossible in [
        message("a\0b"),
        due_at(datetime!(0000-12-31 23:59:59 UTC)),
        due_at(datetime!(-4714-01-01 00:00 UTC)),
    ] {
        let error = enqueue(&world.pool, &[impossible])
            .await
            .expect_err("refused");
        assert!(matches!(&error, EnqueueError::Database(_)), "{error}");
    }
    assert_eq!(world.count("true").await, 0);
}

#[tokio::test]
async fn a_message_with_a_known_key_has_no_id() {
    let world = World::new().await;
    let of_app = |key| NewMessage {
        app: Some("news".to_owned()),
        ..keyed(key)
    };
    let messages = [
        keyed("one"),
        message("x"),
        keyed("one"),
        of_app("one"),
        keyed("two"),
    ];
    let first = enqueue(&world.pool, &messages).await.expect("inserted");
    let has_id: Vec<_> = first.iter().map(Option::is_some).collect();
    assert_eq!(has_id, [true, true, false, true, true]);

    let again = enqueue(
        &world.pool,
        &[keyed("two"), keyed("three"), message("y"), of_app("one")],
    )
    .await
    .expect("inserted");
    let has_id: Vec<_> = again.iter().map(Option::is_some).collect();
    assert_eq!(has_id, [false, true, true, false]);
    assert_eq!(world.count("true").await, 6);
    for (ids, payloads) in [
        (&first, ["one", "x", "", "one", "two"].as_slice()),
        (&again, &["", "three", "y", ""]),
    ] {
        for (id, payload) in ids.iter().zip(payloads) {
            if let Some(id) = id {
                assert_eq!(written_columns(&world, *id).await["payload"], *payload);
            }
        }
    }

    // Across statements of one call, too.
    let mut many = numbered(1_200);
    many.insert(0, keyed("four"));
    many.push(keyed("four"));
    let ids = enqueue(&world.pool, &many).await.expect("inserted");
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
    let ids = enqueue(&world.pool, &[full, channel])
        .await
        .expect("inserted");
    let [Some(full), Some(channel)] = ids[..] else {
        panic!("two ids: {ids:?}");
    };
    let mut expected = json!({
        "app": "news", "sender": "alice", "destination": "bob", "channel_name": null, "payload": "k",
        "wait_for_ack": true, "enable_offline_messaging": true, "enable_historical_messaging": true,
        "max_attempts": 3, "at_most_once": true, "dedupe_key": "k",
        "traceparent": traceparent,
    });
    let columns = written_columns(&world, full).await;
    for (column, value) in expected.as_object_mut().expect("an object") {
        assert_eq!(columns[column], *value, "{column}");
    }
    assert_eq!(
        world
            .count("due_at = '2030-01-31 12:00Z' and expires_at = '2031-01-31 11:00Z'")
            .await,
        1
    );

    let plain = world
        .insert(json!({"sender": "alice", "channel_name": "lobby", "payload": "Hello all"}))
        .await;
    let found = written_columns(&world, channel).await;
    assert_eq!(found, written_columns(&world, plain).await);
    assert_eq!(
        world
            .count(&format!(
                "id = {channel} and due_at = created_at and expires_at is null"
            ))
            .await,
        1
    );
}

#[tokio::test]
async fn a_pool_a_connection_and_a_transaction_insert_alike() {
    let world = World::new().await;
    let pool = world.pool.clone();
    tokio::spawn(async move {
        enqueue(&pool, &[message("pool")]).await.expect("inserted");
        let mut connection = pool.acquire().await.expect("a connection");
        enqueue(&mut connection, &[message("pooled")])
            .await
            .expect("inserted");
        let mut transaction = pool.begin().await.expect("begun");
        enqueue(&mut *transaction, &[message("in a transaction")])
            .await
            .expect("inserted");
        transaction.commit().await.expect("committed");
    })
    .await
    .expect("done");
    let mut connection = PgConnection::connect(&world.url).await.expect("connected");
    enqueue(&mut connection, &numbered(1_001))
        .await
        .expect("inserted");
    assert_eq!(world.count("true").await, 1_004);
}

/// Objects in the schemas of an application never replace those of the library.
#[tokio::test]
async fn the_applications_search_path_changes_nothing() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(&world.url).await.expect("connected");
    connection
        .execute(
            "create schema shop;
             create table shop.outbox (id bigint);
             create function shop.now() returns timestamptz language sql as 'select timestamptz ''epoch''';
             create function shop.unnest(pg_catalog.text[]) returns setof pg_catalog.text language sql as 'select null';
             create domain shop.text as pg_catalog.int4;
             create domain shop.int4 as pg_catalog.text;
             create domain shop.timestamptz as pg_catalog.bool;
             set search_path = shop, pg_catalog",
        )
        .await
        .expect("an application");
    let ids = enqueue(&mut connection, &[message("hi"), keyed("k")])
        .await
        .expect("inserted");
    assert_eq!(ids.iter().flatten().count(), 2);
    assert_eq!(world.count("due_at = created_at").await, 2);
}

#[test]
fn the_library_alone_depends_on_no_server_client_or_command_line() {
    let crates_of = |features: &[&str]| {
        let mut tree = std::process::Command::new(env!("CARGO"));
        tree.args([
            "tree",
            "--locked",
            "--offline",
            "--package",
            "signaling-worker",
        ])
        .args(["--edges", "normal", "--prefix", "none"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = tree.output().expect("cargo runs");
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).expect("UTF-8");
        let names = lines.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (library, binary) = (crates_of(&["--no-default-features"]), crates_of(&[]));
    assert!(library.contains("sqlx"));
    for name in ["axum", "clap", "hyper", "opentelemetry", "plotters"] {
        assert!(binary.contains(name) && !library.contains(name), "{name}");
    }
}
