//! Connects HTTP clients to the API and to the collector of traces, directly or through a proxy.
//!
//! The worker asks a proxy for `CONNECT host:port`, for `http://` targets too. So the proxy sees neither credentials nor
//! messages, and the worker never mistakes a refusal of the proxy for a response of the API. The proxy resolves the
//! target's name.

mod addresses;

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;
use tower::util::{BoxCloneSyncService, service_fn};

use self::addresses::TcpConnector;
pub(crate) use self::addresses::port;
use crate::error_text::{connection_error_text, error_chain_text};
use crate::proxy::{Proxy, ProxyVariables};

const MAX_PROXY_RESPONSE_HEADERS: usize = 64;
const MAX_PROXY_RESPONSE_HEAD_BYTES: usize = 16 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

/// A TCP connection, or a TLS connection to a proxy.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Makes connections for an HTTP client, without the target's own TLS. [`https_connector`] adds that.
pub(crate) type Connector = BoxCloneSyncService<Uri, Stream, BoxError>;

type TcpService = BoxCloneSyncService<Uri, TokioIo<TcpStream>, BoxError>;

/// A connector that uses TLS for `https://` targets. `connect_timeout` is the caller's timeout for a connection.
pub(crate) fn https_connector(
    tls: rustls::ClientConfig,
    proxies: ProxyVariables,
    connect_timeout: Duration,
) -> HttpsConnector<Connector> {
    let tls = Arc::new(tls);
    let tcp_connector = TcpConnector::new();
    let tcp = TcpService::new(service_fn(move |target| {
        tcp_connector.clone().connect(target)
    }));
    // With the caller's timeout, the caller would give up first, with an error that does not name the proxy.
    let timeout = connect_timeout.mul_f64(0.8);
    // Connects a proxy, with TLS if its URL is `https://`.
    let to_proxy = HttpsConnector::from((tcp.clone(), Arc::clone(&tls)));
    let connector = service_fn(move |target: Uri| {
        let proxy = proxies.proxy_of(&target);
        let (mut tcp, to_proxy) = (tcp.clone(), to_proxy.clone());
        async move {
            match proxy {
                Ok(None) => tcp.call(target).await.map(MaybeHttpsStream::Http),
                Ok(Some(proxy)) => {
                    let connected = through_proxy(to_proxy, proxy, &target, timeout).await;
                    connected.map_err(BoxError::from)
                }
                Err(error) => Err(BoxError::from(error)),
            }
        }
    });
    HttpsConnector::from((Connector::new(connector), tls))
}

/// A proxy gave no connection. The message that waits for the connection is not at fault.
#[derive(Debug, thiserror::Error)]
#[error("the proxy {proxy} {why}")]
pub(crate) struct ProxyError {
    proxy: Proxy,
    why: String,
}

async fn through_proxy(
    to_proxy: HttpsConnector<TcpService>,
    proxy: Proxy,
    target: &Uri,
    timeout: Duration,
) -> Result<Stream, ProxyError> {
    let target = format!("{}:{}", target.host().unwrap_or_default(), port(target));
    let tunnel = tokio::time::timeout(timeout, open_tunnel(to_proxy, &proxy, &target));
    let opened = tunnel.await.unwrap_or_else(|_| {
        let timeout = humantime::format_duration(timeout);
        Err(format!("did not connect {target} within {timeout}"))
    });
    opened.map_err(|why| ProxyError { proxy, why })
}

/// Asks a proxy for a connection to a target. An error continues the words "the proxy http://…".
async fn open_tunnel(
    mut to_proxy: HttpsConnector<TcpService>,
    proxy: &Proxy,
    target: &str,
) -> Result<Stream, String> {
    let io = to_proxy.call(proxy.uri.clone()).await.map_err(|error| {
        let why = connection_error_text(&*error, "AGORA_CA_FILE");
        format!("can't be connected: {why}")
    })?;
    let broken = |error: &(dyn Error + 'static)| {
        let why = error_chain_text(error);
        format!("ended the connection before it connected {target}: {why}")
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MAX_PROXY_RESPONSE_HEADERS)
        .max_buf_size(MAX_PROXY_RESPONSE_HEAD_BYTES)
        .handshake(io)
        .await
        .map_err(|error| broken(&error))?;
    let mut request = Request::connect(target).header(HOST, target);
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::<Bytes>::new());
    let request = request.map_err(|error| broken(&error))?;
    let opening = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| broken(&error))?;
        let variable = proxy.variable;
        match response.status() {
            status if status.is_success() => {
                let upgraded = hyper::upgrade::on(response).await;
                let upgraded = upgraded.map_err(|error| broken(&error))?;
                match upgraded.downcast::<Stream>() {
                    Ok(parts) if parts.read_buf.is_empty() => Ok(parts.io),
                    // The target speaks only after the worker, so these bytes would be no part of its TLS handshake.
                    _ => Err(format!("sent more than the response to CONNECT {target}")),
                }
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED if proxy.authorization.is_none() => {
                Err(format!(
                    "demands a user name and a password (HTTP 407): write them into {variable}, like http://user:password@proxy.example:3128"
                ))
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(format!(
                "rejects the user name and password (HTTP 407): correct them in {variable}"
            )),
            status => Err(format!(
                "does not connect {target} (HTTP {status}): it forbids that, or can't reach the host; its log says more"
            )),
        }
    };
    // The connection runs within this future, not in a task of its own, so that a caller that gives up also closes the
    // connection.
    let (mut opening, connection) = (pin!(opening), pin!(connection.with_upgrades()));
    tokio::select! {
        biased;
        opened = &mut opening => opened,
        _ended = connection => opening.await,
    }
}
