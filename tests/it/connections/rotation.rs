//! Passwords and certificates that are replaced while the worker runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::database_tls::{CERTIFIED_USER, Encrypted};
use crate::schema::roles::Role;
use harness::{
    PgBouncer, Postgres, Running, Worker, World, assert_contains, log_lines, peer, slow_api, write,
};

const NEW_PASSWORD: &str = "rotated-secret";

/// `worker run` with the usual app, and the database from somewhere else.
fn worker(world: &World) -> Worker {
    world.worker().without_env("DATABASE_URL")
}

async fn end_sessions(world: &World, role: &str) {
    world
        .execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
        ))
        .await;
}

/// Checks that a rotation in the middle of a run costs no restart and no message, and that the worker says what to do.
async fn survives_a_rotation(
    world: &World,
    role: &Role,
    mut worker: Running,
    file: &Path,
    new: &str,
) {
    world.until_accepted(50).await;
    let name = &role.name;
    let rotate = format!("alter role {name} password '{NEW_PASSWORD}'");
    world.execute(&rotate).await;
    end_sessions(world, name).await;
    worker.until_logged("database_login_refused").await;
    let line = worker.log_line("database_login_refused");
    assert_contains(&line, &["put the right password into"]);
    let pending = world.count("status = 'pending'").await;
    assert!(pending > 0, "all were sent before");
    fs::write(file, new).expect("written");
    world.until_all_final().await;
    assert!(worker.is_running());
    assert_eq!(world.count("status = 'message_sent'").await, 1_000);
    worker.stop().await;
    // Each new connection of four pools is refused meanwhile.
    let log = worker.stderr.text();
    assert!(worker.logged("database_login_refused") <= 3, "{log}");
    let is_shown = log.contains(NEW_PASSWORD) || log.contains("secret@");
    assert!(!is_shown, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_in_the_file_of_the_url_needs_no_restart() {
    let world = World::with(slow_api(20)).await;
    let role = Role::granted(&world, "worker").await;
    let directory = TempDir::new().expect("a directory");
    let file = write(directory.path(), "url", &role.url);
    world.insert_many(1_000).await;
    let worker = worker(&world).env("DATABASE_URL_FILE", file.to_str().expect("a path"));
    let new = role.url.replace(":secret@", &format!(":{NEW_PASSWORD}@"));
    survives_a_rotation(&world, &role, worker.start(), &file, &new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_password_in_a_password_file_needs_no_restart() {
    let world = World::with(slow_api(20)).await;
    let role = Role::granted(&world, "worker").await;
    let directory = TempDir::new().expect("a directory");
    let line = |password: &str| format!("# of the tests\n127.0.0.1:*:*:{}:{password}\n", role.name);
    let file = write(directory.path(), "pgpass", &line("secret"));
    let url = role.url.replace(":secret@", "@");
    let with_file = || {
        let worker = worker(&world).env("DATABASE_URL", &url);
        worker.env("PGPASSFILE", file.to_str().expect("a path"))
    };
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
    with_file()
        .fails(
            2,
            &[
                "PGPASSFILE",
                "other users have access to it: run `chmod 600`",
            ],
        )
        .await;
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("set");
    world.insert_many(1_000).await;
    survives_a_rotation(
        &world,
        &role,
        with_file().start(),
        &file,
        &line(NEW_PASSWORD),
    )
    .await;
}

#[tokio::test]
async fn a_file_of_the_url_that_is_being_replaced_costs_nothing() {
    let world = World::with(slow_api(0)).await;
    let role = Role::granted(&world, "worker").await;
    let directory = TempDir::new().expect("a directory");
    let file = write(directory.path(), "url", &role.url);
    let worker = worker(&world).env("DATABASE_URL_FILE", file.to_str().expect("a path"));
    let worker = worker.start();
    worker.until_logged("worker_started").await;
    for text in ["", "postg"] {
        fs::write(&file, text).expect("written");
        end_sessions(&world, &role.name).await;
        let id = world.insert(peer(json!({}))).await;
        assert_eq!(world.until_final(id).await.status, "message_sent");
        if text.is_empty() {
            worker.until_logged("database_url_unreadable").await;
            fs::write(&file, &role.url).expect("written");
        }
    }
}

#[tokio::test]
async fn a_login_that_a_pooler_refuses_is_logged_with_advice() {
    let world = World::new().await;
    let pooler = PgBouncer::start(Postgres::shared().await, "").await;
    let url = pooler.url(&world.url);
    let (_, server) = url.split_once('@').expect("a host");
    let url = format!("postgres://postgres:wrong@{server}");
    for worker in [world.command(&["status"]), world.worker()] {
        let finished = worker.env("DATABASE_URL", &url).fails(1, &[]).await;
        let lines = log_lines(&finished.stderr, "database_login_refused");
        assert_eq!(lines.len(), 1, "{finished:?}");
        assert_contains(lines[0], &["start the worker again"]);
    }
}

#[tokio::test]
async fn a_replaced_client_certificate_is_read_for_the_next_connection() {
    let tls = Encrypted::start(|ca| ca.server("localhost")).await;
    let (world, without_certificate) = tls.certified_world().await;
    Worker::on(&without_certificate, &["status"])
        .fails(1, &["valid client certificate"])
        .await;
    let replace = |name: &str| tls.ca.client(name).write(tls.directory.path(), "client");
    replace(CERTIFIED_USER);
    let mut worker = world.worker().start();
    world.assert_sends().await;

    replace("another");
    end_sessions(&world, CERTIFIED_USER).await;
    worker.until_logged("database_login_refused").await;
    let id = world.insert(peer(json!({}))).await;
    replace(CERTIFIED_USER);
    assert_eq!(world.until_final(id).await.status, "message_sent");
    worker.stop().await;
}
