//! A database that is brought up to date, with roles that were given rights by hand.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, SqlSafeStr};

use super::{ask, can, can_not, connect, try_to};
use testkit::{Postgres, Worker};

const ROLES: &str = include_str!("../../../../migrations/0003_roles.sql");

/// What README.md told people to grant before there was a command for it.
const BY_HAND: &str = "
    grant usage on schema signaling to {app}, {worker}, {operator};
    grant select, insert on signaling.outbox to {app};
    grant update (status, finished_at, error) on signaling.outbox to {app};
    grant select on signaling.delivery, signaling.attempt to {app}, {operator};
    grant select, update on signaling.outbox, signaling.lane to {worker}, {operator};
    grant insert on signaling.lane, signaling.attempt to {worker};
    grant select on signaling.schema_migrations to {worker}, {operator};";

/// A database as it was before roles had rights of their own.
async fn older_database() -> (String, PgConnection) {
    let url = Postgres::shared().await.empty_database().await;
    let mut connection = connect(&url).await;
    let migration = |version, name: &'static str, sql: &'static str| {
        let sql = sql.into_sql_str();
        Migration::new(version, name.into(), MigrationType::Simple, sql, false)
    };
    let mut migrator = Migrator::with_migrations(vec![
        migration(
            1,
            "outbox",
            include_str!("../../../../migrations/0001_outbox.sql"),
        ),
        migration(
            2,
            "lane control",
            include_str!("../../../../migrations/0002_lane_control.sql"),
        ),
    ]);
    migrator.dangerous_set_table_name("signaling.schema_migrations");
    migrator.create_schema("signaling");
    migrator.run(&mut connection).await.expect("migrated");
    (url, connection)
}

#[tokio::test]
async fn roles_that_were_given_rights_by_hand_can_do_what_they_could_and_others_still_can_not() {
    let (url, mut owner) = older_database().await;
    let database: String = ask(&mut owner, "select current_database()::text").await;
    let name = |kind: &str| format!("{kind} of \"{database}\"");
    let quoted = |kind: &str| format!("\"{}\"", name(kind).replace('"', "\"\""));
    let mut by_hand = BY_HAND.to_owned();
    for kind in ["app", "worker", "operator", "member", "writer", "stranger"] {
        can(&mut owner, &format!("create role {}", quoted(kind))).await;
        by_hand = by_hand.replace(&format!("{{{kind}}}"), &quoted(kind));
    }
    can(&mut owner, &by_hand).await;
    // Rights by way of another role, and by way of all tables.
    let (member, operator) = (quoted("member"), quoted("operator"));
    can(&mut owner, &format!("grant {operator} to {member}")).await;
    can(
        &mut owner,
        &format!(
            "grant pg_read_all_data, pg_write_all_data to {}",
            quoted("writer")
        ),
    )
    .await;
    can(
        &mut owner,
        &format!("grant usage on schema signaling to {}", quoted("stranger")),
    )
    .await;
    can(
        &mut owner,
        "insert into signaling.lane (app, limit_per_s, configured_per_s, rate_per_s) values ('default', 1, 1, 1)",
    )
    .await;

    let migrated = Worker::new(&["migrate"])
        .env("DATABASE_URL", &url)
        .finish()
        .await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");

    let steps = [
        "select signaling.pause('default')",
        "select signaling.resume('default')",
        "select signaling.set_limit('default', 5)",
        "select signaling.set_limit('default', null)",
        "select signaling.retry()",
        "select signaling.cancel(1)",
        "insert into signaling.rollup (minute, app, message_sent) values (now(), 'default', 1)
         on conflict (minute, app) do update set message_sent = rollup.message_sent + 1",
        "select signaling.take_census()",
    ];
    let insert =
        "insert into signaling.outbox (sender, destination, payload) values ('a', 'b', 'x')";
    for kind in ["app", "worker", "operator", "member", "writer", "stranger"] {
        can(&mut owner, &format!("set role {}", quoted(kind))).await;
        for step in steps {
            let may = match kind {
                "app" => step.contains("cancel"),
                "stranger" => false,
                _ => true,
            };
            if may {
                can(&mut owner, step).await;
            } else {
                can_not(&mut owner, step).await;
            }
        }
        let reads_statuses = ["app", "operator", "member", "writer"].contains(&kind);
        let read = try_to(&mut owner, "select * from signaling.delivery_status").await;
        assert_eq!(read.is_ok(), reads_statuses, "{kind}: {read:?}");
        let inserted = try_to(&mut owner, insert).await;
        assert_eq!(
            inserted.is_ok(),
            ["app", "writer"].contains(&kind),
            "{kind}"
        );
        can(&mut owner, "reset role").await;
    }
}

#[tokio::test]
async fn bringing_roles_in_takes_no_lock_on_a_table_but_that_of_a_reader() {
    let (url, mut owner) = older_database().await;
    let mut other = connect(&url).await;
    // Goes together with nothing but a reader's.
    let mut lock = other.begin().await.expect("begun");
    can(
        &mut lock,
        "lock table signaling.outbox, signaling.attempt, signaling.lane in exclusive mode",
    )
    .await;
    can(
        &mut owner,
        &format!("set lock_timeout = '1s'; begin; {ROLES} commit;"),
    )
    .await;
}
