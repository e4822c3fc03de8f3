//! `worker enqueue`

use serde_json::json;

use testkit::World;

fn lines(messages: &[serde_json::Value]) -> String {
    let mut lines = messages
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    lines.push('\n');
    lines
}

#[tokio::test]
async fn a_message_given_by_flags_becomes_a_row() {
    let world = World::new().await;
    let finished = world
        .command(&[
            "enqueue",
            "--sender",
            "alice",
            "--destination",
            "bob",
            "--payload",
            "Hello",
        ])
        .arg("--app=news")
        .arg("--wait-for-ack")
        .arg("--offline-messaging")
        .arg("--historical-messaging")
        .arg("--due-at=2030-01-31T12:00:00Z")
        .arg("--expires-at=2031-01-31T12:00:00+01:00")
        .arg("--max-attempts=3")
        .arg("--at-most-once")
        .arg("--dedupe-key=k")
        .finish()
        .await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let id: i64 = finished.stdout.trim().parse().expect("an id alone");
    let row: String = world
        .ask(&format!(
            "select to_jsonb(outbox)::text from signaling.outbox where id = {id} and status = 'pending'"
        ))
        .await;
    let row: serde_json::Value = serde_json::from_str(&row).expect("JSON");
    for (column, value) in [
        ("sender", json!("alice")),
        ("destination", json!("bob")),
        ("channel_name", json!(null)),
        ("payload", json!("Hello")),
        ("app", json!("news")),
        ("wait_for_ack", json!(true)),
        ("enable_offline_messaging", json!(true)),
        ("enable_historical_messaging", json!(true)),
        ("max_attempts", json!(3)),
        ("at_most_once", json!(true)),
        ("dedupe_key", json!("k")),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    let times: bool = world
        .ask("select due_at = '2030-01-31 12:00Z' and expires_at = '2031-01-31 11:00Z' from signaling.outbox")
        .await;
    assert!(times);

    let channel = world.command(&[
        "enqueue",
        "--sender=alice",
        "--channel=lobby",
        "--payload=Hello all",
    ]);
    assert_eq!(channel.finish().await.code, Some(0));
    assert_eq!(
        world
            .count("channel_name = 'lobby' and app = 'default' and max_attempts = 10")
            .await,
        1
    );
}

#[tokio::test]
async fn json_lines_are_inserted_in_their_order_and_their_ids_printed() {
    let world = World::new().await;
    let messages: Vec<_> = (0..2_500)
        .map(|n| json!({"sender": "alice", "destination": "bob", "payload": format!("m{n}")}))
        .collect();
    let input = lines(&messages) + "\n   \n";
    let finished = world
        .command(&["enqueue", "--stdin"])
        .input(&input)
        .finish()
        .await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let ids: Vec<i64> = finished
        .stdout
        .lines()
        .map(|line| line.parse().expect("an id"))
        .collect();
    assert_eq!(ids.len(), 2_500);
    assert!(ids.is_sorted());
    let payloads: Vec<String> = world
        .ask("select array_agg(payload order by id) from signaling.outbox")
        .await;
    assert!(
        payloads
            .iter()
            .enumerate()
            .all(|(n, payload)| *payload == format!("m{n}"))
    );
}

#[tokio::test]
async fn a_mistake_in_one_line_is_named_and_nothing_is_inserted() {
    let world = World::new().await;
    let right = json!({"sender": "alice", "destination": "bob", "payload": "hi"}).to_string();
    for (wrong, phrase) in [
        (
            r#"{"sender":"alice","destination":"bob","payload":""}"#,
            "payload is empty",
        ),
        (
            r#"{"sender":"a/b","destination":"bob","payload":"hi"}"#,
            "sender has the character '/'",
        ),
        (
            r#"{"sender":"alice","payload":"hi"}"#,
            "exactly one of destination and channel_name",
        ),
        (
            r#"{"sender":"alice","destiny":"bob","payload":"hi"}"#,
            "destiny",
        ),
        ("not JSON", "expected"),
        (
            r#"{"sender":"alice","destination":"bob","payload":"hi","due_at":"soon"}"#,
            "line 3",
        ),
    ] {
        let input = format!("{right}\n{right}\n{wrong}\n{right}\n");
        let finished = world
            .command(&["enqueue", "--stdin"])
            .input(&input)
            .finish()
            .await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        for phrase in ["line 3", phrase, "none was inserted"] {
            assert!(
                finished.stderr.contains(phrase),
                "{phrase:?} is missing: {finished:?}"
            );
        }
        assert_eq!(finished.stdout, "");
    }
    // A mistake that only the table knows, in a later statement of the same transaction.
    world
        .execute("alter table signaling.outbox add constraint payload_is_not_polite check (payload <> 'hey')")
        .await;
    let input = format!("{right}\n").repeat(1_500)
        + r#"{"sender":"alice","destination":"bob","payload":"hey"}"#;
    let finished = world
        .command(&["enqueue", "--stdin"])
        .input(&input)
        .finish()
        .await;
    assert_ne!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished
            .stderr
            .contains("the table refuses a message: payload is not polite"),
        "{finished:?}"
    );
    assert_eq!(world.count("true").await, 0);
}

