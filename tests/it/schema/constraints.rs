//! The table refuses each mistake under a name of its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{database_error, refusal};
use harness::{World, channel, peer};

/// Asserts that a constraint of this name refuses a message.
async fn assert_refused(world: &World, message: &Value, constraint: &str) {
    let inserted = world.try_insert(message).await;
    let error = database_error(inserted.expect_err(constraint));
    assert_eq!(error.constraint(), Some(constraint), "{message}: {error}");
}

/// Constraints, each with a message that it refuses.
fn mistakes() -> Vec<(String, Value)> {
    let long = |length| "x".repeat(length);
    let mut mistakes = Vec::new();
    for column in ["sender", "destination", "channel_name"] {
        let message = if column == "channel_name" {
            channel
        } else {
            peer
        };
        for (mistake, names) in [
            ("is_empty", vec![""]),
            ("is_longer_than_64_characters", vec![&*long(65)]),
            ("has_a_forbidden_character", vec!["a/b", "a*b", "a\"b"]),
            ("begins_or_ends_with_a_space", vec![" a", "a ", " "]),
        ] {
            let refused = names.iter().map(|name| message(json!({ column: name })));
            mistakes.extend(refused.map(|message| (format!("{column}_{mistake}"), message)));
        }
    }
    let of_peers = json!({
        "app_is_not_a_name_of_1_to_64_letters_digits_dots_dashes": {"app": ["", "a b", long(65)]},
        "sender_is_a_dot_segment": {"sender": [".", ".."]},
        "both_destination_and_channel_name_are_given": {"channel_name": ["lobby"]},
        "payload_is_empty": {"payload": [""]},
        "payload_is_longer_than_32768_bytes": {"payload": [long(32_769), "é".repeat(16_385)]},
        "max_attempts_is_not_between_1_and_1000": {"max_attempts": [0, 1_001]},
        "dedupe_key_is_empty_or_longer_than_256_characters": {"dedupe_key": ["", long(257)]},
        "traceparent_is_longer_than_128_characters": {"traceparent": [long(129)]},
        "due_at_is_before_year_1_or_after_year_9999": {"due_at": ["infinity"]},
        "expires_at_is_before_year_1_or_after_year_9999": {"expires_at": ["-infinity"]},
    });
    let of_channels = json!({
        "wait_for_ack_is_for_peer_messages_only": {"wait_for_ack": [true]},
        "enable_offline_messaging_is_for_peer_messages_only": {"enable_offline_messaging": [true]},
        "neither_destination_nor_channel_name_is_given": {"channel_name": [null]},
    });
    for (message, of_kind) in [
        (peer as fn(Value) -> Value, of_peers),
        (channel, of_channels),
    ] {
        for (constraint, columns) in of_kind.as_object().expect("constraints") {
            for (column, values) in columns.as_object().expect("a column") {
                let values = values.as_array().expect("values").iter();
                let refused = values.map(|value| message(json!({ column: value })));
                mistakes.extend(refused.map(|message| (constraint.clone(), message)));
            }
        }
    }
    mistakes
}

#[tokio::test]
async fn every_forbidden_parameter_is_refused_by_a_constraint_named_for_the_mistake() {
    let world = World::new().await;
    let mistakes = mistakes();
    for (constraint, message) in &mistakes {
        assert_refused(&world, message, constraint).await;
    }
    assert_eq!(world.count("true").await, 0);

    let about_states = [
        "status_is_not_a_known_status",
        "finished_at_is_null_exactly_while_pending",
        "attempts_is_negative",
        "a_sent_message_needs_sent_at",
    ];
    let tried = mistakes.iter().map(|(name, _)| name.as_str());
    let tried: BTreeSet<&str> = tried.chain(about_states).collect();
    // The table's own, and those that the trigger names.
    let all = "select conname::text from pg_constraint
               where conrelid = 'signaling.outbox'::regclass and contype = 'c'
               union all
               select matched[1] from pg_proc, regexp_matches(prosrc, 'then\\s+''(\\w+)''', 'g') as matched
               where oid = to_regproc('signaling.check_message')";
    let all: Vec<String> = world.column(all).await;
    let all = all.iter().map(String::as_str).collect();
    assert_eq!(tried, all, "each constraint has a mistake here");
}

#[tokio::test]
async fn a_message_without_a_sender_or_a_payload_is_refused() {
    let world = World::new().await;
    for column in ["sender", "payload"] {
        let inserted = world.try_insert(&peer(json!({ column: null }))).await;
        let error = database_error(inserted.expect_err("refused"));
        let found = (error.code(), error.column());
        assert_eq!(found, ("23502", Some(column)), "{error}");
    }
}

#[tokio::test]
async fn a_name_with_any_other_character_than_the_apis_is_refused() {
    let world = World::new().await;
    let allowed = "!#$%&()+-:;<=.>?@[]^_{}|~,' ";
    let forbidden = ('\u{1}'..='\u{7f}')
        .filter(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c))
        .chain("äéß€\u{a0}\u{200b}\u{2028}漢😀\u{fe0f}".chars());
    for character in forbidden {
        let inside = format!("a{character}b");
        // A pattern's end would match before a line break.
        let last = format!("ab{character}");
        for (column, message) in [
            ("sender", peer(json!({"sender": inside}))),
            ("destination", peer(json!({"destination": inside}))),
            ("channel_name", channel(json!({"channel_name": inside}))),
            ("sender", peer(json!({"sender": last}))),
        ] {
            let constraint = format!("{column}_has_a_forbidden_character");
            assert_refused(&world, &message, &constraint).await;
        }
    }
}

