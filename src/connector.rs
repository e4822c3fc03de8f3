//! Connects HTTP clients to the API and to the collector of traces, directly or through a proxy.
//!
//! The worker asks a proxy for `CONNECT host:port`, for `http://` targets too. So the proxy sees neither credentials nor
//! messages, and the worker never mistakes a refusal of the proxy for a response of the API. The proxy resolves the
//! target's name. Without a proxy, the worker resolves the name for each connection, so new connections follow a change of
//! the name service.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::Authority;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// A TCP connection, or a TLS connection to a proxy.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes connections for an HTTP client, without the target's own TLS. [`https_connector`] adds that.
pub(crate) type Connector = BoxCloneSyncService<Uri, Stream, Box<dyn Error + Send + Sync>>;

pub(crate) fn https_connector(
    tls: Arc<ClientConfig>,
    proxy: Option<Intercept>,
    connect_timeout: Duration,
) -> HttpsConnector<Connector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Each address of a name gets a share. Without it, a dead address would leave no time for the next one.
    tcp.set_connect_timeout(Some(connect_timeout));
    let connector = match proxy {
        None => Connector::new(tcp.map_response(MaybeHttpsStream::Http).map_err(Into::into)),
        Some(proxy) => {
            let to_proxy = HttpsConnector::from((tcp, Arc::clone(&tls)));
            let mut tunnel = Tunnel::new(proxy.uri().clone(), to_proxy);
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            Connector::new(tunnel.map_request(with_port).map_err(Into::into))
        }
    };
    HttpsConnector::from((connector, tls))
}

/// [`Tunnel`] asks for port 443 if the target names no port, even for `http://`.
fn with_port(target: Uri) -> Uri {
    let host = target.host().unwrap_or_default();
    let authority = format!("http://{host}:{}/", port(&target));
    authority.parse().unwrap_or(target)
}

pub(crate) fn port(target: &Uri) -> u16 {
    let is_http = target.scheme_str() == Some("http");
    target.port_u16().unwrap_or(if is_http { 80 } else { 443 })
}

/// True for `localhost` and loopback addresses. A name server can't point them at another host.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address = address.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// True for the URL of a server, without a user name and a password.
pub(crate) fn is_server(url: &Uri) -> bool {
    let is_host =
        |authority: &Authority| !authority.host().is_empty() && !authority.as_str().contains('@');
    matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some_and(is_host)
}
