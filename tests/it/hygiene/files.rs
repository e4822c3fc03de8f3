//! Files that are none, or have no end: each is refused at once, with a sentence that names it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{APP_ID, Worker, World};

/// Paths from which nobody can read to the end: a file of a tebibyte (which takes no room), a device, a FIFO to which
/// nobody writes, a directory.
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
        let cases: Vec<(Worker, i32)> = vec![
            (run().env("WORKER_CONFIG", path), 2),
            (basic().env("AGORA_API_SECRET_FILE", path), 2),
            (
                app()
                    .env("AGORA_TOKEN_FILE", path)
                    .env("AGORA_UID", "alice"),
                2,
            ),
            (app().env("AGORA_APP_CERTIFICATE_FILE", path), 2),
            (
                basic()
                    .env("AGORA_API_SECRET", "secret")
                    .env("AGORA_CA_FILE", path),
                2,
            ),
            (Worker::new(&["status"]).env("DATABASE_URL_FILE", path), 1),
            (
                Worker::new(&["simulate", "--listen", "127.0.0.1:0"])
                    .arg("--tls-cert")
                    .arg(path)
                    .arg("--tls-key")
                    .arg(path),
                1,
            ),
        ];
        for (worker, code) in cases {
            let finished = worker.finish().await;
            assert_eq!(finished.code, Some(code), "{finished:?}");
            assert!(finished.stderr.contains(path), "{finished:?}");
            assert!(
                finished.stderr.contains("is not a regular file")
                    || finished.stderr.contains("has more than"),
                "{finished:?}"
            );
        }
    }
}

#[tokio::test]
async fn names_and_reasons_that_people_give_are_bounded() {
    let world = World::new().await;
    let mut worker = world
        .worker()
        .env("WORKER_NAME", &"n".repeat(100_000))
        .start();
    let id = world.insert(testkit::peer(serde_json::json!({}))).await;
    let row = world.until_final(id).await;
    assert_eq!(row.claimed_by, Some("n".repeat(128)));
    let pause = |reason: usize| {
        world
            .command(&["pause", "default", "--reason"])
            .arg(&"r".repeat(reason))
            .env("USER", &"u".repeat(100_000))
            .finish()
    };
    let refused = pause(501).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("longer than 500 characters"));
    assert_eq!(pause(500).await.code, Some(0));
    let by: String = world.ask("select paused_by from signaling.lane").await;
    assert_eq!(by, "u".repeat(128));
    worker.stop().await;
}
