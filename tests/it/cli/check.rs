//! `worker check`

mod database;
mod faults;
mod objects;
mod row_security;
mod vacuum;

use serde_json::Value;
use simulator::SimulatorConfig;
use tempfile::TempDir;

use crate::schema::roles::Role;
use testkit::{API_KEY, API_SECRET, APP_ID, Finished, Postgres, Worker, World, write};

use crate::certificates::Authority;

/// `worker check` with everything that a worker needs.
fn check(world: &World) -> Worker {
    world.worker().as_command(&["check"])
}

/// The output of a check with this exit code.
async fn said(worker: Worker, code: i32) -> String {
    let finished = worker.finish().await;
    assert_eq!(finished.code, Some(code), "{finished:?}");
    let fails = finished.stdout.lines().any(|line| line.starts_with("FAIL"));
    assert_eq!(fails, code == 1, "{finished:?}");
    assert_no_secret(&finished);
    finished.stdout
}

fn assert_no_secret(finished: &Finished) {
    for output in [&finished.stdout, &finished.stderr] {
        assert!(
            !output.contains(API_SECRET) && !output.contains("hush-hush"),
            "{output}"
        );
    }
}

/// Asserts that there is a line of this level about this subject, and that it or the advice below it has the phrases.
fn assert_line(text: &str, level: &str, subject: &str, phrases: &[&str]) {
    let begins = format!("{level:<5} {subject} ");
    let finding: String = text
        .lines()
        .skip_while(|line| !line.starts_with(&begins))
        .enumerate()
        .take_while(|(index, line)| *index == 0 || line.starts_with(' '))
        .flat_map(|(_, line)| [line, "\n"])
        .collect();
    assert!(!finding.is_empty(), "no line {begins:?}: {text}");
    for phrase in phrases {
        assert!(
            finding.contains(phrase),
            "{phrase:?} is missing: {finding}\n{text}"
        );
    }
}

#[tokio::test]
async fn a_check_without_faults_sends_and_changes_nothing() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    for subject in [
        "settings",
        "database",
        "schema",
        "objects",
        "row security",
        "rights",
        "lane",
        "connections",
        "wakeups",
        "autovacuum",
        "snapshots",
        "clock",
        "api",
    ] {
        assert_line(&text, "ok", subject, &[]);
    }
    let phrases = [
        "default: http://127.0.0.1:",
        "only a message tests the credentials",
    ];
    assert_line(&text, "ok", "api", &phrases);
    assert_line(&text, "ok", "rights", &[&role.name]);
    assert_eq!(world.seen().calls, 0);
    assert_eq!(
        world
            .ask::<i64>("select count(*) from signaling.lane")
            .await,
        0
    );

    let finished = check(&world).arg("--json").finish().await;
    let findings: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let findings = findings.as_array().expect("an array");
    assert!(
        findings.iter().all(|finding| finding["level"] == "ok"),
        "{findings:?}"
    );
    let api = findings.iter().find(|finding| finding["subject"] == "api");
    assert_eq!(api.expect("the API")["app"], "default");
}

#[tokio::test]
async fn an_unmigrated_database_fails_with_the_command_to_run() {
    let mut world = World::new().await;
    world.url = Postgres::shared().await.empty_database().await;
    let text = said(check(&world), 1).await;
    assert_line(&text, "ok", "database", &["PostgreSQL"]);
    assert_line(&text, "FAIL", "schema", &["no outbox", "worker migrate"]);
    assert_line(&text, "ok", "api", &[]);
}

#[tokio::test]
async fn missing_migrations_fail_with_the_command_to_run() {
    let world = World::new().await;
    world
        .execute("delete from signaling.schema_migrations where version > 1")
        .await;
    let text = said(check(&world), 1).await;
    let phrases = ["at version 1", "needs 3", "worker migrate"];
    assert_line(&text, "FAIL", "schema", &phrases);
}

#[tokio::test]
async fn missing_rights_are_named_with_the_command_that_grants_them() {
    let world = World::new().await;
    for (kind, phrases) in [
        (
            "reader",
            &[
                "select on signaling.outbox",
                "execute on function signaling.claim",
                "grant worker",
            ][..],
        ),
        (
            "worker",
            &[
                "select on signaling.lane",
                "execute on function signaling.hold",
            ],
        ),
    ] {
        let role = Role::granted(&world, kind).await;
        if kind == "worker" {
            said(check(&world).env("DATABASE_URL", &role.url), 0).await;
            world
                .execute(&format!(
                    "revoke select on signaling.lane from {0}; revoke execute on function signaling.hold from {0}",
                    role.name
                ))
                .await;
        }
        let text = said(check(&world).env("DATABASE_URL", &role.url), 1).await;
        assert_line(&text, "FAIL", "rights", phrases);
        assert_line(&text, "FAIL", "rights", &[&role.name]);
    }
    let nobody = Role::new(&world, "nobody").await;
    let text = said(check(&world).env("DATABASE_URL", &nobody.url), 1).await;
    let phrases = ["permission denied", "grant worker"];
    assert_line(&text, "FAIL", "schema", &phrases);
    assert_line(&text, "ok", "autovacuum", &[]);
}

