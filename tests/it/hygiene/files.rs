//! Paths of devices and of endless files are refused at once, with an error that names the path.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{APP_ID, Worker, World};

/// Paths without a readable end: a sparse file of a tebibyte, a device, a FIFO without a writer, a directory.
fn endless(directory: &Path) -> Vec<PathBuf> {
    let large = directory.join("large");
    let file = File::create(&large).expect("created");
    file.set_len(1 << 40).expect("a sparse file");
    let fifo = directory.join("fifo");
    let made = Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
    vec![large, "/dev/zero".into(), fifo, directory.to_owned()]
}

#[tokio::test]
async fn a_file_without_an_end_is_refused_at_once_wherever_it_is_named() {
    let world = World::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    for path in endless(directory.path()) {
        let path = path.to_str().expect("a path");
        let run = || world.worker_without_app();
        let app = || run().env("AGORA_APP_ID", APP_ID);
        let basic = || app().env("AGORA_API_KEY", "key");
        let token = app().env("AGORA_UID", "alice");
        let secret = basic().env("AGORA_API_SECRET", "secret");
        let status = Worker::new(&["status"]);
        for (worker, code) in [
            (run().env("WORKER_CONFIG", path), 2),
            (secret.env("AGORA_CA_FILE", path), 2),
            // While a secret is replaced, its file may be empty. systemd does not restart a worker that exits with 2.
            (basic().env("AGORA_API_SECRET_FILE", path), 1),
            (token.env("AGORA_TOKEN_FILE", path), 1),
            (app().env("AGORA_APP_CERTIFICATE_FILE", path), 1),
            (status.env("DATABASE_URL_FILE", path), 1),
        ] {
            let finished = worker.fails(code, &[path]).await;
            let mut reasons = ["is not a regular file", "has more than"].iter();
            let has_reason = reasons.any(|reason| finished.stderr.contains(reason));
            assert!(has_reason, "{finished:?}");
        }
    }
}

#[tokio::test]
async fn names_and_reasons_of_operators_are_bounded() {
    let world = World::new().await;
    let worker = world.worker().env("WORKER_NAME", &"n".repeat(100_000));
    let _worker = worker.start();
    let (_, row) = world.deliver(serde_json::json!({})).await;
    assert_eq!(row.claimed_by, Some("n".repeat(128)));
    let pause = |reason: usize| {
        world
            .command(&["pause", "default", "--reason"])
            .arg(&"r".repeat(reason))
            .env("USER", &"u".repeat(100_000))
    };
    pause(501).fails(2, &["longer than 500 characters"]).await;
    pause(500).succeeds().await;
    let by: String = world.ask("select paused_by from signaling.lane").await;
    assert_eq!(by, "u".repeat(128));
}