#[tokio::test]
async fn an_existing_dedupe_key_is_skipped_and_reported() {
    let world = World::new().await;
    let keyed = |key: &str| json!({"sender": "alice", "destination": "bob", "payload": "hi", "dedupe_key": key});
    let enqueue = async |messages: &[serde_json::Value]| {
        world
            .command(&["enqueue", "--stdin"])
            .input(&lines(messages))
            .finish()
            .await
    };
    let first = enqueue(&[keyed("one"), keyed("two")]).await;
    assert_eq!((first.code, first.stdout.lines().count()), (Some(0), 2));
    assert_eq!(
        first.stderr,
        "2 messages of default waiting for a worker: none has served the app yet\n"
    );
    let second = enqueue(&[keyed("two"), keyed("three"), keyed("three")]).await;
    assert_eq!((second.code, second.stdout.lines().count()), (Some(0), 1));
    assert!(second.stderr.contains("2 of 3 exist already"), "{second:?}");
    assert_eq!(world.count("true").await, 3);
}

#[tokio::test]
async fn wrong_flags_are_wrong_usage() {
    let world = World::new().await;
    for (flags, phrase) in [
        (
            &["--sender=alice", "--payload=hi"][..],
            "--destination USER or --channel NAME",
        ),
        (
            &[
                "--sender=alice",
                "--destination=bob",
                "--channel=lobby",
                "--payload=hi",
            ],
            "--channel",
        ),
        (&["--sender=alice", "--destination=bob"], "--payload"),
        (
            &["--sender=a/b", "--destination=bob", "--payload=hi"],
            "'/'",
        ),
        (
            &["--sender=.", "--destination=bob", "--payload=hi"],
            "URL path",
        ),
        (
            &[
                "--sender=alice",
                "--channel=lobby",
                "--payload=hi",
                "--due-at=soon",
            ],
            "2030-01-31T12:00:00Z",
        ),
        (&["--stdin", "--sender=alice"], "--stdin"),
    ] {
        let mut worker = world.command(&["enqueue"]);
        for flag in flags {
            worker = worker.arg(flag);
        }
        let finished = worker.finish().await;
        assert_eq!(finished.code, Some(2), "{flags:?}: {finished:?}");
        assert!(
            finished.stderr.contains(phrase),
            "{phrase:?} is missing: {finished:?}"
        );
    }
    assert_eq!(world.count("true").await, 0);
}

/// The table would refuse these, too, but with a constraint's name.
#[tokio::test]
async fn values_that_the_table_refuses_are_explained() {
    let world = World::new().await;
    for (flags, phrase) in [
        (
            &[
                "--sender=a",
                "--channel=lobby",
                "--payload=hi",
                "--wait-for-ack",
            ][..],
            "for peer messages only",
        ),
        (
            &["--sender=a", "--destination=b", "--payload=hi", "--app=a b"],
            "app is not a name",
        ),
        (
            &[
                "--sender=a",
                "--destination=b",
                "--payload=hi",
                "--dedupe-key=",
            ],
            "dedupe_key is empty",
        ),
    ] {
        let mut worker = world.command(&["enqueue"]);
        for flag in flags {
            worker = worker.arg(flag);
        }
        let finished = worker.finish().await;
        assert!(
            finished.code.is_some_and(|code| code == 1 || code == 2),
            "{finished:?}"
        );
        assert!(
            finished.stderr.contains(phrase),
            "{phrase:?} is missing: {finished:?}"
        );
    }
    assert_eq!(world.count("true").await, 0);
}
