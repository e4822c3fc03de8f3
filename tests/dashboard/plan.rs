//! The pages' queries use indexes and stay within their bounds, with any statistics.

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::fixtures;
use testkit::{World, execute};

/// A query of the pages, with parameters, and the parts that its plan must have.
struct PageQuery {
    name: &'static str,
    statement: String,
    types: &'static str,
    values: &'static str,
    plan_has: &'static [&'static str],
}

fn page_queries() -> Vec<PageQuery> {
    let window = include_str!("../../src/outbox/read/search/window.sql");
    let fields =
        "bigint, bigint, text, text, text, text, timestamptz, timestamptz, text, bigint, bigint[]";
    vec![
        PageQuery {
            name: "a window of ids",
            statement: window.into(),
            types: fields,
            values: "9000, 8001, 'default', 'failed', 'nobody', 'x', '2020-01-01', '2099-01-01', 'none', 51, null",
            plan_has: &[
                "Index Scan Backward using outbox_pkey",
                "Index Cond: ((id <= ",
            ],
        },
        PageQuery {
            name: "a list of ids",
            statement: window.into(),
            types: fields,
            values: "9000, 1, null, 'queued', null, null, null, null, null, 51, array[8, 15, 4711]",
            plan_has: &["using outbox_pkey"],
        },
        PageQuery {
            name: "pending messages",
            statement: include_str!("../../src/outbox/read/search/pending.sql").into(),
            types: "text, bigint",
            values: "'default', 20000",
            plan_has: &[
                "Limit",
                "using outbox_first_attempts",
                "using outbox_retries",
            ],
        },
        PageQuery {
            name: "the range of a page",
            statement: include_str!("../../src/outbox/read/search/range.sql").into(),
            types: "bigint, timestamptz, timestamptz, bigint",
            values: "9000, '2020-01-01', '2099-01-01', 50000",
            plan_has: &["using outbox_pkey"],
        },
        PageQuery {
            name: "groups of failures",
            statement: include_str!("../../src/outbox/read/failures/groups.sql").into(),
            types: "bigint, interval, text, bigint, text",
            values: "20000, '1 hour', null, 100, 'transient'",
            plan_has: &[
                "Index Scan Backward using attempt_pkey",
                "using outbox_pkey",
                "Nested Loop",
            ],
        },
        PageQuery {
            name: "one message",
            statement: include_str!("../../src/outbox/read/detail/message.sql").into(),
            types: "bigint",
            values: "17",
            plan_has: &["using outbox_pkey"],
        },
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
        for PageQuery {
            name,
            statement,
            types,
            values,
            plan_has,
        } in page_queries()
        {
            let plan = plan(&mut connection, &statement, types, values).await;
            let context = format!("{name}, {table}:\n{plan}");
            for part in plan_has {
                assert!(plan.contains(part), "{part} is missing: {context}");
            }
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
