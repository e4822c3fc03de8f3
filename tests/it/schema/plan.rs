//! The functions of the hot path go by the indexes that their heads name, whatever Postgres knows of the tables.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testkit::World;

/// A hot function, its file, and a call that does all its work: on a table with messages, if there are any.
const HOT: [(&str, &str, &str); 5] = [
    ("claim", include_str!("../../../migrations/functions/claim.sql"), CLAIM),
    (
        "record",
        include_str!("../../../migrations/functions/record.sql"),
        "select from signaling.record(
             'me', array(select id from picked), array(select claim_id from picked), array(select now() from picked),
             array(select 'failed' from picked), array(select true from picked), array(select now() from picked),
             array(select 500 from picked), array(select 'id' from picked), array(select 'why' from picked),
             array(select null::text from picked), array(select interval '1 second' from picked))",
    ),
    (
        "next_due",
        include_str!("../../../migrations/functions/next_due.sql"),
        "select from signaling.next_due(array['default', 'other'], '{-infinity,-infinity}', '{0,0}',
             '{-infinity,-infinity}', '{0,0}', '1 second', '2 seconds')",
    ),
    (
        "expire",
        include_str!("../../../migrations/functions/expire.sql"),
        "select from signaling.expire(array['default', 'other'], 'infinity')",
    ),
    (
        "release",
        include_str!("../../../migrations/functions/release.sql"),
        "select from signaling.release('default', array['c0ffee00-0000-4000-8000-000000000000'::uuid])",
    ),
];

const CLAIM: &str = "select from signaling.claim(
    app => 'default', claim_id => 'c0ffee00-0000-4000-8000-000000000000', claimed_by => 'me', max_messages => 100,
    lease => '30 seconds', horizon => '1 second', lookahead => '0', lost_before => 'infinity',
    first_after_at => '-infinity', first_after_id => 0, retry_after_at => '-infinity', retry_after_id => 0,
    poll_interval => '2 seconds', wants_wakeup => true)";

async fn execute(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

async fn connect(world: &World) -> PgConnection {
    PgConnection::connect(&world.url).await.expect("connected")
}

/// A world with a lane that gives out 1,000 slots a second, in which Postgres learns nothing by itself.
async fn world() -> World {
    let world = World::new().await;
    world
        .execute(
            "select signaling.open_lane('default', 1020);
             alter table signaling.outbox set (autovacuum_enabled = false);
             alter table signaling.lane set (autovacuum_enabled = false)",
        )
        .await;
    world
}

/// The indexes that the head of a function's file names.
fn named_indexes(text: &str) -> Vec<&str> {
    let head = text.split("create or replace").next().expect("a head");
    let line = head
        .lines()
        .find(|line| line.starts_with("-- Index"))
        .expect("the head names the indexes");
    let sentence = line.split('.').next().expect("a sentence");
    sentence
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("outbox_") || word.starts_with("lane_"))
        .collect()
}

/// How often each table and index of the outbox and the lanes was scanned since the session last reported: scans of a
/// table are sequential.
async fn scans(connection: &mut PgConnection) -> BTreeMap<String, i64> {
    let scans: Vec<(String, i64)> = sqlx::query_as(
        "select relname::text, pg_stat_get_xact_numscans(oid) from pg_class
         where relkind in ('r', 'i') and relnamespace = 'signaling'::regnamespace and relname ~ '^(outbox|lane)'",
    )
    .fetch_all(connection)
    .await
    .expect("counts");
    scans.into_iter().collect()
}

/// The tables and indexes that a statement scanned. Undoes what it did.
async fn scanned(session: &mut PgConnection, statement: &str) -> Vec<String> {
    execute(
        session,
        "begin;
         -- Messages for record() and release(): those of a claim.
         create temp table picked on commit drop as select 0::bigint as id, null::uuid as claim_id limit 0",
    )
    .await;
    execute(session, CLAIM).await;
    execute(
        session,
        "insert into picked select id, claim_id from signaling.outbox where claim_id is not null;
         update signaling.lane set next_slot_at = 'epoch'",
    )
    .await;
    let before = scans(session).await;
    execute(session, statement).await;
    let after = scans(session).await;
    execute(session, "rollback").await;
    after
        .into_iter()
        .filter(|(name, scans)| before[name] != *scans)
        .map(|(name, _)| name)
        .collect()
}

/// Checks each hot function in sessions of its own and in one that has planned its statements long before.
async fn check(world: &World, old_session: &mut PgConnection, tables: &str) {
    let mut new_session = connect(world).await;
    for (name, text, call) in HOT {
        let named = named_indexes(text);
        for session in [&mut new_session, &mut *old_session] {
            let scanned = scanned(session, call).await;
            assert!(
                scanned.iter().all(|index| named.contains(&index.as_str())),
                "{name} on {tables} scans {scanned:?}, and its head names {named:?}"
            );
        }
    }
}

