//! A database that is far away.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use testkit::World;

/// How long everything is on its way, in each direction: more than a call may be late for its slot.
const ONE_WAY: Duration = Duration::from_millis(25);

/// Passes on what comes, later.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(1_000);
    tokio::spawn(async move {
        while let Some((arrives, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(arrives).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let parcel = (Instant::now() + ONE_WAY, buffer[..length].to_vec());
        if sender.send(parcel).await.is_err() {
            return;
        }
    }
}

/// The same database over a long way: its URL.
async fn far_away(url: &str) -> String {
    let url_parts = url.split_once("127.0.0.1:").expect("a local server");
    let (port, rest) = url_parts.1.split_once('/').expect("a database");
    let server = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.expect("the server");
            client.set_nodelay(true).expect("set");
            server.set_nodelay(true).expect("set");
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server));
            tokio::spawn(carry(from_server, to_client));
        }
    });
    format!("{}{address}/{rest}", url_parts.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_sends_whose_database_is_far_away() {
    let world = World::new().await;
    let url = far_away(&world.url).await;
    let mut worker = world.worker().env("DATABASE_URL", &url).start();
    worker.until_logged("worker_started").await;
    // From a lane that has nothing to do, where the first slot is at the claim's own time.
    world.insert_many(3).await;
    world.until_all_final().await;
    world.insert_many(200).await;
    world.until_all_final().await;
    assert_eq!(world.count("status = 'message_sent'").await, 203);
    worker.stop().await;
}
