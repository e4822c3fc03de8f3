//! Row-level security on the schema's tables: which messages are sent, which are shown, and how the operator learns of it.

use super::{assert_finding, check};
use crate::schema::roles::{Role, owned_world};
use harness::{PATIENCE, World, assert_contains, peer};
use serde_json::json;

const ENABLE: &str = "alter table signaling.outbox enable row level security";
const FORCE: &str =
    "alter table signaling.outbox enable row level security, force row level security";

#[tokio::test]
async fn row_security_that_applies_to_the_functions_owner_fails() {
    let of_superuser = World::new().await;
    of_superuser.execute(FORCE).await;
    assert_finding(check(&of_superuser), "ok", "row security", &[]).await;
    let owned = owned_world().await;
    owned.execute(ENABLE).await;
    assert_finding(check(&owned), "ok", "row security", &[]).await;
    owned.execute(FORCE).await;
    let statement = "run alter table signaling.outbox no force row level security;";
    let phrases = ["policies on outbox", statement];
    assert_finding(check(&owned), "FAIL", "row security", &phrases).await;
}

#[tokio::test]
async fn delivery_goes_on_without_force_and_pages_fail_instead_of_showing_nothing() {
    let world = owned_world().await;
    let role = Role::granted(&world, "worker").await;
    world.execute(ENABLE).await;
    world
        .execute("alter table signaling.attempt enable row level security")
        .await;
    let id = world.insert(peer(json!({}))).await;
    let mut worker = world.worker().env("DATABASE_URL", &role.url).start();
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.stop().await;

    let check = || check(&world).env("DATABASE_URL", &role.url);
    let message = ["message", &id.to_string()];
    let phrases = ["attempt, outbox apply to", "bypassrls", "dashboard fail"];
    assert_finding(check(), "warn", "row security", &phrases).await;
    let phrases = ["row-level security", "worker check"];
    role.command(&message).fails(1, &phrases).await;

    let name = &role.name;
    world.execute(&format!("alter role {name} bypassrls")).await;
    assert_finding(check(), "ok", "row security", &[]).await;
    role.command(&message).succeeds().await;
}

#[tokio::test]
async fn forced_row_security_is_logged_with_what_to_do_and_so_is_its_end() {
    let world = owned_world().await;
    let mut worker = world.worker().start();
    worker.until_logged("worker_started").await;
    world.execute(FORCE).await;
    let id = world.insert(peer(json!({}))).await;
    worker.until_logged("database_failed").await;
    let line = worker.log_line("database_failed");
    assert_contains(&line, &["no force row level security"]);
    assert!(world.calls_of("hello").is_empty());

    world
        .execute("alter table signaling.outbox no force row level security")
        .await;
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.until_logged("database_restored").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_starts_under_forced_row_security_logs_why_it_sends_nothing() {
    for table in ["outbox", "lane"] {
        let world = owned_world().await;
        world.execute(&FORCE.replace("outbox", table)).await;
        world.insert(peer(json!({}))).await;
        let mut worker = world.worker().start();
        let holds = async || worker.stderr.text().contains("row-level security");
        world.until("the worker says why", PATIENCE, holds).await;
        assert_contains(&worker.stderr.text(), &["worker check"]);
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
    world.open_lane("default").await;
    let id = world.insert(peer(json!({}))).await.to_string();
    let operator = Role::granted(&world, "operator").await;
    let tables = ["outbox", "lane", "worker", "refused"];
    for table in tables {
        world.execute(&FORCE.replace("outbox", table)).await;
    }
    for arguments in [
        &["pause", "default"][..],
        &["resume", "default"],
        &["limit", "default", "5"],
        &["cancel", &id],
        &["retry", "--app", "default"],
        &["adopt", "--environment=tests", "--send-pending", "default"],
        &["status"],
        &["workers"],
        &["message", &id],
    ] {
        let command = operator.command(arguments);
        let phrases = ["row-level security", "`alter ", "worker check"];
        let finished = command.fails(1, &phrases).await;
        assert!(!finished.stderr.contains("no operator"), "{finished:?}");
    }
    // The functions pass over it, and the role can't read the report.
    for table in tables {
        let no_force = format!("alter table signaling.{table} no force row level security");
        world.execute(&no_force).await;
    }
    let paused = operator.command(&["pause", "default"]);
    let phrases = ["can't read the lane", "row-level security"];
    assert_contains(&paused.succeeds().await, &phrases);
    let is_paused = "select paused_at is not null from signaling.lane";
    assert!(world.ask::<bool>(is_paused).await);
}
