//! The address of the ops server.

use std::fs;
use std::time::Duration;

use tokio::net::TcpListener;

use super::ops_client::OpsWorker;
use testkit::{Worker, World, comes_true};

/// `worker run` with valid settings and an unreachable database.
fn run() -> Worker {
    Worker::on("postgres://app:hush-hush@127.0.0.1:1/app", &["run"])
        .with_app()
        .env("AGORA_API_SECRET", "hush-hush")
}

async fn refused(worker: Worker, phrases: &[&str]) {
    worker.fails(2, phrases).await;
}

#[tokio::test]
async fn an_address_that_other_hosts_reach_needs_a_token() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090"] {
        let worker = run().env("WORKER_OPS_ADDR", address);
        refused(
            worker,
            &["reached from other hosts", "WORKER_OPS_TOKEN_FILE"],
        )
        .await;
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().display().to_string();
    let with_file = || {
        run()
            .env("WORKER_OPS_ADDR", "0.0.0.0:0")
            .arg("--ops-token-file")
            .arg(&path)
    };
    refused(with_file(), &["is empty", "WORKER_OPS_TOKEN_FILE"]).await;
    fs::write(file.path(), "zebra-short").expect("written");
    refused(with_file(), &["shorter than 16 characters"]).await;
    fs::write(file.path(), "zebra-token-0918273645").expect("written");
    let mut worker = with_file().start();
    worker.until_logged("ops_server_started").await;
    let line = worker.log_line("ops_server_started");
    assert!(line.contains(" address=0.0.0.0:"), "{line}");
    worker.stop().await;
    assert!(!worker.stderr.text().contains("zebra"));
}

#[tokio::test]
async fn an_invalid_or_taken_address_is_an_error() {
    for address in ["9090", "localhost", "example.com:9090", "on"] {
        let worker = run().env("WORKER_OPS_ADDR", address);
        refused(worker, &["is no address", "off"]).await;
    }
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = taken.local_addr().expect("an address").to_string();
    let worker = run()
        .env("WORKER_OPS_ADDR", "off")
        .arg("--ops-addr")
        .arg(&address);
    refused(worker, &[&address, "can't listen", "WORKER_OPS_ADDR"]).await;
}

#[tokio::test]
async fn a_worker_whose_default_address_is_taken_works_without() {
    let world = World::new().await;
    // Another test or program may hold the port. Then it is taken, too.
    let mut taken = None;
    comes_true(Duration::from_secs(10), async || {
        taken = TcpListener::bind("127.0.0.1:9090").await.ok();
        taken.is_some()
    })
    .await;
    let mut worker = world.worker().without_env("WORKER_OPS_ADDR").start();
    worker.until_logged("ops_server_skipped").await;
    let line = worker.log_line("ops_server_skipped");
    assert!(line.contains("Set WORKER_OPS_ADDR"), "{line}");
    world.assert_sends().await;
    worker.stop().await;
    drop(taken);
}

#[tokio::test]
async fn off_disables_the_server() {
    let world = World::new().await;
    let mut worker = world.worker().env("WORKER_OPS_ADDR", "off").start();
    worker.until_logged("worker_started").await;
    worker.stop().await;
    for event in ["ops_server_started", "ops_server_skipped"] {
        assert_eq!(worker.logged(event), 0, "{event}");
    }
}

#[tokio::test]
async fn the_server_ends_with_its_worker() {
    let world = World::new().await;
    let mut ops = OpsWorker::start(world.worker()).await;
    ops.until_ready().await;
    ops.worker.stop().await;
    let address = ops.client.0;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
