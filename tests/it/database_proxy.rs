//! A TCP proxy between the workers and the database of a world, with the faults of a network.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use harness::World;

/// Longer than any test.
const NEVER: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The network carries bytes.
    Up,
    /// The network carries bytes, and each chunk takes this long in either direction.
    Far(Duration),
    /// The network carries bytes, and delays the first chunk that has this text by 100 ms.
    StallingOnce(&'static str),
    /// The network delays all bytes until the next change.
    Stalled,
    /// The network drops all bytes without a reset. Connections stay dead.
    Swallowing,
    /// The network drops a connection without a reset after this silence, as firewalls do.
    Forgetful(Duration),
}

/// The server's sides of dead connections. The server still takes them for open.
type Dead = Arc<Mutex<Vec<TcpStream>>>;

pub(crate) struct DatabaseProxy {
    /// The database's URL through this proxy.
    pub(crate) url: String,
    address: SocketAddr,
    /// The host and port of the database itself.
    database: String,
    network: watch::Sender<Network>,
    dead: Dead,
    /// Reserves the port of a closed proxy. The system refuses connections.
    socket: Option<TcpSocket>,
    accepting: Option<JoinHandle<()>>,
}

impl DatabaseProxy {
    pub(crate) fn open(world: &World) -> Self {
        let mut proxy = Self::closed(world);
        proxy.accept();
        proxy
    }

    /// A proxy that refuses connections until [`Self::accept`].
    pub(crate) fn closed(world: &World) -> Self {
        let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = socket.local_addr().expect("bound");
        let (before, rest) = world.url.split_once('@').expect("a host");
        let (database, path) = rest.split_once('/').expect("a database");
        Self {
            url: format!("{before}@{address}/{path}"),
            address,
            database: database.to_owned(),
            network: watch::Sender::new(Network::Up),
            dead: Dead::default(),
            socket: Some(socket),
            accepting: None,
        }
    }

    /// Begins to accept connections.
    pub(crate) fn accept(&mut self) {
        let socket = self.socket.take().unwrap_or_else(|| bound(self.address));
        let listener = socket.listen(128).expect("listening");
        let (database, dead) = (self.database.clone(), Arc::clone(&self.dead));
        let network = self.network.subscribe();
        self.accepting = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (database, dead) = (database.clone(), Arc::clone(&dead));
                connections.spawn(carry(client, database, network.clone(), dead));
            }
        }));
    }

    /// Closes all connections, and refuses new ones.
    pub(crate) async fn close(&mut self) {
        let accepting = self.accepting.take().expect("an open proxy");
        accepting.abort();
        accepting.await.expect_err("aborted");
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// The number of dead connections.
    pub(crate) fn dropped(&self) -> usize {
        self.dead.lock().expect("whole").len()
    }

    /// Closes the dead connections for the server, as its operating system does after a while.
    pub(crate) fn bury(&self) {
        self.dead.lock().expect("whole").clear();
    }
}

impl Drop for DatabaseProxy {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("set");
    socket.bind(address).expect("a free port");
    socket
}

async fn carry(
    mut client: TcpStream,
    database: String,
    mut network: watch::Receiver<Network>,
    dead: Dead,
) {
    let Ok(mut server) = TcpStream::connect(database).await else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (mut sent, mut received) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut has_stalled = false;
    loop {
        let longest_silence = match *network.borrow() {
            Network::Forgetful(silence) => silence,
            _ => NEVER,
        };
        let mut swallowing = network.clone();
        let (is_sent, read) = tokio::select! {
            biased;
            _ = swallowing.wait_for(|network| *network == Network::Swallowing) => break,
            read = client.read(&mut sent) => (true, read),
            read = server.read(&mut received) => (false, read),
            () = tokio::time::sleep(longest_silence) => break,
        };
        let Ok(count @ 1..) = read else {
            return;
        };
        let moving = network.wait_for(|network| *network != Network::Stalled);
        match moving.await.map(|network| *network) {
            Ok(Network::Swallowing) => break,
            Ok(Network::Far(delay)) => tokio::time::sleep(delay).await,
            Ok(Network::StallingOnce(text)) if is_sent && !has_stalled => {
                has_stalled = String::from_utf8_lossy(&sent[..count]).contains(text);
                if has_stalled {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
        let written = if is_sent {
            server.write_all(&sent[..count]).await
        } else {
            client.write_all(&received[..count]).await
        };
        if written.is_err() {
            return;
        }
    }
    dead.lock().expect("whole").push(server);
    // The client's side stays open until the client closes it.
    while let Ok(1..) = client.read(&mut sent).await {}
}
