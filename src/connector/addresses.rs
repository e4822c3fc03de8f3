//! Makes a TCP connection to one of a host's addresses. The worker resolves the name for each connection, so new connections
//! follow a change of the name service.
//!
//! Several addresses race as in RFC 8305. Each one starts 250 ms after the one before, or at once if that one failed, and
//! the first connection wins. hyper-util's own connector races IPv6 against IPv4 only: within a family, a dead address
//! would cost each new connection a share of its timeout.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::BoxError;

/// How long an address has before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// The most addresses of a host that the worker tries.
const MAX_ADDRESSES: usize = 16;
/// How long the worker tries an address last after it failed or lost a race.
const AVOID_FOR: Duration = Duration::from_secs(30);
/// The system probes a connection without traffic after this time, then at the interval. Without probes, the worker would
/// not notice that a firewall or a load balancer has dropped the connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

#[derive(Debug, Clone)]
pub(super) struct TcpConnector {
    http: HttpConnector,
    avoided: Arc<Avoided>,
}

/// Addresses that failed or lost a race within [`AVOID_FOR`].
#[derive(Debug, Default)]
struct Avoided(Mutex<HashMap<SocketAddr, Instant>>);

/// The port of a URL, written or implied.
pub(super) fn port(target: &Uri) -> u16 {
    let is_http = target.scheme_str() == Some("http");
    target.port_u16().unwrap_or(if is_http { 80 } else { 443 })
}

impl TcpConnector {
    pub(super) fn new() -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(KEEPALIVE_AFTER));
        http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        http.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        Self {
            http,
            avoided: Arc::default(),
        }
    }

    pub(super) async fn connect(self, target: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let host = target.host().unwrap_or_default();
        // The name service does not know the brackets of an IPv6 address.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, port(&target))).await;
        let found = found.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("the name {host} has no address: {error}"),
            )
        })?;
        let addresses = self.avoided.sort(alternate_families(found));
        let connect = |address: SocketAddr| {
            let mut http = self.http.clone();
            async move {
                let uri = Uri::builder()
                    .scheme("http")
                    .authority(address.to_string())
                    .path_and_query("/")
                    .build()?;
                http.call(uri).await.map_err(BoxError::from)
            }
        };
        let winner = first_connected(&addresses, connect).await;
        if let Ok((_, overtaken)) = &winner {
            self.avoided.add(overtaken);
        }
        Ok(winner?.0)
    }
}

impl Service<Uri> for TcpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(connector.connect(target))
    }
}

impl Avoided {
    /// The same addresses, avoided ones last.
    fn sort(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let mut avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.retain(|_, since| since.elapsed() < AVOID_FOR);
        addresses.sort_by_key(|address| avoided.contains_key(address));
        addresses
    }

    fn add(&self, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let mut avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            // A name service that always gives other addresses must not fill the memory.
            if avoided.len() < 8 * MAX_ADDRESSES {
                avoided.insert(*address, Instant::now());
            }
        }
    }
}

/// Alternates between IPv6 and IPv4, in the system's order. If one family does not work at all, the second address belongs to
/// the other.
fn alternate_families(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<_> = found.collect();
    let Some(first) = found.first() else {
        return Vec::new();
    };
    let (preferred, other): (Vec<_>, Vec<_>) = found
        .iter()
        .copied()
        .partition(|address| address.is_ipv6() == first.is_ipv6());
    let mut other = other.into_iter();
    let mut addresses = Vec::with_capacity(found.len());
    for address in preferred {
        addresses.push(address);
        addresses.extend(other.next());
    }
    addresses.extend(other);
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// The first connection, and the addresses that started earlier without one.
async fn first_connected<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(T, Vec<SocketAddr>), BoxError>
where
    F: Future<Output = Result<T, BoxError>>,
{
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut started = Vec::new();
    let mut first_error = None;
    loop {
        if let Some(address) = waiting.next() {
            started.push(address);
            let connecting = connect(address);
            running.push(async move { (address, connecting.await) });
        } else if running.is_empty() {
            return Err(first_error.unwrap_or_else(|| "its name has no address".into()));
        }
        let head_start = tokio::time::sleep(HEAD_START);
        let has_more = waiting.len() > 0;
        let mut ended = tokio::select! {
            ended = running.next() => ended,
            () = head_start, if has_more => None,
        };
        while let Some((address, connected)) = ended {
            match connected {
                Ok(connection) => {
                    started.retain(|other| *other != address);
                    return Ok((connection, started));
                }
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
            // No address is left to start, so wait for the running ones.
            ended = if has_more { None } else { running.next().await };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: &str = "192.0.2.1:443";
    const ALIVE: &str = "192.0.2.2:443";
    const REFUSING: &str = "192.0.2.3:443";

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    async fn connect(address: SocketAddr) -> Result<SocketAddr, BoxError> {
        match address.to_string().as_str() {
            ALIVE => Ok(address),
            REFUSING => Err("refused".into()),
            _ => std::future::pending().await,
        }
    }

    #[tokio::test]
    async fn a_dead_address_costs_a_head_start_and_then_nothing() {
        let avoided = Avoided::default();
        let found = addresses(&[DEAD, ALIVE]);
        let begun = Instant::now();
        let (winner, overtaken) = first_connected(&avoided.sort(found.clone()), connect)
            .await
            .expect("a connection");
        assert!(begun.elapsed() >= HEAD_START);
        assert_eq!((winner, &overtaken), (found[1], &found[..1].to_vec()));
        avoided.add(&overtaken);
        assert_eq!(avoided.sort(found), addresses(&[ALIVE, DEAD]));
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
        let found = addresses(&[REFUSING, REFUSING, ALIVE]);
        let begun = Instant::now();
        let (winner, _) = first_connected(&found, connect).await.expect("one");
        assert_eq!(winner.to_string(), ALIVE);
        assert!(begun.elapsed() < HEAD_START, "{:?}", begun.elapsed());
        let error = first_connected(&found[..2], connect)
            .await
            .expect_err("none");
        assert_eq!(error.to_string(), "refused");
        assert!(first_connected(&[], connect).await.is_err());
    }

    #[test]
    fn the_families_take_turns() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]);
        let order = alternate_families(found.into_iter());
        assert_eq!(
            order,
            addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"])
        );
    }
}
