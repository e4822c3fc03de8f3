//! Statements that the worker has given up.

use std::time::Duration;

use harness::{PATIENCE, PgBouncer, Postgres, World};

/// Soon after a client has given up, also where its deadline was a long one.
const SOON: Duration = Duration::from_secs(10);

/// Has every claim sleep for ten minutes in a trigger, on a database whose own writes are slow: otherwise the second claim
/// would find the message, and pass over it.
const HANGING_CLAIMS: &str = "create function public.hang() returns trigger language plpgsql as
    $$ begin perform pg_catalog.pg_sleep(600); return new; end $$;
    create trigger hang before update of claim_id on signaling.outbox for each row execute function public.hang();
    create function public.lag() returns trigger language plpgsql as
    $$ begin perform pg_catalog.pg_sleep(0.3); return new; end $$;
    create trigger lag before insert on signaling.refused for each row execute function public.lag()";

/// The age of the oldest statement that sleeps, in seconds.
async fn oldest_sleep_s(world: &World) -> Option<i32> {
    world
        .ask(
            "select max(extract(epoch from clock_timestamp() - query_start))::integer from pg_stat_activity
             where datname = current_database() and wait_event = 'PgSleep'",
        )
        .await
}

async fn until_no_statement_sleeps(world: &World) {
    let is_over = async || oldest_sleep_s(world).await.is_none();
    world.until("the statement has ended", SOON, is_over).await;
}

async fn abandoned_claims_end(world: &World, url: &str) {
    world.execute(HANGING_CLAIMS).await;
    world.insert_many(1).await;
    let mut worker = world.worker().env("DATABASE_URL", url).start();
    // The worker waits for 4 s, lets the server wait for 4 s, and then waits for 8 s.
    worker.until_logged("database_failed").await;
    let mut longest_s = 0;
    world
        .until("a second claim was abandoned", PATIENCE, async || {
            let age_s = oldest_sleep_s(world).await.unwrap_or(0);
            let before_s = longest_s;
            longest_s = longest_s.max(age_s);
            before_s >= 6 && age_s < before_s
        })
        .await;
    assert!(longest_s <= 10, "a statement ran for {longest_s} s");
    worker.kill().await;
    until_no_statement_sleeps(world).await;
    world.execute("drop trigger hang on signaling.outbox").await;
    let _worker = world.worker().env("DATABASE_URL", url).start();
    world.until_sent(1).await;
}

#[tokio::test]
async fn an_abandoned_claim_ends_on_the_server_within_seconds() {
    let world = World::new().await;
    abandoned_claims_end(&world, &world.url).await;
}

#[tokio::test]
async fn an_abandoned_claim_ends_on_the_server_behind_a_pooler() {
    let world = World::new().await;
    let pooler = PgBouncer::start(Postgres::shared().await, "").await;
    abandoned_claims_end(&world, &pooler.url(&world.url)).await;
}

#[tokio::test]
async fn a_killed_command_without_a_deadline_ends_on_the_server() {
    let world = World::new().await;
    let pooler = PgBouncer::start(Postgres::shared().await, "").await;
    world.insert_failed("default").await;
    world
        .execute(&HANGING_CLAIMS.replace("update of claim_id", "update of status"))
        .await;
    for url in [world.url.clone(), pooler.url(&world.url)] {
        let retry = world.command(&["retry", "--all"]).env("DATABASE_URL", &url);
        let mut command = retry.start();
        let hangs = async || oldest_sleep_s(&world).await.is_some();
        world.until("the command hangs", PATIENCE, hangs).await;
        command.kill().await;
        until_no_statement_sleeps(&world).await;
    }
}
