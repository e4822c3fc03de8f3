//! A network between the workers and the database, with faults.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The network carries bytes.
    Up,
    /// The network delays all bytes until the next change.
    Stalled,
    /// The network drops all bytes. Its connections stay dead, and neither side is told.
    Swallowing,
}

/// A TCP proxy in front of the database.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    network: watch::Sender<Network>,
    dead: Dead,
}

/// The server's sides of dead connections. The server still takes them for open.
type Dead = Arc<Mutex<Vec<OwnedWriteHalf>>>;

impl Proxy {
    /// Starts a proxy to a port of this host.
    pub(crate) async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (network, state) = watch::channel(Network::Up);
        let dead = Dead::default();
        let kept = Arc::clone(&dead);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server_port, state.clone(), Arc::clone(&kept)));
            }
        });
        Self {
            port,
            network,
            dead,
        }
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Closes the dead connections for the server, as its operating system does after a while.
    pub(crate) fn bury(&self) {
        self.dead
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

async fn carry(client: TcpStream, server_port: u16, network: watch::Receiver<Network>, dead: Dead) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else {
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let swallowed = {
        let up = pass(&mut from_client, &mut to_server, network.clone());
        let down = pass(&mut from_server, &mut to_client, network);
        tokio::select! {
            ended = up => ended,
            ended = down => ended,
        }
    };
    if swallowed == Ended::Swallowed {
        dead.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(to_server);
        // The client's side stays open until the client closes it.
        let mut nowhere = [0; 4096];
        while matches!(from_client.read(&mut nowhere).await, Ok(1..)) {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    Swallowed,
}

async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) -> Ended {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            _ = network.wait_for(|network| *network == Network::Swallowing) => return Ended::Swallowed,
            read = from.read(&mut buffer) => read,
        };
        let Ok(bytes @ 1..) = read else {
            return Ended::Closed;
        };
        match network
            .wait_for(|network| *network != Network::Stalled)
            .await
            .map(|network| *network)
        {
            Ok(Network::Up) => {}
            Ok(_) => return Ended::Swallowed,
            Err(_) => return Ended::Closed,
        }
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return Ended::Closed;
        }
    }
}
