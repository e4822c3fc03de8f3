//! The forms of a repeated insert that examples/README.md shows, with the privileges of a producer.

use harness::World;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::schema::roles::Role;

/// Inserts a message with a conflict clause. Returns whether it is new, or the SQLSTATE of the refusal.
async fn insert(producer: &mut PgConnection, key: &str, conflict: &str) -> Result<bool, String> {
    let statement = format!(
        "insert into signaling.outbox (sender, destination, payload, dedupe_key)
         values ('shop', 'user-17', 'hello', {key}) {conflict} returning id"
    );
    let ids: Result<Vec<i64>, sqlx::Error> = sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_all(producer)
        .await;
    ids.map(|ids| !ids.is_empty()).map_err(|error| {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        code.expect("an error of the server").into_owned()
    })
}

#[tokio::test]
async fn only_the_documented_forms_skip_a_repeated_insert() {
    let world = World::new().await;
    let role = Role::granted(&world, "producer").await;
    let mut producer = PgConnection::connect(&role.url).await.expect("connected");
    for (number, conflict) in [
        "on conflict do nothing",
        "on conflict (app, dedupe_key) where dedupe_key is not null do nothing",
        // As Rails writes it.
        r#"ON CONFLICT ("app","dedupe_key") WHERE (dedupe_key IS NOT NULL) DO NOTHING"#,
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("'order-{number}'");
        for (key, is_new) in [(&*key, true), (&key, false), ("null", true), ("null", true)] {
            let inserted = insert(&mut producer, key, conflict).await;
            assert_eq!(inserted, Ok(is_new), "{conflict}: {key}");
        }
    }
    for (conflict, code) in [
        ("on conflict (app, dedupe_key) do nothing", "42P10"),
        (
            "on conflict on constraint outbox_dedupe do nothing",
            "42704",
        ),
        (
            "on conflict (app, dedupe_key) where dedupe_key is not null do update set payload = excluded.payload",
            "42501",
        ),
    ] {
        let refused = insert(&mut producer, "'order-1'", conflict).await;
        assert_eq!(refused, Err(code.to_owned()), "{conflict}");
    }
}
