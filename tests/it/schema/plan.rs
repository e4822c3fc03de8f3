//! The statements of the hot path go by their indexes, whatever Postgres knows of the table.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::World;

const CLAIM: &str = include_str!("../../../src/outbox/claim.sql");
const RECORD: &str = include_str!("../../../src/outbox/record.sql");
const SESSION: &str = include_str!("../../../src/outbox/line.rs");

const CLAIMED: &str = "claim ('default', 100, 150000, 30000000, 'c0ffee00-0000-4000-8000-000000000000', 'me', true, 'infinity', '2001-01-01', 17, '2001-01-01', 0, 2000000)";
const RECORDED: &str = "record ('{1,2}', '{c0ffee00-0000-4000-8000-000000000000,c0ffee00-0000-4000-8000-000000000000}', '{now,now}',
     '{message_sent,message_sent}', '{1,1}', '{now,now}', '{200,200}', '{a,b}', '{null,null}', '{null,null}', '{1,1}', 'me')";

/// A statement's plan as a worker's session makes it.
async fn plan(connection: &mut PgConnection, statement: &str, cache_mode: &str) -> String {
    let explain = format!("set plan_cache_mode = {cache_mode}; explain execute {statement}");
    let lines: Vec<(String,)> = {
        use sqlx::Row;
        sqlx::raw_sql(AssertSqlSafe(explain))
            .fetch_all(connection)
            .await
            .expect("a plan")
            .iter()
            .map(|row| (row.get(0),))
            .collect()
    };
    lines.into_iter().map(|(line,)| line + "\n").collect()
}

#[tokio::test]
async fn claim_and_record_go_by_their_indexes_on_tables_of_any_size_and_with_any_statistics() {
    let world = World::new().await;
    let mut connection = PgConnection::connect(&world.url).await.expect("connected");
    // What src/outbox/line.rs tells every session.
    for setting in [
        "enable_seqscan = off",
        "enable_bitmapscan = off",
        "jit = off",
    ] {
        assert!(
            SESSION.contains(setting),
            "sessions are told something else now"
        );
        sqlx::raw_sql(AssertSqlSafe(format!("set {setting}")))
            .execute(&mut connection)
            .await
            .expect("set");
    }
    let prepare = format!(
        "prepare claim (text, bigint, bigint, bigint, uuid, text, boolean, timestamptz, timestamptz, bigint, timestamptz, bigint, bigint) as {CLAIM};
         prepare record (bigint[], uuid[], timestamptz[], text[], int[], timestamptz[], int[], text[], text[], text[],
                         bigint[], text) as {RECORD}"
    );
    sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut connection)
        .await
        .expect("prepared");

    world
        .execute("alter table signaling.outbox set (autovacuum_enabled = false)")
        .await;
    let mut check = async |table: &str| {
        for cache_mode in ["force_custom_plan", "force_generic_plan"] {
            let record = plan(&mut connection, RECORDED, cache_mode).await;
            // By the primary key, and by the places that were found by it. The index of claimed rows looks small, and
            // isn't while a snapshot is held.
            let by_key = record.matches("using outbox_pkey on outbox").count();
            let by_place = record.matches("Tid Scan on outbox").count();
            let in_all =
                record.matches("on outbox").count() - record.matches("Update on outbox").count();
            assert_eq!(
                (by_key, by_place, in_all),
                (2, 1, 3),
                "{table}, {cache_mode}:\n{record}"
            );

            // Each row meets its own record, and not all of them. The other plan is for these two.
            let is_compared_with_all = |line: &str| {
                line.contains("Join Filter")
                    && line.contains("outbox")
                    && line.contains(".id = record")
            };
            let expects_many = |line: &str| {
                let rows = line.split_once("rows=").map_or("", |(_, rest)| rest);
                let rows = rows.split(' ').next().unwrap_or_default();
                line.contains("CTE Scan on record record")
                    && rows.parse().is_ok_and(|rows: u64| rows >= 1_000)
            };
            assert!(
                cache_mode != "force_generic_plan"
                    || (record.lines().any(expects_many)
                        && !record.lines().any(is_compared_with_all)),
                "{table}, {cache_mode}:\n{record}"
            );

            let plan = plan(&mut connection, CLAIMED, cache_mode).await;
            let uses = |index: &str| plan.matches(&format!("using {index} ")).count();
            let context = format!("{table}, {cache_mode}:\n{plan}");
            // Rows that were never claimed: those that are due, and the time of the next one.
            assert_eq!(uses("outbox_fresh"), 2, "{context}");
            // Rows that were: the same, and more of those that are due.
            assert_eq!(uses("outbox_again"), 3, "{context}");
            // The claimed rows and the ended ones, by the places that were found by these.
            assert_eq!(plan.matches("Tid Scan on outbox").count(), 2, "{context}");
            assert_eq!(uses("outbox_pkey"), 0, "{context}");
            assert!(!plan.contains("Seq Scan on outbox"), "{context}");
            assert!(!plan.contains("Seq Scan on lane"), "{context}");
        }
    };
    check("empty").await;
    world.insert_many(30_000).await;
    check("big, not analyzed").await;
    world.execute("analyze signaling.outbox").await;
    check("big, analyzed").await;
    world
        .execute("update signaling.outbox set status = 'failed', finished_at = now() where id % 1000 <> 0")
        .await;
    check("nearly all final, analyzed before").await;
    world.execute("vacuum analyze signaling.outbox").await;
    check("nearly all final, analyzed").await;
    world.execute("delete from signaling.outbox").await;
    world.execute("vacuum analyze signaling.outbox").await;
    world.insert_many(30_000).await;
    check("big, analyzed while empty").await;
}
