//! Mistakes in usage and configuration: exit code 2, and a sentence that says what to do. Other failures exit with 1.

use tempfile::TempDir;

use harness::{Finished, Postgres, Worker, World, assert_contains, write};

const URL: &str = "postgres://app:hush-hush@localhost:5432/app";

/// `worker run` with everything that it needs.
fn run() -> Worker {
    Worker::on(URL, &["run"])
        .with_app()
        .env("AGORA_API_SECRET", "hush-hush")
}

/// A command, by its words.
fn command(words: &str) -> Worker {
    let words: Vec<_> = words.split(' ').collect();
    Worker::on(URL, &words)
}

/// Asserts that the command ends with this code, and that its errors have each phrase and no secret.
async fn fails(worker: Worker, code: i32, phrases: &[&str]) -> Finished {
    let finished = worker.fails(code, phrases).await;
    assert!(!finished.stderr.contains("hush-hush"), "{finished:?}");
    finished
}

async fn refused(worker: Worker, phrases: &[&str]) -> Finished {
    fails(worker, 2, phrases).await
}

#[tokio::test]
async fn a_missing_or_doubled_setting_is_named() {
    let only_app_id = command("run").env("AGORA_APP_ID", "app");
    let url_file = run().env("DATABASE_URL_FILE", "/run/secrets/url");
    let token = run().env("AGORA_TOKEN", "hush-hush");
    for (worker, phrases) in [
        (Worker::new(&["migrate"]), &["set DATABASE_URL"][..]),
        (Worker::new(&["status"]), &["set DATABASE_URL"]),
        (run().without_env("DATABASE_URL"), &["set DATABASE_URL"]),
        (url_file, &["DATABASE_URL_FILE", "keep one"]),
        (
            command("run"),
            &["no app is configured", "AGORA_APP_ID", "--config"],
        ),
        (run().without_env("AGORA_APP_ID"), &["AGORA_APP_ID"]),
        (
            run().without_env("AGORA_API_SECRET"),
            &["AGORA_API_KEY needs AGORA_API_SECRET"],
        ),
        (
            run().without_env("AGORA_API_KEY"),
            &["AGORA_API_SECRET needs AGORA_API_KEY"],
        ),
        (
            only_app_id,
            &["no credentials", "AGORA_APP_CERTIFICATE", "_FILE"],
        ),
        (
            token.env("AGORA_UID", "alice"),
            &["more than one kind of credentials"],
        ),
        (
            run().env("AGORA_API_SECRET_FILE", "/run/secrets/s"),
            &["AGORA_API_SECRET", "as a file"],
        ),
        (
            run().arg("--config=/etc/apps.toml"),
            &["configured twice", "--config"],
        ),
    ] {
        refused(worker, phrases).await;
    }
}

/// Compose files and manifests pass variables on that the operator has left out.
#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let world = World::new().await;
    let mut worker = world.worker().as_command(&["check"]);
    for name in [
        "AGORA_CA_FILE",
        "DATABASE_URL_FILE",
        "WORKER_CONFIG",
        "WORKER_DRAIN_TIMEOUT",
        "WORKER_ENVIRONMENT",
        "WORKER_LOG",
        "WORKER_LOG_FORMAT",
        "WORKER_NAME",
        "WORKER_POLL_INTERVAL",
        "WORKER_RATE",
        "WORKER_RETENTION",
    ] {
        worker = worker.env(name, " ");
    }
    let finished = worker.finish().await;
    assert_contains(&finished.stdout, &["500 calls/s", "none is set"]);
    assert_eq!(finished.stderr, "");
}

#[tokio::test]
async fn an_invalid_url_is_refused_without_showing_it() {
    for url in [
        "hush-hush",
        "mysql://app:hush-hush@localhost/app",
        "postgres://app:hush-hush@host:port/app",
    ] {
        let worker = run().env("DATABASE_URL", url);
        refused(worker, &["DATABASE_URL", "postgres://user:password@host"]).await;
    }
}

#[tokio::test]
async fn retry_without_a_filter_asks_for_all() {
    for (words, phrases) in [
        ("retry", &["write --all", "--app", "--dry-run"][..]),
        ("retry --all --app shop", &["--all", "--app"]),
        ("retry --all --status failed", &["--all", "--status"]),
    ] {
        refused(command(words), phrases).await;
    }
}