#[tokio::test]
async fn hot_functions_scan_the_indexes_that_they_name_with_any_statistics() {
    let world = world().await;
    let mut session = connect(&world).await;
    check(&world, &mut session, "empty tables").await;
    world.insert_many(30_000).await;
    world
        .execute(
            "update signaling.outbox set sent_at = now(), attempts = 1 where id % 3 = 0;
             update signaling.outbox set expires_at = now() where id % 100 = 1",
        )
        .await;
    check(&world, &mut session, "big tables, not analyzed").await;
    for (name, text, call) in HOT {
        let mut named: Vec<String> = named_indexes(text)
            .iter()
            .map(ToString::to_string)
            .collect();
        named.sort();
        let scanned = scanned(&mut session, call).await;
        assert_eq!(scanned, named, "{name} needs each index that it names");
    }
    world.execute("analyze signaling.outbox").await;
    check(&world, &mut session, "big tables, analyzed").await;
    world
        .execute("update signaling.outbox set status = 'failed', finished_at = now() where id % 1000 <> 0")
        .await;
    check(
        &world,
        &mut session,
        "tables of final messages, analyzed before",
    )
    .await;
    world.execute("vacuum analyze signaling.outbox").await;
    check(&world, &mut session, "tables of final messages, analyzed").await;
    world.execute("delete from signaling.outbox").await;
    world.execute("vacuum analyze signaling.outbox").await;
    world.insert_many(30_000).await;
    check(&world, &mut session, "big tables, analyzed while empty").await;
}

/// How many pages of some tables and their indexes some statements read. Undoes what they did.
async fn pages(session: &mut PgConnection, tables: &str, statements: &[&str]) -> i64 {
    execute(session, "begin").await;
    for statement in statements {
        execute(session, statement).await;
    }
    // Of all that a session has not reported yet: nothing but this.
    let pages: i64 = sqlx::query_scalar(
        "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint from pg_class
         where relkind in ('r', 'i') and relnamespace = 'signaling'::regnamespace and relname ~ $1",
    )
    .bind(tables)
    .fetch_one(&mut *session)
    .await
    .expect("a count");
    execute(session, "rollback").await;
    pages
}

#[tokio::test]
async fn claims_and_inserts_pass_few_versions_of_a_lane_while_a_snapshot_is_held() {
    const MESSAGES: i64 = 2_000;
    const INSERT: &str = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')";
    let world = World::new().await;
    world
        .execute("select signaling.open_lane('default', 1000000)")
        .await;
    let mut holder = connect(&world).await;
    let snapshot = "begin isolation level repeatable read; select 1";
    execute(&mut holder, snapshot).await;

    // A lane that takes each message as it comes, and wants to be notified.
    let mut connection = connect(&world).await;
    for _ in 0..MESSAGES {
        execute(&mut connection, INSERT).await;
        execute(&mut connection, CLAIM).await;
    }
    assert_eq!(world.count("claim_id is not null").await, MESSAGES);
    let versions: i64 = world
        .ask("select pg_relation_size('signaling.lane') / current_setting('block_size')::int")
        .await;
    assert!(versions >= 20, "only {versions} pages of versions are kept");

    for (statements, most) in [(&[INSERT][..], 10), (&[INSERT, CLAIM], 35)] {
        let mut session = connect(&world).await;
        // What a new session has to learn first does not count.
        let twenty = vec![statements; 20].concat();
        pages(&mut session, "^(lane|wakeup)", &twenty).await;
        let looks = pages(&mut session, "^(lane|wakeup)", &twenty).await / 20;
        assert!(looks <= most, "{statements:?} read {looks} pages");
    }
}

/// Writes the records of the messages in the table `picked`.
const RECORD: &str = HOT[1].2;

#[tokio::test]
async fn a_record_reads_its_own_message_and_not_all_that_are_pending() {
    // As many as the worker writes at once.
    const RECORDS: i64 = 200;
    let world = world().await;
    let mut old_session = connect(&world).await;
    let claim_all = "update signaling.outbox set claim_id = gen_random_uuid(), due_at = now() + interval '1 hour'";
    let mut check = async |tables: &str| {
        for session in [&mut connect(&world).await, &mut old_session] {
            execute(
                session,
                &format!(
                    "create temp table if not exists picked (id bigint, claim_id uuid);
                     truncate picked;
                     insert into picked select id, claim_id from signaling.outbox order by random() limit {RECORDS}"
                ),
            )
            .await;
            let pages = pages(session, "^outbox", &[RECORD]).await / RECORDS;
            assert!(pages <= 40, "{tables}: {pages} pages for each record");
        }
    };
    check("empty tables").await;
    world.insert_many(30_000).await;
    world.execute(claim_all).await;
    check("big tables, not analyzed").await;
    world.execute("analyze signaling.outbox").await;
    check("big tables, analyzed").await;
    world.execute("delete from signaling.outbox").await;
    world.execute("vacuum analyze signaling.outbox").await;
    world.insert_many(30_000).await;
    world.execute(claim_all).await;
    check("big tables, analyzed while empty").await;
}
