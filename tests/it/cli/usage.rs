//! Mistakes in usage and configuration: exit code 2, and a sentence that says what to do. What fails for another
//! reason exits with 1.

use std::io::Write;

use tempfile::NamedTempFile;

use testkit::{Finished, Postgres, Worker};

const URL: &str = "postgres://app:hush-hush@localhost:5432/app";

/// `worker run` with everything that it needs.
fn run() -> Worker {
    Worker::on(URL, &["run"])
        .with_app()
        .env("AGORA_API_SECRET", "hush-hush")
}

async fn refused(worker: Worker, phrases: &[&str]) -> Finished {
    let finished = worker.fails(2, phrases).await;
    assert!(!finished.stderr.contains("hush-hush"), "{finished:?}");
    finished
}

#[tokio::test]
async fn a_missing_database_is_wrong_usage() {
    for command in [&["migrate"][..], &["status"]] {
        refused(Worker::new(command), &["set DATABASE_URL"]).await;
    }
    refused(run().without_env("DATABASE_URL"), &["set DATABASE_URL"]).await;
    let twice = run().env("DATABASE_URL_FILE", "/run/secrets/url");
    refused(twice, &["DATABASE_URL_FILE", "keep one"]).await;
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
async fn a_missing_app_or_credential_names_the_settings() {
    let nothing = Worker::on(URL, &["run"]);
    refused(
        nothing,
        &["no app is configured", "AGORA_APP_ID", "--config"],
    )
    .await;
    refused(run().without_env("AGORA_APP_ID"), &["AGORA_APP_ID"]).await;
    let worker = run().without_env("AGORA_API_SECRET");
    refused(worker, &["AGORA_API_KEY needs AGORA_API_SECRET"]).await;
    let worker = run().without_env("AGORA_API_KEY");
    refused(worker, &["AGORA_API_SECRET needs AGORA_API_KEY"]).await;
    let no_way = Worker::on(URL, &["run"]).env("AGORA_APP_ID", "app");
    refused(
        no_way,
        &["no way to sign in", "AGORA_APP_CERTIFICATE", "_FILE"],
    )
    .await;
}

#[tokio::test]
async fn two_credentials_or_two_sources_of_a_secret_are_refused() {
    let worker = run()
        .env("AGORA_TOKEN", "hush-hush")
        .env("AGORA_UID", "alice");
    refused(worker, &["more than one way to sign in"]).await;
    let worker = run().env("AGORA_API_SECRET_FILE", "/run/secrets/s");
    refused(worker, &["AGORA_API_SECRET", "as a file"]).await;
    let worker = run().arg("--config").arg("/etc/apps.toml");
    refused(worker, &["configured twice", "--config"]).await;
}

#[tokio::test]
async fn retry_without_a_filter_asks_for_all() {
    let retry = |flags: &[&str]| {
        let arguments: Vec<_> = ["retry"].iter().chain(flags).copied().collect();
        Worker::on(URL, &arguments)
    };
    refused(retry(&[]), &["write --all", "--app", "--dry-run"]).await;
    refused(retry(&["--all", "--app", "shop"]), &["--all", "--app"]).await;
    let worker = retry(&["--all", "--status", "failed"]);
    refused(worker, &["--all", "--status"]).await;
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
    let mut file = NamedTempFile::new().expect("a file");
    writeln!(
        file,
        "[apps.one]\napp_id = \"1\"\napi_secrit = \"hush-hush\""
    )
    .expect("written");
    let path = file.path().to_str().expect("a path").to_owned();
    let with_config = |path: &str| Worker::on(URL, &["run", "--config", path]);
    refused(with_config(&path), &[&path, "api_secrit", "line 3"]).await;

    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "[apps.one]\napp_id = \"1\"\napi_key = \"hush-hush\n").expect("written");
    let path = file.path().to_str().expect("a path").to_owned();
    refused(with_config(&path), &[&path, "line 3"]).await;

    let worker = with_config("/nowhere/apps.toml");
    refused(worker, &["/nowhere/apps.toml", "can't be read"]).await;

    let mut file = NamedTempFile::new().expect("a file");
    writeln!(file, "[apps.one]\napp_id = \"1\"").expect("written");
    let path = file.path().to_str().expect("a path").to_owned();
    refused(with_config(&path), &["\"one\"", "no way to sign in"]).await;
}

