//! The statements of the hot path go by their indexes, whatever Postgres knows of the table.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use testkit::World;

const CLAIM: &str = include_str!("../../../src/outbox/queue/claim.sql");
const RECORD: &str = include_str!("../../../src/outbox/queue/record.sql");
const SESSION: &str = include_str!("../../../src/outbox/pool.rs");

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

async fn execute(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(&world.url).await.expect("connected")
}

/// A session that has been told what a worker's are, with both statements prepared.
async fn session(world: &World) -> PgConnection {
    let mut connection = connect(world).await;
    // What src/outbox/pool.rs tells every session.
    for setting in [
        "enable_seqscan = off",
        "enable_bitmapscan = off",
        "jit = off",
    ] {
        assert!(
            SESSION.contains(setting),
            "sessions are told something else now"
        );
        execute(&mut connection, &format!("set {setting}")).await;
    }
    let prepare = format!(
        "prepare claim (text, bigint, bigint, bigint, uuid, text, boolean, timestamptz, timestamptz, bigint, timestamptz, bigint, bigint) as {CLAIM};
         prepare record (bigint[], uuid[], timestamptz[], text[], int[], timestamptz[], int[], text[], text[], text[],
                         bigint[], text) as {RECORD}"
    );
    execute(&mut connection, &prepare).await;
    connection
}

#[tokio::test]
async fn claim_and_record_go_by_their_indexes_on_tables_of_any_size_and_with_any_statistics() {
    let world = World::new().await;
    let mut connection = session(&world).await;
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
            // The lane is locked, written, and looked up for that.
            assert_eq!(uses("lane_newest"), 3, "{context}");
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

/// How many pages of lanes and bells a statement looks at, on average of some.
async fn pages_of_lanes(mut session: PgConnection, statement: &str) -> i64 {
    const TIMES: usize = 20;
    execute(&mut session, "begin").await;
    for _ in 0..TIMES {
        execute(&mut session, statement).await;
    }
    // Of all that a session has not reported yet: nothing but this.
    let looks: i64 = sqlx::query_scalar(
        "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint from pg_class
         where relkind in ('r', 'i') and relnamespace = 'signaling'::regnamespace and relname ~ '^(lane|bell)'",
    )
    .fetch_one(&mut session)
    .await
    .expect("a count");
    looks / i64::try_from(TIMES).expect("few")
}

#[tokio::test]
async fn claims_and_inserts_pass_few_versions_of_a_lane_while_somebody_holds_a_snapshot() {
    const MESSAGES: i64 = 2_000;
    const INSERT: &str = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')";
    let world = World::new().await;
    world
        .execute(
            "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s)
             values ('default', 1000000, 1000000, 980000)",
        )
        .await;
    let mut holder = connect(&world).await;
    let snapshot = "begin isolation level repeatable read; select 1";
    execute(&mut holder, snapshot).await;

    // A lane that takes each message as it comes, and wants the bell rung.
    let claim = CLAIMED.replace("'2001-01-01', 17", "null, 0");
    let claim = format!("execute {claim}");
    let mut connection = session(&world).await;
    for _ in 0..MESSAGES {
        execute(&mut connection, INSERT).await;
        execute(&mut connection, &claim).await;
    }
    assert_eq!(world.count("claim_id is not null").await, MESSAGES);
    let pages: i64 = world
        .ask("select pg_relation_size('signaling.lane') / current_setting('block_size')::int")
        .await;
    assert!(pages >= 20, "only {pages} pages of versions are kept");

    let looks = pages_of_lanes(connect(&world).await, INSERT).await;
    assert!(looks <= 10, "an insert looks at {looks} pages");
    let insert_and_claim = format!("{INSERT}; {claim}");
    let looks = pages_of_lanes(session(&world).await, &insert_and_claim).await;
    assert!(looks <= 35, "an insert and a claim look at {looks} pages");
}
