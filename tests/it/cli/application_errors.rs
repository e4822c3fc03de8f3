//! Errors that the application's triggers and constraints cause: the operator reads the SQLSTATE and the place, and never a
//! payload.

use serde_json::json;

use testkit::{World, assert_contains, peer};

const PAYLOAD: &str = "Hush-4711";

/// The body of a trigger function on the outbox, or another statement that makes a cancellation fail, and what the command
/// says about it.
struct Refusal {
    body: &'static str,
    phrases: &'static [&'static str],
}

const REFUSALS: [Refusal; 8] = [
    Refusal {
        body: "raise exception 'I refuse %', new.payload;",
        phrases: &[
            "SQLSTATE P0001",
            "function public.guard()",
            "server's log has the message",
        ],
    },
    Refusal {
        body: "raise exception 'I refuse %', new.payload using errcode = 'ZX001', constraint = 'no_end', hint = new.payload;",
        phrases: &[
            "SQLSTATE ZX001",
            "constraint no_end",
            "function public.guard()",
        ],
    },
    Refusal {
        body: "assert false, new.payload;",
        phrases: &["SQLSTATE P0004", "function public.guard()"],
    },
    Refusal {
        body: "perform new.payload::integer;",
        phrases: &["SQLSTATE 22P02", "function public.guard()", "server's log"],
    },
    Refusal {
        body: "execute new.payload;",
        phrases: &["SQLSTATE 42601", "function public.guard()"],
    },
    Refusal {
        body: "perform public.judge(new);",
        phrases: &["SQLSTATE ZX002", "function public.judge(signaling.outbox)"],
    },
    Refusal {
        body: "insert into public.audit (who) values (null);",
        phrases: &[
            "server's log has the message",
            "SQLSTATE 23502",
            "table public.audit",
            "function public.guard()",
        ],
    },
    Refusal {
        body: "insert into public.closed values (1);",
        phrases: &["SQLSTATE 42501", "function public.guard()"],
    },
];

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
    for Refusal { body, phrases } in REFUSALS {
        let owner = if body.contains("closed") {
            format!(
                "alter function public.guard() owner to {nobody}; alter function public.guard() security definer;"
            )
        } else {
            String::new()
        };
        let id = world.insert(peer(json!({"payload": PAYLOAD}))).await;
        world
            .execute(&format!(
                "create or replace function public.guard() returns trigger language plpgsql as $$ begin {body} return new; end $$;
                 {owner}
                 create or replace trigger guard before update on signaling.outbox for each row execute function public.guard()"
            ))
            .await;
        let finished = world
            .command(&["cancel", &id.to_string()])
            .fails(1, phrases)
            .await;
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!said.contains(PAYLOAD), "{body}: {said}");
        assert!(!said.contains("no operator"), "{body}: {said}");
        assert_eq!(world.row(id).await.status, "pending");
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
    let id = world.insert(peer(json!({"payload": PAYLOAD}))).await;
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
                "alter table signaling.outbox add constraint no_end check ({check})"
            ))
            .await;
        let finished = world.command(&["cancel", &id.to_string()]).finish().await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert_contains(&said, phrases);
        assert!(!said.contains(PAYLOAD), "{said}");
        world
            .execute("alter table signaling.outbox drop constraint no_end")
            .await;
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
