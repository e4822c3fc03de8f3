//! The address of the ops server.

use std::time::Duration;

use tokio::net::TcpListener;

use harness::{Worker, World, comes_true};

/// `worker run` with valid settings and an unreachable database.
fn run() -> Worker {
    Worker::on("postgres://app:hush-hush@127.0.0.1:1/app", &["run"])
        .with_app()
        .env("AGORA_API_SECRET", "hush-hush")
}

#[tokio::test]
async fn an_address_that_other_hosts_reach_needs_a_token() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9090"] {
        let phrases = ["reached from other hosts", "WORKER_OPS_TOKEN_FILE"];
        let worker = run().env("WORKER_OPS_ADDR", address);
        worker.fails(2, &phrases).await;
    }
    let with_token = |token: &str| {
        run()
            .env("WORKER_OPS_ADDR", "0.0.0.0:0")
            .file("WORKER_OPS_TOKEN_FILE", token)
    };
    for (token, phrases) in [
        ("", &["is empty", "WORKER_OPS_TOKEN_FILE"][..]),
        ("zebra-short", &["shorter than 16 characters"]),
    ] {
        with_token(token).fails(1, phrases).await;
    }
    let mut worker = with_token("zebra-token-0918273645").start();
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
        worker.fails(2, &["is no address", "off"]).await;
    }
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = taken.local_addr().expect("an address").to_string();
    // A flag wins over its variable, which is off here.
    let worker = run().arg("--ops-addr").arg(&address);
    let phrases = [&address, "can't listen", "WORKER_OPS_ADDR"];
    worker.fails(2, &phrases).await;
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
    let worker = world.worker().env("WORKER_OPS_ADDR", "off").start();
    worker.until_logged("worker_started").await;
    for event in ["ops_server_started", "ops_server_skipped"] {
        assert_eq!(worker.logged(event), 0, "{event}");
    }
}
