//! Statements that the worker has given up.

use std::time::Duration;

use serde_json::json;

use testkit::{PATIENCE, PgBouncer, Postgres, World, peer, until};

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

/// True while a statement sleeps that has begun so long ago.
async fn sleeps_for(world: &World, seconds: f64) -> bool {
    world
        .ask(&format!(
            "select exists (select from pg_stat_activity where datname = current_database()
             and wait_event = 'PgSleep' and query_start < clock_timestamp() - interval '{seconds} seconds')"
        ))
        .await
}

async fn ends_on_the_server(world: &World, url: &str) {
    world.execute(HANGING_CLAIMS).await;
    world.insert_many(1).await;
    let mut worker = world.worker().env("DATABASE_URL", url).start();
    // The worker waits for 4 s, lets the server wait for 4 s, and then waits for 8 s.
    worker.until_logged("database_failed").await;
    let mut longest_s = 0;
    until("a second claim was abandoned", PATIENCE, async || {
        let age_s: Option<i32> = world
            .ask(
                "select max(extract(epoch from clock_timestamp() - query_start))::integer from pg_stat_activity
                 where datname = current_database() and wait_event = 'PgSleep'",
            )
            .await;
        let before = longest_s;
        longest_s = longest_s.max(age_s.unwrap_or(0));
        before >= 6 && age_s.unwrap_or(0) < before
    })
    .await;
    assert!(longest_s <= 10, "a statement ran for {longest_s} s");
    worker.kill().await;
    until("nothing runs for a dead worker", SOON, async || {
        !sleeps_for(world, 0.0).await
    })
    .await;
    world.execute("drop trigger hang on signaling.outbox").await;
    let _worker = world.worker().env("DATABASE_URL", url).start();
    let holds = async || world.count("status = 'message_sent'").await == 1;
    world.until("the message is final", PATIENCE, holds).await;
}

#[tokio::test]
async fn an_abandoned_claim_ends_on_the_server_within_seconds() {
    let world = World::new().await;
    ends_on_the_server(&world, &world.url).await;
}

#[tokio::test]
async fn an_abandoned_claim_ends_on_the_server_behind_a_pooler() {
    let postgres = Postgres::shared().await;
    let world = World::new().await;
    let pooler = PgBouncer::start(postgres, "").await;
    ends_on_the_server(&world, &pooler.url(&world.url)).await;
}

#[tokio::test]
async fn a_killed_command_without_a_deadline_ends_on_the_server() {
    let postgres = Postgres::shared().await;
    let world = World::new().await;
    let pooler = PgBouncer::start(postgres, "").await;
    world.insert(peer(json!({}))).await;
    world
        .execute("update signaling.outbox set status = 'failed', attempts = 1, finished_at = now()")
        .await;
    world
        .execute(&HANGING_CLAIMS.replace("update of claim_id", "update of status"))
        .await;
    for url in [world.url.clone(), pooler.url(&world.url)] {
        let mut command = world
            .command(&["retry", "--all"])
            .env("DATABASE_URL", &url)
            .start();
        let holds = async || sleeps_for(&world, 0.0).await;
        world.until("the command hangs", PATIENCE, holds).await;
        command.kill().await;
        until("the statement ends", SOON, async || {
            !sleeps_for(&world, 0.0).await
        })
        .await;
    }
}
