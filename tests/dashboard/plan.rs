//! The pages' queries use indexes and stay within their bounds, with any statistics.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::fixtures;
use harness::{World, assert_contains, execute};

/// The queries of the pages: a name, the statement, types and values of its parameters, and the parts of its plan.
fn page_queries() -> [(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Vec<&'static str>,
); 6] {
    let window = include_str!("../../src/outbox/read/search/window.sql");
    let fields =
        "bigint, bigint, text, text, text, text, timestamptz, timestamptz, text, bigint, bigint[]";
    [
        (
            "a window of ids",
            window,
            fields,
            "9000, 8001, 'default', 'failed', 'nobody', 'x', '2020-01-01', '2099-01-01', 'none', 51, null",
            vec![
                "Index Scan Backward using outbox_pkey",
                "Index Cond: ((id <= ",
            ],
        ),
        (
            "a list of ids",
            window,
            fields,
            "9000, 1, null, 'queued', null, null, null, null, null, 51, array[8, 15, 4711]",
            vec!["using outbox_pkey"],
        ),
        (
            "pending messages",
            include_str!("../../src/outbox/read/search/pending.sql"),
            "text, bigint",
            "'default', 10000",
            vec![
                "Limit",
                "using outbox_first_attempts",
                "using outbox_retries",
            ],
        ),
        (
            "the range of a page",
            include_str!("../../src/outbox/read/search/range.sql"),
            "bigint, timestamptz, timestamptz, bigint",
            "9000, '2020-01-01', '2099-01-01', 10000",
            vec!["using outbox_pkey"],
        ),
        (
            "groups of failures",
            include_str!("../../src/outbox/read/failures/groups.sql"),
            "bigint, interval, text, bigint, text",
            "20000, '1 hour', null, 100, 'transient'",
            vec![
                "Index Scan Backward using attempt_pkey",
                "using outbox_pkey",
                "Nested Loop",
            ],
        ),
        (
            "one message",
            include_str!("../../src/outbox/read/detail/message.sql"),
            "bigint",
            "17",
            vec!["using outbox_pkey"],
        ),
    ]
}

#[tokio::test]
async fn the_pages_queries_use_indexes_whatever_the_size_and_statistics() {
    let world = World::new().await;
    let mut connection = world.connect().await;
    // The settings of each session in src/outbox/pool.rs.
    let statement = "set enable_seqscan = off; set enable_bitmapscan = off; set jit = off;
                     set search_path = pg_catalog, pg_temp";
    execute(&mut connection, statement).await;
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
                fixtures::messages_of_all_states(&world, 1_000).await;
            }
            "big, analyzed" => world.execute("analyze").await,
            _ => {}
        }
        for (name, statement, types, values, parts) in page_queries() {
            let plan = plan(&mut connection, statement, types, values).await;
            let context = format!("{name}, {table}:\n{plan}");
            assert_contains(&context, &parts);
            for scan in ["Seq Scan on outbox", "Seq Scan on attempt"] {
                assert!(!plan.contains(scan), "{context}");
            }
        }
    }
}

/// Plans the query for these values. The pages' queries are not prepared either.
async fn plan(connection: &mut PgConnection, statement: &str, types: &str, values: &str) -> String {
    let prepare = format!(
        "set plan_cache_mode = force_custom_plan; prepare page_query ({types}) as {statement}"
    );
    execute(&mut *connection, &prepare).await;
    let explain = AssertSqlSafe(format!("explain execute page_query ({values})"));
    let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection);
    let rows = rows.await.expect("a plan");
    execute(connection, "deallocate page_query").await;
    rows.iter()
        .map(|row| row.get::<String, _>(0) + "\n")
        .collect()
}
