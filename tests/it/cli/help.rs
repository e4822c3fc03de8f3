//! Help texts.

use testkit::{Worker, assert_contains};

/// The texts themselves are in docs/reference.md.
#[tokio::test]
async fn the_help_of_each_command_has_examples() {
    let help = Worker::new(&["--help"]).succeeds().await;
    assert_contains(&help, &["worker dev ", "Exit codes: 0 done, 1 failed"]);
    for command in [
        "run",
        "migrate",
        "status",
        "workers",
        "message",
        "check",
        "completions",
        "man",
        "health",
        "grant",
        "simulate",
        "dev",
        "retry",
    ] {
        let help = Worker::new(&[command, "--help"]).succeeds().await;
        assert!(help.contains("Example"), "{command}: {help}");
    }
}

#[tokio::test]
async fn help_shows_no_secret_of_the_environment() {
    let finished = Worker::on("postgres://app:hush-hush@localhost/app", &["run", "--help"])
        .env("AGORA_API_SECRET", "hush-hush")
        .env("AGORA_TOKEN", "hush-hush")
        .succeeds()
        .await;
    assert!(!finished.contains("hush-hush"), "{}", finished);
}

#[tokio::test]
async fn a_missing_command_is_an_error_that_shows_the_help() {
    let finished = Worker::new(&[]).finish().await;
    assert_eq!(finished.code, Some(2));
    assert!(
        finished.stderr.contains("Usage: worker"),
        "{}",
        finished.stderr
    );
}

#[tokio::test]
async fn version_prints_the_version() {
    let finished = Worker::new(&["--version"]).succeeds().await;
    assert_eq!(
        finished.trim(),
        concat!("worker ", env!("CARGO_PKG_VERSION"))
    );
}
