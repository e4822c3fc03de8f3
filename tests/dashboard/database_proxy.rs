//! A TCP proxy in front of a world's database, which refuses connections, delays what the worker sends, or drops it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use testkit::World;

/// A delay longer than any test.
const NEVER: Duration = Duration::from_hours(1);

pub(super) struct DatabaseProxy {
    url: String,
    /// The host and port of the database itself.
    database: String,
    delay_ms: Arc<AtomicU64>,
    /// Reserves the port. Until it listens, the system refuses connections.
    socket: Option<TcpSocket>,
    accepting: Option<JoinHandle<()>>,
}

impl DatabaseProxy {
    /// A proxy that forwards without a delay.
    pub(super) fn open(world: &World) -> Self {
        let mut proxy = Self::closed(world);
        proxy.accept();
        proxy
    }

    /// A proxy that refuses connections until [`Self::accept`].
    pub(super) fn closed(world: &World) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        let address = socket.local_addr().expect("bound");
        let (before, rest) = world.url.split_once('@').expect("a host");
        let (database, path) = rest.split_once('/').expect("a database");
        Self {
            url: format!("{before}@{address}/{path}"),
            database: database.to_owned(),
            delay_ms: Arc::default(),
            socket: Some(socket),
            accepting: None,
        }
    }

    /// Begins to accept connections.
    pub(super) fn accept(&mut self) {
        let socket = self.socket.take().expect("a closed proxy");
        let listener = socket.listen(128).expect("listening");
        let forwarding = forward(listener, self.database.clone(), Arc::clone(&self.delay_ms));
        self.accepting = Some(tokio::spawn(forwarding));
    }

    /// The database's URL through this proxy.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Delays each chunk of bytes that the worker sends from now on.
    pub(super) fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("not that long");
        self.delay_ms.store(ms, Ordering::Relaxed);
    }

    /// Drops everything that the worker sends from now on.
    pub(super) fn swallow(&self) {
        self.delay(NEVER);
    }
}

impl Drop for DatabaseProxy {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

async fn forward(listener: TcpListener, database: String, delay_ms: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(&database).await.expect("connected");
        client.set_nodelay(true).expect("set");
        server.set_nodelay(true).expect("set");
        let (client, server) = (client.into_split(), server.into_split());
        tokio::spawn(carry(client.0, server.1, Arc::clone(&delay_ms)));
        tokio::spawn(carry(server.0, client.1, Arc::default()));
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
