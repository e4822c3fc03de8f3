//! `worker dev`

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use testkit::{PATIENCE, Running, Worker, ask, assert_contains, until};

/// A directory for everything temporary, which the account that Postgres runs as can enter.
pub(super) fn temporary_directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("dev")
        .tempdir_in("/tmp")
        .expect("a directory");
    let for_all = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(directory.path(), for_all).expect("open to all");
    directory
}

fn dev(directory: &TempDir) -> Worker {
    Worker::new(&["dev"]).env("TMPDIR", directory.path().to_str().expect("a path"))
}

pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// The database's URL, from what is printed for psql.
async fn database_url(dev: &Running) -> String {
    dev.until_printed("psql '").await;
    let printed = dev.stdout.text();
    let (_, rest) = printed.split_once("psql '").expect("printed");
    rest.split_once('\'').expect("quoted").0.to_owned()
}

/// The server's process ID, as the server knows it.
async fn server_pid(url: &str) -> u32 {
    let mut connection = PgConnection::connect(url).await.expect("connected");
    let pid: String = ask(
        &mut connection,
        "select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)",
    )
    .await;
    connection.close().await.expect("closed");
    pid.parse().expect("a number")
}

/// The servers end with the process. After a kill, the supervisor ends them soon.
async fn until_nothing_is_left(directory: &TempDir, url: &str, server_pid: u32) {
    until("its directory is gone", PATIENCE, async || {
        entries(directory.path()).is_empty()
    })
    .await;
    assert!(
        !Path::new(&format!("/proc/{server_pid}")).exists(),
        "the server runs on"
    );
    assert!(
        PgConnection::connect(url).await.is_err(),
        "the server answers"
    );
}

#[tokio::test]
async fn the_demonstration_sends_its_messages_and_cleans_up() {
    let directory = temporary_directory();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/demo.sh");
    let path = directory.path().to_str().expect("a path");
    let demo = Worker::new(&["dev", "--", "sh", script, "60"]).env("TMPDIR", path);
    let finished = demo.finish().await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        entries(directory.path()).is_empty(),
        "{:?}",
        entries(directory.path())
    );
    let phrases = [
        "60 of 60 final",
        "message_sent",
        "message_delivered",
        "message_offline",
        "Every message ended as it should.",
    ];
    assert_contains(&finished.stdout, &phrases);
    let phrases = ["the API received 63 calls", "the limit is 500"];
    assert_contains(&finished.stderr, &phrases);
}

#[tokio::test]
async fn a_playground_runs_until_it_is_interrupted_and_cleans_up() {
    let directory = temporary_directory();
    let mut dev = dev(&directory).start();
    let url = database_url(&dev).await;
    let pid = server_pid(&url).await;
    let mut connection = PgConnection::connect(&url).await.expect("connected");
    let query = "insert into signaling.outbox (sender, destination, payload) values ('alice', 'bob', 'hello')
                 returning id";
    let id: i64 = ask(&mut connection, query).await;
    until("the message is sent", PATIENCE, async || {
        sqlx::query_scalar::<_, String>("select status from signaling.outbox where id = $1")
            .bind(id)
            .fetch_one(&mut connection)
            .await
            .expect("a row")
            == "message_sent"
    })
    .await;
    dev.signal("INT").await;
    assert_eq!(dev.wait_exit().await, Some(0), "{}", dev.stderr.text());
    until_nothing_is_left(&directory, &url, pid).await;
}

#[tokio::test]
async fn a_killed_demonstration_leaves_nothing_behind() {
    let directory = temporary_directory();
    let mut dev = dev(&directory).start();
    let url = database_url(&dev).await;
    let pid = server_pid(&url).await;
    dev.kill().await;
    until_nothing_is_left(&directory, &url, pid).await;
}
