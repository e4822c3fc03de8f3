//! The functions of the hot path use the indexes that their heads name, with any statistics of the tables.

use std::collections::{BTreeMap, BTreeSet};

use harness::{World, execute};
use sqlx::PgConnection;

/// The functions that a claim calls and that name indexes: for a lane that sends, and for a held lane.
const OF_CLAIM: &str = "claim choose_due want_wakeup";
const OF_PROBE: &str = "claim choose_probe";

/// The hot functions: the functions whose files name their indexes, and a call that does all the work.
fn hot() -> [(&'static str, &'static str, String); 8] {
    [
        ("claim", OF_CLAIM, default_claim()),
        ("claim that avoids destinations", OF_CLAIM, claim_that_avoids()),
        ("claim of the oldest message for a held lane", OF_PROBE, claim("held", "false")),
        ("claim of the newest message for a held lane", OF_PROBE, claim("held_long", "false")),
        ("record", "record", RECORD.into()),
        (
            "next_due",
            "next_due",
            "select from signaling.next_due(array['default', 'other'], '{-infinity,-infinity}', '{0,0}',
                 '{-infinity,-infinity}', '{0,0}', '1 second', '2 seconds', true)"
                .into(),
        ),
        (
            "expire",
            "expire",
            "select from signaling.expire(array['default', 'other'], 'infinity')".into(),
        ),
        (
            "release",
            "release",
            "select from signaling.release('default', array['c0ffee00-0000-4000-8000-000000000000'::uuid])".into(),
        ),
    ]
}

fn claim(app: &str, wants_wakeup: &str) -> String {
    format!(
        "select from signaling.claim(
             app => '{app}', claim_id => 'c0ffee00-0000-4000-8000-000000000000', claimed_by => 'me', max_messages => 100,
             lease => '30 seconds', horizon => '1 second', lookahead => '0', ended_before => 'infinity',
             first_after_at => '-infinity', first_after_id => 0, retry_after_at => '-infinity', retry_after_id => 0,
             poll_interval => '2 seconds', wants_wakeup => {wants_wakeup})"
    )
}

fn default_claim() -> String {
    claim("default", "true")
}

fn claim_that_avoids() -> String {
    claim("default", "true, avoided => '{user-1,user-2}'")
}

/// Writes the records of the messages in the table `picked`.
const RECORD: &str = "select from signaling.record(
     'me', array(select id from picked), array(select claim_id from picked), array(select now() from picked),
     array(select null::interval from picked), array(select 'failed' from picked), array(select true from picked), array(select now() from picked),
     array(select 500 from picked), array(select 'id' from picked), array(select 'why' from picked),
     array(select null::text from picked), array(select interval '1 second' from picked))";

/// A world with a lane that gives out 1,000 slots a second, in which Postgres learns nothing by itself.
async fn world() -> World {
    let world = World::new().await;
    world
        .execute(
            "select signaling.open_lane('default', 1020);
             alter table signaling.outbox set (autovacuum_enabled = false);
             alter table signaling.lane set (autovacuum_enabled = false);
             insert into signaling.wakeup values ('default', now() + interval '40 seconds');
             -- Their next probes are the oldest and the newest message.
             select signaling.open_lane('held', 1020), signaling.open_lane('held_long', 1020);
             update signaling.lane
             set hold = 'unavailable', hold_reason = 'HTTP 500', hold_since = now(), hold_until = now(), hold_probes = 1
             where app like 'held%';
             update signaling.lane set hold_probes = 2 where app = 'held_long'",
        )
        .await;
    world
}