#[tokio::test]
async fn one_fault_does_not_hide_another() {
    let world = World::new().await;
    // Nothing listens on port 1.
    let text = said(
        check(&world)
            .env(
                "DATABASE_URL",
                "postgres://app:hush-hush@127.0.0.1:1/app?sslmode=disable",
            )
            .env("AGORA_BASE_URL", "http://127.0.0.1:1"),
        1,
    )
    .await;
    assert_line(&text, "ok", "settings", &["default (500 calls/s)"]);
    assert_line(&text, "FAIL", "database", &["127.0.0.1:1"]);
    let phrases = ["could not be reached", "AGORA_BASE_URL"];
    assert_line(&text, "FAIL", "api", &phrases);

    let text = said(check(&world).env("WORKER_LEASE", "1s"), 1).await;
    assert_line(&text, "FAIL", "settings", &["WORKER_LEASE"]);
    assert_line(&text, "ok", "schema", &[]);

    let text = said(check(&world).without_env("AGORA_API_SECRET"), 1).await;
    assert_line(&text, "FAIL", "settings", &["AGORA_API_SECRET"]);
    let unreadable = check(&world)
        .without_env("AGORA_API_SECRET")
        .env("AGORA_API_SECRET_FILE", "/nowhere/secret");
    assert_line(
        &said(unreadable, 1).await,
        "FAIL",
        "settings",
        &["/nowhere/secret"],
    );
    let text = said(check(&world).without_env("DATABASE_URL"), 1).await;
    assert_line(&text, "FAIL", "database", &["set DATABASE_URL"]);

    let second = format!("http://127.0.0.1:1,{}", world.simulator.base_url());
    let text = said(check(&world).env("AGORA_BASE_URL", &second), 0).await;
    assert_line(&text, "warn", "api", &["127.0.0.1:1", "another host"]);
    assert_line(&text, "ok", "api", &["connected"]);
}

#[tokio::test]
async fn an_untrusted_certificate_fails() {
    let directory = TempDir::new().expect("a directory");
    let ca = Authority::new("the CA of the tests");
    let world = World::with(SimulatorConfig {
        tls: Some(ca.server("127.0.0.1").write(directory.path(), "server")),
        ..SimulatorConfig::default()
    })
    .await;
    let text = said(check(&world), 1).await;
    let phrases = ["signed by no CA that is trusted here", "AGORA_CA_FILE"];
    assert_line(&text, "FAIL", "api", &phrases);
    let file = write(directory.path(), "ca.pem", &ca.pem());
    let file = file.to_str().expect("a path");
    let text = said(check(&world).env("AGORA_CA_FILE", file), 0).await;
    assert_line(&text, "ok", "api", &["its certificate is valid"]);
    let text = said(check(&world).env("AGORA_CA_FILE", "/nowhere/ca.pem"), 1).await;
    assert_line(&text, "FAIL", "api", &["/nowhere/ca.pem"]);
}

#[tokio::test]
async fn every_app_of_a_file_is_checked() {
    let world = World::new().await;
    let directory = TempDir::new().expect("a directory");
    let file = write(
        directory.path(),
        "apps.toml",
        &format!(
            "[apps.default]\napp_id = \"{APP_ID}\"\napi_key = \"{API_KEY}\"\napi_secret = \"{API_SECRET}\"\n
             [apps.eu]\napp_id = \"other\"\napi_key = \"{API_KEY}\"\napi_secret = \"hush-hush\"\nrate = 200\n"
        ),
    );
    let worker = world
        .command(&["check", "--config", file.to_str().expect("a path")])
        .env("AGORA_BASE_URL", &world.simulator.base_url());
    let text = said(worker, 0).await;
    let phrases = ["default (500 calls/s), eu (200 calls/s)"];
    assert_line(&text, "ok", "settings", &phrases);
    let hosts: Vec<_> = text.lines().filter(|line| line.contains(" api ")).collect();
    for (line, app) in hosts.iter().zip(["default: ", "eu: "]) {
        assert!(line.starts_with("ok") && line.contains(app), "{text}");
    }
    assert_eq!(hosts.len(), 2, "{text}");
}

#[tokio::test]
async fn missing_autovacuum_and_too_few_connections_warn() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    world
        .execute(&format!(
            "alter table signaling.outbox set (autovacuum_enabled = off); alter role {} connection limit 5",
            role.name
        ))
        .await;
    let text = said(check(&world).env("DATABASE_URL", &role.url), 0).await;
    assert_line(&text, "warn", "autovacuum", &["outbox"]);
    let phrases = [
        "5 of 5 are left by the role's connection limit",
        "WORKER_DATABASE_CONNECTIONS",
    ];
    assert_line(&text, "warn", "connections", &phrases);
}

#[tokio::test]
async fn a_read_only_database_fails() {
    let world = World::new().await;
    world
        .alter_database("set default_transaction_read_only = on")
        .await;
    let text = said(check(&world), 1).await;
    assert_line(&text, "FAIL", "database", &["read-only"]);
}
