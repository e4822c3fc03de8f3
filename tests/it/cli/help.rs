//! Help texts.

use testkit::Worker;

#[tokio::test]
async fn the_help_of_each_command_has_examples() {
    for (command, phrases) in [
        (
            &[][..],
            &["worker dev ", "Exit codes: 0 done, 1 failed, 2 wrong usage"][..],
        ),
        (
            &["run"],
            &[
                "AGORA_API_KEY",
                "AGORA_APP_CERTIFICATE",
                "_FILE",
                "[apps.default]",
                "WORKER_LEASE",
            ],
        ),
        (&["migrate"], &["DATABASE_URL=", "signaling"]),
        (&["status"], &["--json"]),
        (
            &["workers"],
            &["--json", "stepped aside", "signaling.fleet"],
        ),
        (&["message"], &["--payload", "--json", "reader"]),
        (&["check"], &["--json", "FAIL", "limit", "WORKER_LEASE"]),
        (&["completions"], &["bash", "zsh", "fish"]),
        (&["man"], &["--dir", "worker-run"]),
        (&["health"], &["WORKER_OPS_ADDR", "--ready"]),
        (
            &["grant"],
            &["grant producer", "--print", "revokes nothing", "revoke all"],
        ),
        (&["simulate"], &["--fault", "--limit"]),
        (&["dev"], &["--rate", "Ctrl-C", "-- npm test", "--fault"]),
        (&["retry"], &["--all", "--dry-run"]),
    ] {
        let finished = Worker::new(command).arg("--help").finish().await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(
            finished.stdout.contains("Example"),
            "{command:?}: {}",
            finished.stdout
        );
        for phrase in phrases {
            assert!(
                finished.stdout.contains(phrase),
                "{command:?} lacks {phrase:?}: {}",
                finished.stdout
            );
        }
    }
}

#[tokio::test]
async fn help_shows_no_secret_of_the_environment() {
    let finished = Worker::new(&["run", "--help"])
        .env("DATABASE_URL", "postgres://app:hush-hush@localhost/app")
        .env("AGORA_API_SECRET", "hush-hush")
        .env("AGORA_TOKEN", "hush-hush")
        .finish()
        .await;
    assert_eq!(finished.code, Some(0));
    assert!(
        !finished.stdout.contains("hush-hush"),
        "{}",
        finished.stdout
    );
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
    let finished = Worker::new(&["--version"]).finish().await;
    assert_eq!(finished.code, Some(0));
    assert_eq!(
        finished.stdout.trim(),
        concat!("worker ", env!("CARGO_PKG_VERSION"))
    );
}
