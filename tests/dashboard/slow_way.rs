//! A way to the database on which every message takes its time, or never arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use testkit::World;

/// So long that nobody waits for it.
const NEVER: Duration = Duration::from_hours(1);

/// The way from a port of its own to a world's database: at first without any delay.
pub(super) struct SlowWay {
    url: String,
    delay_ms: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl SlowWay {
    pub(super) async fn to(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("its address");
        let (before, rest) = world.url.split_once('@').expect("a host");
        let (host, path) = rest.split_once('/').expect("a database");
        let delay_ms = Arc::new(AtomicU64::new(0));
        let (database, delay) = (host.to_owned(), Arc::clone(&delay_ms));
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&database).await.expect("connected");
                client.set_nodelay(true).expect("set");
                server.set_nodelay(true).expect("set");
                let (client, server) = (client.into_split(), server.into_split());
                tokio::spawn(carry(client.0, server.1, Arc::clone(&delay)));
                tokio::spawn(carry(server.0, client.1, Arc::default()));
            }
        });
        Self {
            url: format!("{before}@{address}/{path}"),
            delay_ms,
            serving,
        }
    }

    /// The database's URL by this way.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// From now on every message to the database takes so long.
    pub(super) fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("not that long");
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// From now on nothing arrives.
    pub(super) fn swallow(&self) {
        self.delay(NEVER);
    }
}

impl Drop for SlowWay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay_ms: Arc<AtomicU64>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
}
