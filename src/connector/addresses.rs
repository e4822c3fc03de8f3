//! Makes a TCP connection to one of a host's addresses. The worker resolves the name for each connection, so new connections
//! follow a change of the name service.
//!
//! Several addresses race as in RFC 8305. Each one starts 250 ms after the one before, or at once if that one failed, and
//! the first connection wins. hyper-util's own connector races IPv6 against IPv4 only. Within a family, a dead address
//! would cost each new connection a share of its timeout.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tower::Service;

use super::BoxError;

/// The wait before the worker tries the next address beside the present one.
const HEAD_START: Duration = Duration::from_millis(250);
const MAX_ADDRESSES: usize = 16;
/// How long the worker tries an address last after the address failed or lost a race. Otherwise each new connection would
/// lose a head start to a dead address, and its message would miss the slot.
const AVOID_FOR: Duration = Duration::from_secs(30);
/// Without these probes of the system, the worker would not notice that a firewall or a load balancer has dropped an idle
/// connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;

#[derive(Debug, Clone)]
pub(super) struct TcpConnector {
    http: HttpConnector,
    /// Addresses that failed or lost a race within [`AVOID_FOR`].
    avoided: Arc<Mutex<Avoided>>,
}

type Avoided = HashMap<SocketAddr, Instant>;

/// The port of a URL, written or implied.
pub(crate) fn port(target: &Uri) -> u16 {
    let is_http = target.scheme_str() == Some("http");
    target.port_u16().unwrap_or(if is_http { 80 } else { 443 })
}

impl TcpConnector {
    pub(super) fn new() -> Self {
        let mut http = HttpConnector::new();
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
            let why = format!("the name {host} has no address: {error}");
            io::Error::new(error.kind(), why)
        })?;
        let avoided = || self.avoided.lock();
        let addresses = in_order(found, &mut avoided());
        let connect = |address: SocketAddr| {
            let mut http = self.http.clone();
            async move {
                let uri: Uri = format!("http://{address}/").parse()?;
                http.call(uri).await.map_err(BoxError::from)
            }
        };
        let (connection, overtaken) = first_connected(&addresses, connect).await?;
        let mut avoided = avoided();
        let now = Instant::now();
        // A name service that always gives other addresses must not fill the memory.
        let room = (8 * MAX_ADDRESSES).saturating_sub(avoided.len());
        let overtaken = overtaken.into_iter().take(room);
        avoided.extend(overtaken.map(|address| (address, now)));
        Ok(connection)
    }
}

/// Alternates between IPv6 and IPv4 in the system's order, with avoided addresses last. If one family does not work at all,
/// the second address belongs to the other.
fn in_order(found: impl Iterator<Item = SocketAddr>, avoided: &mut Avoided) -> Vec<SocketAddr> {
    avoided.retain(|_, since| since.elapsed() < AVOID_FOR);
    let mut family_sizes = [0_usize; 2];
    let mut places: Vec<_> = found
        .map(|address| {
            let place = &mut family_sizes[usize::from(address.is_ipv6())];
            *place += 1;
            (avoided.contains_key(&address), *place, address)
        })
        .collect();
    places.sort_by_key(|(is_avoided, place, _)| (*is_avoided, *place));
    places.truncate(MAX_ADDRESSES);
    places.into_iter().map(|(_, _, address)| address).collect()
}

/// The first connection, and the addresses that started earlier without one.
async fn first_connected<T, F>(
    addresses: &[SocketAddr],
    connect: impl Fn(SocketAddr) -> F,
) -> Result<(T, Vec<SocketAddr>), BoxError>
where
    F: Future<Output = Result<T, BoxError>>,
{
    let mut running = FuturesUnordered::new();
    let mut first_error = None;
    let mut started = 0;
    loop {
        if let Some(&address) = addresses.get(started) {
            let connecting = connect(address);
            running.push(async move { (address, connecting.await) });
            started += 1;
        }
        let head_start = if started < addresses.len() {
            HEAD_START
        } else {
            Duration::MAX
        };
        match tokio::time::timeout(head_start, running.next()).await {
            Ok(Some((winner, Ok(connection)))) => {
                let others = addresses[..started].iter().copied();
                return Ok((
                    connection,
                    others.filter(|other| *other != winner).collect(),
                ));
            }
            Ok(Some((_, Err(error)))) => {
                first_error.get_or_insert(error);
            }
            Ok(None) => {
                return Err(first_error.unwrap_or_else(|| "its name has no address".into()));
            }
            Err(_elapsed) => {}
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
        let found = addresses(&[DEAD, ALIVE]);
        let begun = Instant::now();
        let (winner, overtaken) = first_connected(&found, connect).await.expect("one");
        assert!(begun.elapsed() >= HEAD_START);
        assert_eq!((winner, &overtaken), (found[1], &found[..1].to_vec()));
        let mut avoided = overtaken.into_iter().map(|dead| (dead, begun)).collect();
        let order = in_order(found.into_iter(), &mut avoided);
        assert_eq!(order, addresses(&[ALIVE, DEAD]));
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
        let order = in_order(found.into_iter(), &mut Avoided::new());
        assert_eq!(
            order,
            addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"])
        );
    }
}
