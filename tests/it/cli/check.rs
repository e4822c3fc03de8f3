//! `worker check`

mod database;
mod objects;
mod row_security;
mod vacuum;

use serde_json::Value;
use simulator::SimulatorConfig;
use tempfile::TempDir;

use crate::schema::roles::Role;
use harness::{API_SECRET, Postgres, Worker, World, app_table};

use crate::certificates::Authority;

/// `worker check` with everything that a worker needs.
fn check(world: &World) -> Worker {
    world.worker().as_command(&["check"])
}

/// The output of a check with this exit code.
async fn report(check: Worker, code: i32) -> String {
    let finished = check.finish().await;
    assert_eq!(finished.code, Some(code), "{finished:?}");
    let fails = finished.stdout.lines().any(|line| line.starts_with("FAIL"));
    assert_eq!(fails, code == 1, "{finished:?}");
    let output = format!("{}{}", finished.stdout, finished.stderr);
    for secret in [API_SECRET, "hush-hush"] {
        assert!(!output.contains(secret), "{output}");
    }
    finished.stdout
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
        let is_found = finding.contains(phrase);
        assert!(is_found, "{phrase:?} is missing: {finding}\n{text}");
    }
}

/// Asserts that a check has this finding, and fails only if the finding does. Returns the output.
async fn assert_finding(check: Worker, level: &str, subject: &str, phrases: &[&str]) -> String {
    let text = report(check, i32::from(level == "FAIL")).await;
    assert_line(&text, level, subject, phrases);
    text
}

#[tokio::test]
async fn a_check_without_faults_sends_and_changes_nothing() {
    let world = World::new().await;
    let role = Role::granted(&world, "worker").await;
    let text = report(check(&world).env("DATABASE_URL", &role.url), 0).await;
    for subject in [
        "settings",
        "database",
        "schema",
        "objects",
        "row security",
        "privileges",
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
    assert_line(&text, "ok", "privileges", &[&role.name]);
    assert_eq!(world.seen().calls, 0);
    let lanes: i64 = world.ask("select count(*) from signaling.lane").await;
    assert_eq!(lanes, 0);

    let printed = check(&world).arg("--json").succeeds().await;
    let findings: Vec<Value> = serde_json::from_str(&printed).expect("JSON");
    let are_ok = findings.iter().all(|finding| finding["level"] == "ok");
    assert!(are_ok, "{findings:?}");
    let api = findings.iter().find(|finding| finding["subject"] == "api");
    assert_eq!(api.expect("the API")["app"], "default");
}

#[tokio::test]
async fn an_unmigrated_database_fails_with_the_command_to_run() {
    let mut world = World::new().await;
    world.url = Postgres::shared().await.empty_database().await;
    let phrases = ["no outbox", "worker migrate"];
    let text = assert_finding(check(&world), "FAIL", "schema", &phrases).await;
    assert_line(&text, "ok", "database", &["PostgreSQL"]);
    assert_line(&text, "ok", "api", &[]);
}

#[tokio::test]
async fn missing_privileges_are_named_with_the_command_that_grants_them() {
    let world = World::new().await;
    let check_as = |role: &Role| check(&world).env("DATABASE_URL", &role.url);
    let reader = Role::granted(&world, "reader").await;
    let phrases = [
        reader.name.as_str(),
        "select on signaling.outbox",
        "execute on function signaling.claim",
        "grant worker",
    ];
    assert_finding(check_as(&reader), "FAIL", "privileges", &phrases).await;

    let worker = Role::granted(&world, "worker").await;
    world
        .execute(&format!(
            "revoke select on signaling.lane from {0}; revoke execute on function signaling.hold from {0}",
            worker.name
        ))
        .await;
    let phrases = [
        worker.name.as_str(),
        "select on signaling.lane",
        "execute on function signaling.hold",
    ];
    assert_finding(check_as(&worker), "FAIL", "privileges", &phrases).await;

    let nobody = Role::new(&world, "nobody").await;
    let phrases = ["permission denied", "grant worker"];
    let text = assert_finding(check_as(&nobody), "FAIL", "schema", &phrases).await;
    assert_line(&text, "ok", "autovacuum", &[]);
}

#[tokio::test]
async fn one_fault_does_not_hide_another() {
    let world = World::new().await;
    // No server listens on port 1.
    let nowhere = "postgres://app:hush-hush@127.0.0.1:1/app?sslmode=disable";
    let unreachable = check(&world)
        .env("DATABASE_URL", nowhere)
        .env("AGORA_BASE_URL", "http://127.0.0.1:1");
    let text = assert_finding(unreachable, "FAIL", "database", &["127.0.0.1:1"]).await;
    assert_line(&text, "ok", "settings", &["default (500 calls/s)"]);
    let phrases = ["could not be reached", "AGORA_BASE_URL"];
    assert_line(&text, "FAIL", "api", &phrases);

    let short = check(&world).env("WORKER_LEASE", "1s");
    let text = assert_finding(short, "FAIL", "settings", &["WORKER_LEASE"]).await;
    assert_line(&text, "ok", "schema", &[]);

    let without_secret = || check(&world).without_env("AGORA_API_SECRET");
    let unreadable = without_secret().env("AGORA_API_SECRET_FILE", "/nowhere/secret");
    for (check, subject, phrase) in [
        (without_secret(), "settings", "AGORA_API_SECRET"),
        (unreadable, "settings", "/nowhere/secret"),
        (
            check(&world).without_env("DATABASE_URL"),
            "database",
            "set DATABASE_URL",
        ),
    ] {
        assert_finding(check, "FAIL", subject, &[phrase]).await;
    }

    let hosts = format!("http://127.0.0.1:1,{}", world.simulator.base_url());
    let check = check(&world).env("AGORA_BASE_URL", &hosts);
    let text = assert_finding(check, "warn", "api", &["127.0.0.1:1", "another host"]).await;
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
    let phrases = ["signed by no CA that is trusted here", "AGORA_CA_FILE"];
    assert_finding(check(&world), "FAIL", "api", &phrases).await;
    let trusting = check(&world).file("AGORA_CA_FILE", &ca.pem());
    assert_finding(trusting, "ok", "api", &["its certificate is valid"]).await;
    let missing = check(&world).env("AGORA_CA_FILE", "/nowhere/ca.pem");
    assert_finding(missing, "FAIL", "api", &["/nowhere/ca.pem"]).await;
}

#[tokio::test]
async fn every_app_of_a_file_is_checked() {
    let world = World::new().await;
    let apps = app_table("default", "") + &app_table("eu", "rate = 200");
    let check = world
        .command(&["check"])
        .file("WORKER_CONFIG", &apps)
        .env("AGORA_BASE_URL", &world.simulator.base_url());
    let phrases = ["default (500 calls/s), eu (200 calls/s)"];
    let text = assert_finding(check, "ok", "settings", &phrases).await;
    let hosts: Vec<_> = text.lines().filter(|line| line.contains(" api ")).collect();
    assert_eq!(hosts.len(), 2, "{text}");
    for (line, app) in hosts.iter().zip(["default: ", "eu: "]) {
        assert!(line.starts_with("ok") && line.contains(app), "{text}");
    }
}