#[tokio::test]
async fn an_invalid_value_is_named_with_its_variable() {
    for (name, value, phrases) in [
        (
            "WORKER_LEASE",
            "15s",
            &[
                "lease of 15s is too short",
                "WORKER_LEASE",
                "WORKER_REQUEST_TIMEOUT",
            ][..],
        ),
        (
            "WORKER_REQUEST_TIMEOUT",
            "soon",
            &["--request-timeout", "200ms, 15s"],
        ),
        (
            "WORKER_REQUEST_TIMEOUT",
            "0s",
            &["--request-timeout", "at least 1ms"],
        ),
        (
            "WORKER_RETRY_BASE",
            "10m",
            &["WORKER_RETRY_CAP", "WORKER_RETRY_BASE"],
        ),
        ("WORKER_RATE", "0", &["WORKER_RATE"]),
        ("WORKER_RATE", "many", &["--rate"]),
        ("WORKER_MAX_IN_FLIGHT", "0", &["WORKER_MAX_IN_FLIGHT"]),
        (
            "AGORA_BASE_URL",
            "nowhere",
            &["base URL", "https://api.agora.io", "global or china"],
        ),
        (
            "AGORA_TOKEN_HEADERS",
            "cookie",
            &["AGORA_TOKEN_HEADERS", "x-agora or authorization"],
        ),
        ("AGORA_APP_ID", "a/b", &["app ID"]),
        ("WORKER_LOG", "info,=,", &["WORKER_LOG"]),
    ] {
        refused(run().env(name, value), phrases).await;
    }
}

#[tokio::test]
async fn an_invalid_configuration_is_named_with_its_line() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("apps.toml");
    let path = path.to_str().expect("a path");
    for (lines, phrases) in [
        (
            "api_secrit = \"hush-hush\"",
            &[path, "api_secrit", "line 3"][..],
        ),
        ("api_key = \"hush-hush", &[path, "line 3"]),
        ("", &["\"one\"", "no credentials"]),
    ] {
        let text = format!("[apps.one]\napp_id = \"1\"\n{lines}\n");
        write(directory.path(), "apps.toml", &text);
        refused(Worker::on(URL, &["run", "--config", path]), phrases).await;
    }
    let missing = command("run --config /nowhere/apps.toml");
    refused(missing, &["/nowhere/apps.toml", "can't be read"]).await;
}

#[tokio::test]
async fn an_invalid_argument_is_refused_with_an_example() {
    let number = "write it like 200";
    let duration = "write a number with its unit";
    for (words, phrase) in [
        ("delivver", "delivver"),
        ("run --rage=1", "--rage"),
        ("dev --rate 0", "--rate"),
        ("simulate --fault explode", "explode"),
        ("cancel seven", number),
        ("message seven", number),
        ("retry --id seven", number),
        ("retry --http-status 9", "100..=599"),
        ("retry --since soon", "or a date like 2030-01-31"),
        ("migrate --lock-wait soon", duration),
        ("run --retention soon", duration),
        ("run --rate many", number),
        ("run --max-in-flight many", number),
    ] {
        let finished = refused(command(words), &[phrase]).await;
        for library in [
            "invalid digit",
            "component",
            "expected number",
            "float literal",
        ] {
            assert!(!finished.stderr.contains(library), "{finished:?}");
        }
    }
}

#[tokio::test]
async fn adopt_without_a_flag_explains_both_choices() {
    let both = [
        "--cancel-pending cancels them",
        "--send-pending lets the workers send them",
    ];
    refused(command("adopt --environment tests"), &both).await;
    refused(command("adopt --environment tests shop"), &both).await;
    let usage = "worker adopt [OPTIONS] <--cancel-pending|--send-pending> [APP]...";
    let two = command("adopt --environment tests --cancel-pending --send-pending");
    refused(two, &[usage]).await;
    let help = command("adopt --help").succeeds().await;
    assert!(help.contains(usage), "{help}");
}

#[tokio::test]
async fn an_unreachable_database_is_named_without_the_password() {
    // No server listens on port 1.
    let url = "postgres://app:hush-hush@127.0.0.1:1/app?sslmode=disable";
    for command in ["migrate", "status"] {
        fails(Worker::on(url, &[command]), 1, &["127.0.0.1:1"]).await;
    }
    // A worker waits for its database.
    let mut waiting = run().env("DATABASE_URL", url).start();
    waiting.until_logged("startup_delayed").await;
    let line = waiting.log_line("startup_delayed");
    assert!(line.contains("127.0.0.1:1"), "{line}");
    waiting.stop().await;
    assert!(!waiting.stderr.text().contains("hush-hush"));
}

#[tokio::test]
async fn a_wrong_password_is_not_shown() {
    let port = Postgres::shared().await.cluster.port;
    let url = format!("postgres://postgres:hush-hush@127.0.0.1:{port}/postgres?sslmode=disable");
    let worker = run().env("DATABASE_URL", &url);
    fails(worker, 1, &["password authentication failed"]).await;
}

#[tokio::test]
async fn a_secret_that_can_not_be_right_is_refused_without_its_value() {
    for name in ["AGORA_API_KEY", "AGORA_API_SECRET"] {
        for (value, mistake) in [
            ("hush-hush\nhush-hush", "line break"),
            ("\"hush-hush\"", "quotation mark"),
            ("hush hush", "quotation mark"),
            ("h\u{200b}ush", "quotation mark"),
        ] {
            let finished = refused(run().env(name, value), &[name, mistake]).await;
            assert!(!finished.stderr.contains(value), "{finished:?}");
        }
    }
    let worker = run().env("DATABASE_URL", &format!("\"{URL}\""));
    refused(worker, &["DATABASE_URL", "quotation mark"]).await;
}
