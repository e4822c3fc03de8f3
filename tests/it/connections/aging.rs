//! Connections that get old, or that the network drops while nobody uses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use testkit::{PATIENCE, Running, World, comes_true, slow_api};

/// Events of a database that has failed.
const FAILURES: [&str; 4] = [
    "database_failed",
    "record_failed",
    "stats_failed",
    "queue_counts_failed",
];

fn assert_no_failure(worker: &Running) {
    for event in FAILURES {
        let log = worker.stderr.text();
        assert_eq!(worker.logged(event), 0, "{event}: {log}");
    }
}

/// Lets a time pass in which the worker is left alone.
async fn leave_alone(time: Duration) {
    let since = Instant::now();
    assert!(comes_true(PATIENCE, async || since.elapsed() > time).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_idle_sessions_makes_no_statement_fail() {
    let world = World::with(slow_api(10)).await;
    let database: String = world.ask("select current_database()::text").await;
    world
        .execute(&format!(
            "alter database {database} set idle_session_timeout = '1s'"
        ))
        .await;
    let worker = world.worker().env("WORKER_POLL_INTERVAL", "60s").start();
    for count in [50, 100] {
        world.insert_many(50).await;
        world.until_all_final().await;
        assert_eq!(world.count("status = 'message_sent'").await, count);
        leave_alone(Duration::from_secs(3)).await;
    }
    assert_no_failure(&worker);
    assert_eq!(worker.logged("listener_lost"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_replaced_at_their_greatest_age_and_no_statement_fails() {
    let world = World::with(slow_api(10)).await;
    let worker = world
        .worker()
        .env("WORKER_DATABASE_CONNECTION_AGE", "1s")
        .start();
    worker.until_logged("worker_started").await;
    let started: String = world.ask("select clock_timestamp()::text").await;
    let old = format!(
        "select exists (select from pg_stat_activity where datname = current_database()
         and application_name = 'signaling-worker' and backend_start < '{started}')"
    );
    let mut inserted = 0;
    world
        .until("every connection is replaced", PATIENCE, async || {
            world.insert_many(20).await;
            inserted += 20;
            !world.ask::<bool>(&old).await
        })
        .await;
    // Also the one that listens.
    world.until_idle().await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, inserted);
    assert_no_failure(&worker);
    assert_eq!(worker.logged("listener_lost"), 0);
}

/// A TCP proxy that drops a connection without a word when nothing has passed for a while, as firewalls do.
struct Firewall {
    port: u16,
    dropped: Arc<AtomicUsize>,
}

/// After so long a silence.
const FORGETS_AFTER: Duration = Duration::from_secs(3);

impl Firewall {
    async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let dropped = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&dropped);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server_port, Arc::clone(&count)));
            }
        });
        Self { port, dropped }
    }
}

async fn carry(mut client: TcpStream, server_port: u16, dropped: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(("127.0.0.1", server_port))
        .await
        .expect("connected");
    client.set_nodelay(true).expect("set");
    server.set_nodelay(true).expect("set");
    let (mut sent, mut received) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let passed = tokio::select! {
            read = client.read(&mut sent) => match read {
                Ok(count @ 1..) => server.write_all(&sent[..count]).await,
                _ => return,
            },
            read = server.read(&mut received) => match read {
                Ok(count @ 1..) => client.write_all(&received[..count]).await,
                _ => return,
            },
            () = tokio::time::sleep(FORGETS_AFTER) => break,
        };
        if passed.is_err() {
            return;
        }
    }
    dropped.fetch_add(1, Ordering::Relaxed);
    // Both ends stay open, and nothing passes ever again.
    while matches!(client.read(&mut sent).await, Ok(1..)) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_idle_connections_cost_no_failed_claim_and_no_late_record() {
    let world = World::with(slow_api(10)).await;
    let (before, rest) = world.url.split_once("@127.0.0.1:").expect("a host");
    let (port, database) = rest.split_once('/').expect("a database");
    let firewall = Firewall::start(port.parse().expect("a port")).await;
    let url = format!("{before}@127.0.0.1:{}/{database}", firewall.port);
    let worker = world.worker().env("DATABASE_URL", &url).start();
    worker.until_logged("worker_started").await;
    for round in 1..=3 {
        world.insert_many(100).await;
        world.until_all_final().await;
        assert_eq!(world.count("status = 'message_sent'").await, round * 100);
        let dropped = firewall.dropped.load(Ordering::Relaxed);
        world
            .until("idle connections are dropped", PATIENCE, async || {
                firewall.dropped.load(Ordering::Relaxed) > dropped
            })
            .await;
        leave_alone(FORGETS_AFTER).await;
    }
    // The connection that records was among them each time, and a claim on a dead one would have taken 4 s.
    assert_no_failure(&worker);
    let slowest_s: f64 = world
        .ask("select max(extract(epoch from sent_at - created_at))::float8 from signaling.outbox")
        .await;
    assert!(slowest_s < 4.0, "a message waited for {slowest_s} s");
    assert_eq!(world.count("attempts = 1").await, 300);
}
