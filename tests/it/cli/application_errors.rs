//! Errors that the application's triggers and constraints cause: the operator reads the SQLSTATE and the place, and never a
//! payload.

use serde_json::json;

use harness::{World, assert_contains, peer};

const PAYLOAD: &str = "Hush-4711";

/// Asserts that a message with the payload can't be cancelled, and that the command names the cause by these phrases.
async fn cancel_fails(world: &World, phrases: &[&str]) {
    let id = world.insert(peer(json!({"payload": PAYLOAD}))).await;
    let cancel = world.command(&["cancel", &id.to_string()]);
    let finished = cancel.fails(1, &[]).await;
    let output = finished.stdout + &finished.stderr;
    assert_contains(&output, phrases);
    for forbidden in [PAYLOAD, "no operator"] {
        assert!(!output.contains(forbidden), "{output}");
    }
    assert_eq!(world.row(id).await.status, "pending");
}

#[tokio::test]
async fn a_refusal_by_the_application_shows_its_code_and_place_and_no_payload() {
    let world = World::new().await;
    let nobody = format!("nobody_{}", std::process::id());
    world
        .execute(&format!(
            "create role {nobody}; grant create, usage on schema public to {nobody};
             create table public.audit (who text not null);
             create table public.closed (id integer);
             create function public.judge(message signaling.outbox) returns void language plpgsql as
             $$ begin raise exception 'I refuse %', message.payload using errcode = 'ZX002'; end $$"
        ))
        .await;
    // Bodies of a trigger function.
    let guard = "function public.guard()";
    for (body, phrases) in [
        (
            "raise exception 'I refuse %', new.payload;",
            &["SQLSTATE P0001", guard, "server's log has the message"][..],
        ),
        (
            "raise exception 'I refuse %', new.payload using errcode = 'ZX001', constraint = 'no_end', hint = new.payload;",
            &["SQLSTATE ZX001", "constraint no_end", guard],
        ),
        ("assert false, new.payload;", &["SQLSTATE P0004", guard]),
        (
            "perform new.payload::integer;",
            &["SQLSTATE 22P02", guard, "server's log"],
        ),
        ("execute new.payload;", &["SQLSTATE 42601", guard]),
        (
            "perform public.judge(new);",
            &["SQLSTATE ZX002", "function public.judge(signaling.outbox)"],
        ),
        (
            "insert into public.audit (who) values (null);",
            &[
                "server's log has the message",
                "SQLSTATE 23502",
                "table public.audit",
                guard,
            ],
        ),
        (
            "insert into public.closed values (1);",
            &["SQLSTATE 42501", guard],
        ),
    ] {
        let owner = if body.contains("closed") {
            format!(
                "alter function public.guard() owner to {nobody}; alter function public.guard() security definer;"
            )
        } else {
            String::new()
        };
        world
            .execute(&format!(
                "create or replace function public.guard() returns trigger language plpgsql as $$ begin {body} return new; end $$;
                 {owner}
                 create or replace trigger guard before update on signaling.outbox for each row execute function public.guard()"
            ))
            .await;
        cancel_fails(&world, phrases).await;
    }
    world
        .execute(&format!(
            "drop owned by {nobody} cascade; drop role {nobody}"
        ))
        .await;
}

#[tokio::test]
async fn a_refusal_by_a_constraint_names_it_and_its_table() {
    let world = World::new().await;
    for (check, phrases) in [
        (
            "status <> 'cancelled'",
            &[
                "violates check constraint",
                "SQLSTATE 23514",
                "table signaling.outbox",
                "constraint no_end",
            ][..],
        ),
        (
            "status <> 'cancelled' or payload::integer > 0",
            &["SQLSTATE 22P02", "server's log has the message"],
        ),
    ] {
        world
            .execute(&format!(
                "alter table signaling.outbox drop constraint if exists no_end, add constraint no_end check ({check})"
            ))
            .await;
        cancel_fails(&world, phrases).await;
    }
}

/// A trigger on a table of the schema makes every claim fail.
#[tokio::test]
async fn the_log_of_a_database_that_fails_names_the_trigger_behind_it() {
    let world = World::new().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    world
        .execute(
            "create function public.guard() returns trigger language plpgsql as
             $$ begin raise exception 'I refuse' using errcode = 'ZX001', constraint = 'no_claim'; end $$;
             create trigger guard before update on signaling.lane for each row execute function public.guard()",
        )
        .await;
    let id = world.insert(peer(json!({}))).await;
    worker.until_logged("database_failed").await;
    let line = worker.log_line("database_failed");
    let phrases = ["SQLSTATE ZX001", "constraint no_claim", "public.guard()"];
    assert_contains(&line, &phrases);
    world.execute("drop trigger guard on signaling.lane").await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.stop().await;
}