#[tokio::test]
async fn a_message_can_not_be_inserted_as_final_or_with_the_workers_columns() {
    let world = World::new().await;
    let uuid = "7b0c1f52-3a0e-4c8e-9d0e-0d2f5f6f0001";
    for columns in [
        json!({"status": "message_sent", "sent_at": "2030-01-01", "finished_at": "2030-01-01"}),
        json!({"status": "cancelled", "finished_at": "2030-01-01"}),
        json!({"status": "nonsense"}),
        json!({"attempts": 1}),
        json!({"uncharged": 1}),
        json!({"failing_since": "2020-01-01"}),
        json!({"claim_id": uuid}),
        json!({"claimed_by": "somebody"}),
        json!({"sent_at": "2030-01-01"}),
        json!({"finished_at": "2030-01-01"}),
        json!({"http_status": 200}),
        json!({"request_id": "1"}),
        json!({"error": "none"}),
    ] {
        assert_refused(&world, &peer(columns), "message_is_not_inserted_as_pending").await;
    }
}

#[tokio::test]
async fn an_update_to_a_forbidden_value_or_an_impossible_state_is_refused() {
    let world = World::new().await;
    world.insert(peer(json!({}))).await;
    for (constraint, change) in [
        (
            "status_is_not_a_known_status",
            "status = 'done', finished_at = now()",
        ),
        (
            "finished_at_is_null_exactly_while_pending",
            "finished_at = now()",
        ),
        (
            "finished_at_is_null_exactly_while_pending",
            "status = 'failed'",
        ),
        ("attempts_is_negative", "attempts = -1"),
        (
            "a_sent_message_needs_sent_at",
            "status = 'message_sent', finished_at = now()",
        ),
        ("sender_is_empty", "sender = ''"),
        (
            "destination_has_a_forbidden_character",
            "destination = 'a/b'",
        ),
        ("payload_is_empty", "payload = ''"),
        (
            "both_destination_and_channel_name_are_given",
            "channel_name = 'lobby'",
        ),
        ("max_attempts_is_not_between_1_and_1000", "max_attempts = 0"),
        (
            "wait_for_ack_is_for_peer_messages_only",
            "destination = null, channel_name = 'lobby', wait_for_ack = true",
        ),
    ] {
        let update = format!("update signaling.outbox set {change}");
        let error = refusal(&world, &update).await;
        assert_eq!(error.constraint(), Some(constraint), "{change}: {error}");
    }
}

#[tokio::test]
async fn a_dedupe_key_makes_the_insert_idempotent_within_its_app() {
    let world = World::new().await;
    let insert = async |app: &str| {
        sqlx::query(
            "insert into signaling.outbox (app, sender, destination, payload, dedupe_key)
             values ($1, 'alice', 'bob', 'hello', 'order-17') on conflict do nothing",
        )
        .bind(app.to_owned())
        .execute(&world.pool)
        .await
        .expect("no error")
        .rows_affected()
    };
    assert_eq!(insert("one").await, 1);
    assert_eq!(insert("one").await, 0);
    assert_eq!(insert("other").await, 1);
    let again = peer(json!({"app": "one", "dedupe_key": "order-17"}));
    assert_refused(&world, &again, "outbox_dedupe").await;
    // Rows without a key are never the same.
    world.insert(peer(json!({}))).await;
    world.insert(peer(json!({}))).await;
    assert_eq!(world.count("true").await, 4);
}

#[tokio::test]
async fn the_bounds_themselves_are_allowed() {
    let world = World::new().await;
    for message in [
        peer(
            json!({"sender": "s".repeat(64), "destination": "d".repeat(64), "app": "a".repeat(64)}),
        ),
        peer(json!({"destination": "."})),
        peer(json!({"max_attempts": 1_000, "dedupe_key": "k".repeat(256)})),
        peer(json!({"max_attempts": 1, "traceparent": "t".repeat(128)})),
        peer(json!({"payload": "é".repeat(16_384)})),
        channel(json!({"enable_historical_messaging": true})),
        peer(json!({"wait_for_ack": true, "enable_offline_messaging": true})),
    ] {
        world.insert(message).await;
    }
}

#[tokio::test]
async fn times_that_drivers_can_not_read_are_refused_in_both_directions() {
    let world = World::new().await;
    for column in ["due_at", "expires_at"] {
        let constraint = format!("{column}_is_before_year_1_or_after_year_9999");
        for refused in [
            "infinity",
            "-infinity",
            "10000-01-01 00:00:00+00",
            "10000-01-02",
            // In UTC, that is the year 10000, and the year before the first one.
            "9999-12-31 23:59:59-05",
            "0001-01-01 00:00:00+05",
            "0001-12-31 00:00:00+00 BC",
            "4000-06-01 00:00:00+00 BC",
            "294276-12-31 23:59:59+00",
        ] {
            assert_refused(&world, &peer(json!({column: refused})), &constraint).await;
        }
        for allowed in [
            "0001-01-01 00:00:00+00",
            "0001-01-01 00:00:00-05",
            "9999-12-31 23:59:59.999999+00",
            "10000-01-01 04:00:00+05",
        ] {
            let id = world.insert(peer(json!({column: allowed}))).await;
            world.row(id).await;
        }
    }
}