/// The indexes that the heads of functions' files name, in order.
fn named_indexes(functions: &str) -> Vec<String> {
    let mut named = BTreeSet::new();
    for function in functions.split(' ') {
        let path = format!(
            "{}/migrations/functions/{function}.sql",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = std::fs::read_to_string(path).expect("a function");
        let head = text.split("create or replace").next().expect("a head");
        let mut lines = head.lines();
        let line = lines.find(|line| line.starts_with("-- Index"));
        let sentence = line.expect("the head names the indexes").split('.').next();
        let words = sentence.expect("a sentence");
        let words = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let tables = ["outbox_", "lane_", "wakeup_", "worker_"];
        let indexes = words.filter(|word| tables.iter().any(|table| word.starts_with(table)));
        named.extend(indexes.map(str::to_owned));
    }
    named.into_iter().collect()
}

/// How often each table and index of the outbox, the lanes, the wakeups and the workers was scanned since the session last reported: scans of a
/// table are sequential.
async fn scans(connection: &mut PgConnection) -> BTreeMap<String, i64> {
    let scans: Vec<(String, i64)> = sqlx::query_as(
        "select relname::text, pg_stat_get_xact_numscans(oid) from pg_class
         where relkind in ('r', 'i') and relnamespace = 'signaling'::regnamespace and relname ~ '^(outbox|lane|wakeup|worker)'",
    )
    .fetch_all(connection)
    .await
    .expect("counts");
    scans.into_iter().collect()
}

/// Claims messages for `record()` and `release()`.
const CLAIMED: &str = "create temp table picked on commit drop as select 0::bigint as id, null::uuid as claim_id limit 0;
     $claim;
     insert into picked select id, claim_id from signaling.outbox where claim_id is not null;
     update signaling.lane set next_slot_at = 'epoch'";

/// The tables and indexes that a statement scanned after a preparation. Undoes both.
async fn scanned(session: &mut PgConnection, preparation: &str, statement: &str) -> Vec<String> {
    let preparation = preparation.replace("$claim", &default_claim());
    execute(session, &format!("begin; {preparation}")).await;
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
    let mut new_session = world.connect().await;
    for (name, functions, call) in hot() {
        let named = named_indexes(functions);
        for session in [&mut new_session, &mut *old_session] {
            let scanned = scanned(session, CLAIMED, &call).await;
            assert!(
                scanned.iter().all(|index| named.contains(index)),
                "{name} on {tables} scans {scanned:?}, and its head names {named:?}"
            );
        }
    }
}

#[tokio::test]
async fn hot_functions_scan_the_indexes_that_they_name_with_any_statistics() {
    let world = world().await;
    let mut session = world.connect().await;
    check(&world, &mut session, "empty tables").await;
    world.insert_many(300).await;
    world.execute("analyze signaling.outbox").await;
    check(&world, &mut session, "small tables, analyzed").await;
    world.insert_many(30_000).await;
    world
        .execute(
            "update signaling.outbox set app = 'held' where id % 5 = 0;
             update signaling.outbox set app = 'held_long' where id % 5 = 1;
             update signaling.outbox set sent_at = now(), attempts = 1 where id % 3 = 0;
             update signaling.outbox set expires_at = now() where id % 100 = 1",
        )
        .await;
    check(&world, &mut session, "big tables, analyzed while small").await;
    for (name, functions, call) in hot() {
        let named = named_indexes(functions);
        let scanned = scanned(&mut session, CLAIMED, &call).await;
        assert_eq!(scanned, named, "{name} needs each index that it names");
    }
    world.execute("analyze signaling.outbox").await;
    check(&world, &mut session, "big tables, analyzed").await;
    world
        .set_messages("status = 'failed', finished_at = now() where id % 1000 <> 0")
        .await;
    let tables = "tables of final messages, analyzed before";
    check(&world, &mut session, tables).await;
    world.execute("vacuum analyze signaling.outbox").await;
    check(&world, &mut session, "tables of final messages, analyzed").await;
    world.execute("delete from signaling.outbox").await;
    world.execute("vacuum analyze signaling.outbox").await;
    world.insert_many(30_000).await;
    check(&world, &mut session, "big tables, analyzed while empty").await;
}

/// The reads of some tables and their indexes by a session since it last reported: pages; index entries, and rows in
/// sequential scans.
async fn counted(session: &mut PgConnection, tables: &str) -> (i64, i64) {
    sqlx::query_as(
        "select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint,
                sum(pg_stat_get_xact_tuples_returned(oid))::bigint
         from pg_class
         where relkind in ('r', 'i') and relnamespace = 'signaling'::regnamespace and relname ~ $1",
    )
    .bind(tables)
    .fetch_one(session)
    .await
    .expect("counts")
}

/// The reads of some statements, as in [`counted`]. Rolls their changes back.
async fn reads(session: &mut PgConnection, tables: &str, statements: &[&str]) -> (i64, i64) {
    execute(session, "begin").await;
    let before = counted(session, tables).await;
    for statement in statements {
        execute(session, statement).await;
    }
    let after = counted(session, tables).await;
    execute(session, "rollback").await;
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test]
async fn claims_and_inserts_pass_few_versions_of_a_lane_while_a_snapshot_is_held() {
    const MESSAGES: i64 = 2_000;
    const INSERT: &str = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')";
    let world = World::new().await;
    world
        .execute("select signaling.open_lane('default', 1000000)")
        .await;
    let mut holder = world.connect().await;
    let snapshot = "begin isolation level repeatable read; select 1";
    execute(&mut holder, snapshot).await;

    // A lane that takes each message as it comes, and wants to be notified.
    let mut connection = world.connect().await;
    let claim = default_claim();
    for _ in 0..MESSAGES {
        execute(&mut connection, INSERT).await;
        execute(&mut connection, &claim).await;
    }
    assert_eq!(world.count("claim_id is not null").await, MESSAGES);
    let versions: i64 = world
        .ask("select pg_relation_size('signaling.lane') / current_setting('block_size')::int")
        .await;
    assert!(versions >= 20, "only {versions} pages of versions are kept");

    for (statements, most) in [(&[INSERT][..], 10), (&[INSERT, &claim], 35)] {
        let mut session = world.connect().await;
        // The catalog reads of a new session do not count.
        let twenty = vec![statements; 20].concat();
        reads(&mut session, "^(lane|wakeup)", &twenty).await;
        let (pages, _) = reads(&mut session, "^(lane|wakeup)", &twenty).await;
        let pages = pages / 20;
        assert!(pages <= most, "{statements:?} read {pages} pages");
    }
}

#[tokio::test]
async fn a_scan_position_spares_a_claim_the_dead_entries_that_a_snapshot_keeps() {
    const MESSAGES: i32 = 2_000;
    let world = world().await;
    let mut holder = world.connect().await;
    let statement = "begin isolation level repeatable read; select 1";
    execute(&mut holder, statement).await;
    world.insert_many(MESSAGES).await;
    world
        .set_messages("status = 'failed', finished_at = now()")
        .await;
    let mut session = world.connect().await;
    let (_, entries) = reads(&mut session, "^outbox", &[&default_claim()]).await;
    assert!(entries >= i64::from(MESSAGES), "only {entries} are kept");
    let newest = "select format('first_after_at => %L, first_after_id => %s', due_at, id)
                  from signaling.outbox order by due_at desc, id desc limit 1";
    let newest: String = world.ask(newest).await;
    let beginning = "first_after_at => '-infinity', first_after_id => 0";
    let claim = default_claim().replace(beginning, &newest);
    assert!(claim.contains(&newest), "{claim}");
    let (_, entries) = reads(&mut session, "^outbox", &[&claim]).await;
    assert!(entries <= 10, "{entries} entries are read");
}

#[tokio::test]
async fn a_record_reads_its_own_message_and_not_all_that_are_pending() {
    // As many as the worker writes at once.
    const RECORDS: i64 = 200;
    let world = world().await;
    let mut old_session = world.connect().await;
    let claim_all = "update signaling.outbox set claim_id = gen_random_uuid(), due_at = now() + interval '1 hour'";
    let mut check = async |tables: &str| {
        for session in [&mut world.connect().await, &mut old_session] {
            let statement = format!(
                    "create temp table if not exists picked (id bigint, claim_id uuid);
                     truncate picked;
                     insert into picked select id, claim_id from signaling.outbox order by random() limit {RECORDS}"
                );
            execute(session, &statement).await;
            let (_, entries) = reads(session, "^outbox", &[RECORD]).await;
            let each = entries / RECORDS;
            assert!(each <= 20, "{tables}: {each} entries or rows a record");
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

#[tokio::test]
async fn a_claim_that_avoids_a_destination_reads_a_bounded_number_of_its_first_attempts() {
    const MESSAGES: i32 = 20_000;
    let world = world().await;
    world.insert_many(MESSAGES).await;
    world.set_messages("destination = 'user-1'").await;
    world.execute("vacuum analyze signaling.outbox").await;
    let mut session = world.connect().await;
    let (_, entries) = reads(&mut session, "^outbox", &[&claim_that_avoids()]).await;
    // The claim finds the last message to read, and reads the messages up to there.
    assert!((4_000..=4_100).contains(&entries), "{entries} entries");
}

#[tokio::test]
async fn a_held_lane_compares_a_bounded_number_of_messages_for_its_probe() {
    const MESSAGES: i32 = 20_000;
    let world = world().await;
    world.insert_many(MESSAGES).await;
    world
        .execute(
            "update signaling.outbox set app = case id % 2 when 0 then 'held' else 'held_long' end;
             update signaling.outbox set sent_at = now() where id % 3 = 0",
        )
        .await;
    world.execute("vacuum analyze signaling.outbox").await;
    let mut session = world.connect().await;
    for app in ["held", "held_long"] {
        let claim = claim(app, "false");
        let (_, entries) = reads(&mut session, "^outbox", &[&claim]).await;
        // A hundred of each kind.
        assert!((200..=250).contains(&entries), "{entries} entries");
    }
}

/// The functions that write the list of workers: a name, and a call.
const OF_WORKERS: [(&str, &str); 2] = [
    (
        "report_worker",
        "select from signaling.report_worker((select worker_id from picked), 'me', '1', 'here', '{app-1,app-2}', '{app-1,app-2}',
                                             '{1,2}', '{3,4}', '{false,true}', '{null,why}')",
    ),
    (
        "retire_worker",
        "select from signaling.retire_worker((select worker_id from picked))",
    ),
];

#[tokio::test]
async fn the_functions_of_the_registry_scan_the_indexes_that_they_name() {
    let world = World::new().await;
    world
        .execute(
            "alter table signaling.worker set (autovacuum_enabled = false);
             alter table signaling.worker_app set (autovacuum_enabled = false)",
        )
        .await;
    let mut old_session = world.connect().await;
    let mut check = async |tables: &str| {
        let mut new_session = world.connect().await;
        for (name, call) in OF_WORKERS {
            let named = named_indexes(name);
            for session in [&mut new_session, &mut old_session] {
                let scanned = scanned(session, REGISTERED, call).await;
                assert_eq!(scanned, named, "{name} on {tables}");
            }
        }
    };
    check("empty tables").await;
    let workers = "insert into signaling.worker
                   select gen_random_uuid(), 'n', '1', 'h', '{}', now(), now() from generate_series(1, 50);
                   insert into signaling.worker_app (app, worker_id)
                   select 'app-' || n, worker_id from signaling.worker, generate_series(1, 20) as n
                   on conflict do nothing";
    let analyze = "analyze signaling.worker, signaling.worker_app";
    world.execute(&workers.replace("50", "3")).await;
    world.execute(analyze).await;
    check("small tables, analyzed").await;
    world.execute(workers).await;
    check("big tables, analyzed while small").await;
    world.execute(analyze).await;
    check("big tables, analyzed").await;
}

/// Registers the worker that calls.
const REGISTERED: &str = "create temp table picked on commit drop as select gen_random_uuid() as worker_id;
     insert into signaling.worker select worker_id, 'me', '1', 'here', '{}', now(), now() from picked;
     insert into signaling.worker_app (app, worker_id) select 'app-1', worker_id from picked;
     -- One report in a hundred deletes old workers, for which no index is needed.
     select setseed(0.5)";
