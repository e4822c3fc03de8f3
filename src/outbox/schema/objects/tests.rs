use sqlx::migrate::Migrate;
use testkit::postgres::ThrowawayPostgres;

use super::super::version::TABLE;
use super::*;

/// The newest version of Postgres that writes the texts of views as in the file.
const NEWEST_WITH_THESE_TEXTS: i32 = 159_999;

/// A connection to a database that the SQL files alone have migrated, because `worker migrate` reads the list of objects.
async fn migrated(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection
        .execute("set check_function_bodies = off")
        .await
        .unwrap();
    connection
        .create_schema_if_not_exists("signaling")
        .await
        .unwrap();
    connection.ensure_migrations_table(TABLE).await.unwrap();
    for migration in migrations() {
        connection.execute(migration.sql).await.unwrap();
    }
    for (_, text) in FUNCTIONS {
        connection.execute(*text).await.unwrap();
    }
    connection
}

async fn fresh_objects() -> (Vec<SchemaObject>, i32) {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("fresh").await.unwrap();
    let mut connection = migrated(&url).await;
    let mut transaction = connection.begin().await.unwrap();
    let objects = found_objects(&mut transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    let version = "select current_setting('server_version_num')::integer";
    let version = sqlx::query_scalar(version)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
    (objects, version)
}

/// With a stale list, `worker migrate` would keep an old function, and `worker check` would report a new one.
#[tokio::test]
async fn the_list_of_objects_is_that_of_a_database_just_migrated() {
    let (mut objects, version) = fresh_objects().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/objects.json");
    if std::env::var_os("WRITE_OBJECTS").is_some() {
        let text = serde_json::to_string_pretty(&objects).unwrap();
        std::fs::write(path, text + "\n").unwrap();
        return;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let mut listed: Vec<SchemaObject> = serde_json::from_str(&text).unwrap();
    if version > NEWEST_WITH_THESE_TEXTS {
        for object in objects.iter_mut().chain(&mut listed) {
            object.statement = None;
        }
    }
    for (object, listed) in objects.iter().zip(&listed) {
        assert_eq!(
            object, listed,
            "migrations/objects.json is stale: run `make schema-objects` with Postgres 14 or 15"
        );
    }
    assert_eq!(objects.len(), listed.len());
}

/// An operator copies these statements from `worker check`.
#[tokio::test]
async fn every_statement_makes_its_object_again_as_it_was() {
    let cluster = ThrowawayPostgres::start().await.unwrap();
    let url = cluster.create_database("damaged").await.unwrap();
    let mut connection = migrated(&url).await;
    // Dropping a column drops other objects with it, so columns come last.
    let (columns, others): (Vec<_>, Vec<_>) = EXPECTED
        .iter()
        .partition(|object| object.kind == ObjectKind::Column);
    let mut made = 0;
    for object in others.into_iter().chain(columns) {
        let Some(statement) = &object.statement else {
            continue;
        };
        let relation = object.relation.as_deref().unwrap_or_default();
        let part = &object.part;
        let drop = match object.kind {
            ObjectKind::Column => {
                format!("alter table signaling.{relation} drop column \"{part}\" cascade")
            }
            ObjectKind::Constraint => format!(
                "alter table signaling.{relation} drop constraint if exists \"{part}\" cascade"
            ),
            ObjectKind::Trigger => format!("drop trigger if exists {part} on signaling.{relation}"),
            ObjectKind::View => format!("drop view if exists signaling.{part} cascade"),
            ObjectKind::Index => format!("drop index if exists signaling.{part}"),
            ObjectKind::Function | ObjectKind::Table => panic!("{}: {statement}", object.name),
        };
        connection.execute(AssertSqlSafe(drop)).await.unwrap();
        // Postgres builds an index concurrently only outside of a transaction. psql sends each statement by itself.
        let separator = if object.kind == ObjectKind::Index {
            "; "
        } else {
            "\u{0}"
        };
        for statement in statement.split(separator) {
            let ran = connection.execute(AssertSqlSafe(statement)).await;
            ran.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        let mut transaction = connection.begin().await.unwrap();
        let found = found_objects(&mut transaction).await.unwrap();
        transaction.rollback().await.unwrap();
        let found = found.into_iter().find(|found| found.name == object.name);
        let definition = found.and_then(|found| found.definition);
        assert_eq!(
            definition, object.definition,
            "{}: {statement}",
            object.name
        );
        made += 1;
    }
    assert!(made > 100, "{made}");
    connection.close().await.unwrap();
    cluster.stop().await.unwrap();
}

#[test]
fn the_parts_of_a_lost_table_are_not_named() {
    let mut found = EXPECTED.clone();
    found.retain(|object| object.name != "table signaling.attempt");
    let damage = compare(found);
    let names: Vec<_> = damage.iter().map(Damage::name).collect();
    assert_eq!(names, ["table signaling.attempt"]);
    let error = SchemaError::check_damage(&damage).unwrap_err().to_string();
    assert!(
        error.contains("lacks table signaling.attempt: restore"),
        "{error}"
    );
    assert!(
        !error.contains("worker migrate"),
        "`worker migrate` creates no table again: {error}"
    );
}

#[test]
fn the_error_of_a_lost_schema_names_ten_objects_at_most() {
    let damage = compare(Vec::new());
    let error = SchemaError::check_damage(&damage).unwrap_err().to_string();
    assert!(error.len() < 700 && error.contains(" more: "), "{error}");
}

#[test]
fn an_object_whose_definition_postgres_may_write_otherwise_is_not_compared() {
    let mut found = EXPECTED.clone();
    for object in &mut found {
        object.definition = None;
    }
    assert!(compare(found).is_empty());
}

#[test]
fn workers_stop_without_their_functions_and_go_on_without_those_of_people() {
    let stops = |name: &str| {
        let mut found = EXPECTED.clone();
        found.retain(|object| object.name != name);
        let damage = compare(found);
        assert_eq!(damage.len(), 1, "{name}");
        damage[0].stops_workers()
    };
    for name in [
        "function signaling.claim",
        "function signaling.keep_claimable",
        "column app of signaling.outbox",
    ] {
        assert!(stops(name), "{name}");
    }
    for name in [
        "function signaling.pause",
        "function signaling.check_message",
        "view signaling.delivery",
        "index outbox_sent on signaling.outbox",
        "trigger check_message on signaling.outbox",
    ] {
        assert!(!stops(name), "{name}");
    }
}
