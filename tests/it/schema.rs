//! The contract with the application: what the table takes and refuses, and how it gets into a database.

mod cancelling;
mod constraints;
mod functions;
mod last_release;
mod migrating;
mod names;
mod obstacles;
mod plan;
mod prepared;
pub(crate) mod protocol;
pub(crate) mod roles;

use sqlx::postgres::PgDatabaseError;
use sqlx::{AssertSqlSafe, PgConnection};

use harness::World;

/// An insert with the columns that have no default.
const INSERT: &str =
    "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')";

async fn try_to(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
    statement.execute(connection).await.map(|_| ())
}

/// Changes the rows of workers by hand. After the columns, there may be a `where`.
async fn set_workers(world: &World, changes: &str) {
    let update = format!("update signaling.worker set {changes}");
    world.execute(&update).await;
}

/// The attempts of a message in `signaling.attempt`: number, outcome, fault, whether it was charged, and the worker.
async fn attempt_lines(world: &World, id: i64) -> Vec<String> {
    world
        .column(&format!(
            "select concat_ws(' ', attempt, outcome, fault, case when charged then 'charged' else 'uncharged' end, claimed_by)
             from signaling.attempt where message_id = {id} order by id"
        ))
        .await
}

fn database_error(error: sqlx::Error) -> PgDatabaseError {
    let error = error.into_database_error();
    *error.expect("an error of the database").downcast()
}

/// The error of a statement that Postgres has to refuse.
async fn refusal(world: &World, statement: &str) -> PgDatabaseError {
    let mut connection = world.pool.acquire().await.expect("a connection");
    let done = try_to(&mut connection, statement).await;
    database_error(done.expect_err(statement))
}
