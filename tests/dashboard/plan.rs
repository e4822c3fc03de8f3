//! What the pages ask for goes by indexes, and reads no more than its bounds, whatever Postgres knows of the tables.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::shown;
use testkit::World;

/// A statement of the pages, its parameters' types and values, and what its plan has to have.
struct Asked {
    name: &'static str,
    statement: String,
    types: &'static str,
    values: &'static str,
    has: &'static [&'static str],
}

fn asked() -> Vec<Asked> {
    let window = include_str!("../../src/outbox/read/search/window.sql");
    let fields =
        "bigint, bigint, text, text, text, text, timestamptz, timestamptz, text, bigint, bigint[]";
    vec![
        Asked {
            name: "a window of ids",
            statement: window.into(),
            types: fields,
            values: "9000, 8001, 'default', 'failed', 'nobody', 'x', '2020-01-01', '2099-01-01', 'none', 51, null",
            has: &[
                "Index Scan Backward using outbox_pkey",
                "Index Cond: ((id <= ",
            ],
        },
        Asked {
            name: "a list of ids",
            statement: window.into(),
            types: fields,
            values: "9000, 1, null, 'queued', null, null, null, null, null, 51, array[8, 15, 4711]",
            has: &["using outbox_pkey"],
        },
        Asked {
            name: "what was never claimed",
            statement: include_str!("../../src/outbox/read/search/first_attempts.sql").into(),
            types: "text, bigint",
            values: "null, 20001",
            has: &["Limit", "using outbox_first_attempts"],
        },
        Asked {
            name: "what was claimed",
            statement: include_str!("../../src/outbox/read/search/retries.sql").into(),
            types: "text, bigint",
            values: "'default', 20001",
            has: &["Limit", "using outbox_retries"],
        },
        Asked {
            name: "groups of failures",
            statement: include_str!("../../src/outbox/read/failures/groups.sql").into(),
            types: "bigint, interval, text, bigint, text",
            values: "20000, '1 hour', null, 100, 'transient'",
            has: &[
                "Index Scan Backward using attempt_pkey",
                "using outbox_pkey",
                "Nested Loop",
            ],
        },
        Asked {
            name: "the messages of a group",
            statement: include_str!("../../src/outbox/read/failures/messages.sql").into(),
            types: "bigint, interval, text, text, int, text, bigint",
            values: "20000, '1 hour', 'default', 'rejected', 404, 'x', 5000",
            has: &[
                "Index Scan Backward using attempt_pkey",
                "using outbox_pkey",
                "Nested Loop",
            ],
        },
        Asked {
            name: "one message",
            statement: include_str!("../../src/outbox/read/detail/message.sql").into(),
            types: "bigint",
            values: "17",
            has: &["using outbox_pkey"],
        },
    ]
}

#[tokio::test]
async fn what_the_pages_ask_for_goes_by_indexes_on_tables_of_any_size_and_with_any_statistics() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(&world.url).await.expect("connected");
    // What src/outbox/pool.rs tells every session.
    sqlx::raw_sql("set enable_seqscan = off; set enable_bitmapscan = off; set jit = off; set search_path = pg_catalog, pg_temp")
        .execute(&mut connection)
        .await
        .expect("set");
    world
        .execute(
            "alter table signaling.outbox set (autovacuum_enabled = false);
             alter table signaling.attempt set (autovacuum_enabled = false)",
        )
        .await;
    for table in ["empty", "big, not analyzed", "big, analyzed"] {
        match table {
            "big, not analyzed" => {
                world.insert_many(20_000).await;
                shown::messages_of_all_states(&world, 1_000).await;
            }
            "big, analyzed" => world.execute("analyze").await,
            _ => {}
        }
        for Asked {
            name,
            statement,
            types,
            values,
            has,
        } in asked()
        {
            let plan = plan(&mut connection, &statement, types, values).await;
            let context = format!("{name}, {table}:\n{plan}");
            for part in has {
                assert!(plan.contains(part), "{part} is missing: {context}");
            }
            for whole in ["Seq Scan on outbox", "Seq Scan on attempt"] {
                assert!(!plan.contains(whole), "{context}");
            }
        }
    }
}

/// The plan for these values, which is how the pages' statements are planned: they are not kept.
async fn plan(connection: &mut PgConnection, statement: &str, types: &str, values: &str) -> String {
    for step in [
        "set plan_cache_mode = force_custom_plan".to_owned(),
        format!("prepare asked ({types}) as {statement}"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(step))
            .execute(&mut *connection)
            .await
            .expect("prepared");
    }
    let rows = sqlx::raw_sql(AssertSqlSafe(format!("explain execute asked ({values})")))
        .fetch_all(&mut *connection)
        .await
        .expect("a plan");
    sqlx::raw_sql("deallocate asked")
        .execute(connection)
        .await
        .expect("forgotten");
    rows.iter()
        .map(|row| row.get::<String, _>(0) + "\n")
        .collect()
}