#[tokio::test]
async fn an_unknown_command_or_flag_is_wrong_usage() {
    refused(Worker::new(&["delivver"]), &["delivver"]).await;
    refused(run().arg("--rage=1"), &["--rage"]).await;
    refused(Worker::new(&["dev", "--rate", "0"]), &["--rate"]).await;
    let worker = Worker::new(&["simulate", "--fault", "explode"]);
    refused(worker, &["explode"]).await;
}

#[tokio::test]
async fn an_invalid_value_is_refused_with_an_example() {
    for (arguments, phrase) in [
        (&["cancel", "seven"][..], "write it like 200"),
        (&["message", "seven"], "write it like 200"),
        (&["retry", "--id", "seven"], "write it like 200"),
        (&["retry", "--http-status", "9"], "100..=599"),
        (&["retry", "--since", "soon"], "or a date like 2030-01-31"),
        (
            &["migrate", "--lock-wait", "soon"],
            "write a number with its unit",
        ),
        (
            &["run", "--retention", "soon"],
            "write a number with its unit",
        ),
        (&["run", "--rate", "many"], "write it like 200"),
        (&["run", "--max-in-flight", "many"], "write it like 200"),
    ] {
        let worker = Worker::on(URL, arguments);
        let finished = refused(worker, &[phrase]).await;
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
    let adopt = || Worker::on(URL, &["adopt", "--environment", "tests"]);
    let both = [
        "--cancel-pending cancels them",
        "--send-pending lets the workers send them",
    ];
    refused(adopt(), &both).await;
    refused(adopt().arg("shop"), &both).await;
    let usage = "worker adopt [OPTIONS] <--cancel-pending|--send-pending> [APP]...";
    let worker = adopt().arg("--cancel-pending").arg("--send-pending");
    refused(worker, &[usage]).await;
    let help = adopt().arg("--help").finish().await;
    assert!(help.stdout.contains(usage), "{help:?}");
}

#[tokio::test]
async fn an_unreachable_database_is_named_without_the_password() {
    // Nothing listens on port 1.
    let url = "postgres://app:hush-hush@127.0.0.1:1/app?sslmode=disable";
    for worker in [Worker::on(url, &["migrate"]), Worker::on(url, &["status"])] {
        let finished = worker.fails(1, &["127.0.0.1:1"]).await;
        assert!(!finished.stderr.contains("hush-hush"), "{finished:?}");
    }
    // The one that is to run for good waits for its database.
    let mut waiting = run().env("DATABASE_URL", url).start();
    waiting.until_logged("startup_delayed").await;
    let line = waiting.log_line("startup_delayed");
    assert!(line.contains("127.0.0.1:1"), "{line}");
    assert!(waiting.is_running());
    waiting.stop().await;
    assert!(!waiting.stderr.text().contains("hush-hush"));
}

#[tokio::test]
async fn a_wrong_password_is_not_shown() {
    let postgres = Postgres::shared().await;
    let port = postgres.cluster.port;
    let url = format!("postgres://postgres:hush-hush@127.0.0.1:{port}/postgres?sslmode=disable");
    let finished = run()
        .env("DATABASE_URL", &url)
        .fails(1, &["password authentication failed"])
        .await;
    assert!(!finished.stderr.contains("hush-hush"), "{finished:?}");
}

#[tokio::test]
async fn a_secret_that_can_not_be_right_is_refused_without_its_value() {
    for name in ["AGORA_API_KEY", "AGORA_API_SECRET"] {
        let worker = run().env(name, "hush-hush\nhush-hush");
        refused(worker, &[name, "line break"]).await;
        for value in ["\"hush-hush\"", "hush hush", "h\u{200b}ush"] {
            refused(run().env(name, value), &[name, "quotation mark"]).await;
        }
    }
    let worker = run().env("DATABASE_URL", &format!("\"{URL}\""));
    refused(worker, &["DATABASE_URL", "quotation mark"]).await;
}
