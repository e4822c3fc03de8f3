//! A way to the database that can be closed, and opened again.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use testkit::World;

/// The way from a port of its own to a world's database. Closed at first: nobody listens.
pub(super) struct Gate {
    address: SocketAddr,
    database: String,
    url: String,
    open: Option<JoinHandle<()>>,
}

impl Gate {
    pub(super) async fn before(world: &World) -> Self {
        // A port that was free just now.
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

    /// The database's URL by this way.
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

    /// Cuts every connection, and lets none through.
    pub(super) async fn close(&mut self) {
        let open = self.open.take().expect("it is open");
        open.abort();
        open.await.expect_err("aborted");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.abort();
        }
    }
}
