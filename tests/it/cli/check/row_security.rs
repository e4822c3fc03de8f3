//! Row-level security on the schema's tables: what is sent, what is shown, and what the operator learns.

use super::{assert_line, check, said};
use crate::schema::roles::{Role, owned_world};
use serde_json::json;
use testkit::{PATIENCE, peer};

#[tokio::test]
async fn delivery_goes_on_without_force_and_pages_fail_instead_of_showing_nothing() {
    let world = owned_world().await;
    let role = Role::granted(&world, "worker").await;
    world
        .execute(
            "alter table signaling.outbox enable row level security;
             alter table signaling.attempt enable row level security",
        )
        .await;
    let id = world.insert(peer(json!({}))).await;
    let mut worker = world.worker().env("DATABASE_URL", &role.url).start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.stop().await;

    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    let phrases = ["attempt, outbox apply to", "bypassrls", "dashboard fail"];
    assert_line(&text, "warn", "row security", &phrases);
    let shown = role
        .command(&["message", &id.to_string()])
        .fails(1, &["row-level security"])
        .await;
    assert!(shown.stderr.contains("worker check"), "{shown:?}");

    world
        .execute(&format!("alter role {} bypassrls", role.name))
        .await;
    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    assert_line(&text, "ok", "row security", &[]);
    role.command(&["message", &id.to_string()]).succeeds().await;
}

#[tokio::test]
async fn forced_row_security_is_logged_with_what_to_do_and_so_is_its_end() {
    let world = owned_world().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    world
        .execute("alter table signaling.outbox enable row level security, force row level security")
        .await;
    let id = world.insert(peer(json!({}))).await;
    worker.until_logged("database_failed").await;
    let line = worker.log_line("database_failed");
    assert!(line.contains("no force row level security"), "{line}");
    assert!(world.calls_of("hello").is_empty());
    let text = said(check(&world), 1).await;
    let phrases = ["no force row level security"];
    assert_line(&text, "FAIL", "row security", &phrases);

    world
        .execute("alter table signaling.outbox no force row level security")
        .await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.until_logged("database_restored").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_starts_under_forced_row_security_says_why_nothing_is_sent() {
    for table in ["outbox", "lane"] {
        let world = owned_world().await;
        world
            .execute(&format!(
                "alter table signaling.{table} enable row level security, force row level security"
            ))
            .await;
        world.insert(peer(json!({}))).await;
        let mut worker = world.worker().start();
        let holds = async || worker.stderr.text().contains("row-level security");
        world.until("the worker says why", PATIENCE, holds).await;
        let text = worker.stderr.text();
        assert!(text.contains("worker check"), "{table}: {text}");
        assert!(world.calls_of("hello").is_empty());
        if table == "outbox" {
            worker.stop().await;
        } else {
            assert_eq!(worker.wait_exit().await, Some(1), "{table}");
        }
    }
}

#[tokio::test]
async fn every_command_of_an_operator_names_row_level_security_and_the_remedy() {
    let world = owned_world().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    worker.stop().await;
    let id = world.insert(peer(json!({}))).await.to_string();
    let operator = Role::granted(&world, "operator").await;
    let secure = async |change: &str| {
        for table in ["outbox", "lane", "worker", "refused"] {
            let statement = format!("alter table signaling.{table} {change}");
            world.execute(&statement).await;
        }
    };
    secure("enable row level security, force row level security").await;
    for arguments in [
        &["pause", "default"][..],
        &["resume", "default"],
        &["limit", "default", "5"],
        &["cancel", &id],
        &["retry", "--app", "default"],
        &[
            "adopt",
            "--environment",
            "tests",
            "--send-pending",
            "default",
        ],
        &["status"],
        &["workers"],
        &["message", &id],
    ] {
        let finished = operator
            .command(arguments)
            .fails(1, &["row-level security", "`alter ", "worker check"])
            .await;
        assert!(!finished.stderr.contains("no operator"), "{finished:?}");
    }
    // The functions pass over it, and the role can't read the report.
    secure("no force row level security").await;
    let paused = operator.command(&["pause", "default"]);
    let phrases = ["the change took effect", "row-level security", "`alter "];
    paused.fails(1, &phrases).await;
    assert!(
        world
            .ask::<bool>("select paused_at is not null from signaling.lane")
            .await
    );
}
