//! A TCP proxy to the database that a test opens and closes.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use testkit::World;

/// A proxy to a world's database. While the proxy is closed, the system refuses connections.
pub(super) struct DatabaseGate {
    address: SocketAddr,
    database: String,
    url: String,
    open: Option<JoinHandle<()>>,
}

impl DatabaseGate {
    pub(super) async fn before(world: &World) -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .await
            .and_then(|listener| listener.local_addr())
            .expect("an address");
        let (before, rest) = world.url.split_once('@').expect("a host");
        let (host, path) = rest.split_once('/').expect("a database");
        Self {
            address,
            database: host.to_owned(),
            url: format!("{before}@{address}/{path}"),
            open: None,
        }
    }

    /// The database's URL through this proxy.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("bound");
        let database = self.database.clone();
        self.open = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let database = database.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(database).await.expect("connected");
                    tokio::io::copy_bidirectional(&mut client, &mut server)
                        .await
                        .ok();
                });
            }
        }));
    }

    /// Closes all connections and refuses new ones.
    pub(super) async fn close(&mut self) {
        let open = self.open.take().expect("it is open");
        open.abort();
        open.await.expect_err("aborted");
    }
}

impl Drop for DatabaseGate {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.abort();
        }
    }
}
