//! Connects HTTP clients to the API and to the collector of traces, directly or through a proxy.
//!
//! The worker asks a proxy for `CONNECT host:port`, for `http://` targets too. So the proxy sees neither credentials nor
//! messages, and the worker never mistakes a refusal of the proxy for a response of the API. The proxy resolves the
//! target's name.

mod addresses;

use std::error::Error;
use std::future::Future;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, PROXY_AUTHORIZATION};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

use self::addresses::TcpConnector;
use crate::error_text::error_chain_text;
use crate::proxy::{Proxy, ProxyVariables};
use crate::tls::refused_certificate;

/// The most header lines of a proxy's response.
const MAX_PROXY_HEADERS: usize = 64;
/// The most bytes of a proxy's status line and headers.
const MAX_PROXY_HEAD_BYTES: usize = 16 * 1024;

type BoxError = Box<dyn Error + Send + Sync>;

/// Makes connections for an HTTP client, without the target's own TLS: [`https_connector`] adds that.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    tcp: TcpConnector,
    /// Connects a proxy, with TLS if its URL is `https://`.
    to_proxy: HttpsConnector<TcpConnector>,
    proxies: Arc<ProxyVariables>,
    /// Longest time until a proxy has connected the target. It is shorter than the caller's timeout: otherwise the caller
    /// would give up first, with an error that does not name the proxy.
    proxy_timeout: Duration,
}

/// A connector that speaks TLS to `https://` targets. `connect_timeout` is how long the caller waits for a connection.
pub(crate) fn https_connector(
    tls: rustls::ClientConfig,
    proxies: ProxyVariables,
    connect_timeout: Duration,
) -> HttpsConnector<Connector> {
    let tcp = TcpConnector::new();
    let with_tls = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_http1();
    let connector = Connector {
        to_proxy: with_tls.wrap_connector(tcp.clone()),
        tcp,
        proxies: Arc::new(proxies),
        proxy_timeout: connect_timeout.mul_f64(0.8),
    };
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector)
}

/// A proxy gave no connection. The message that waits for the connection is not at fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the proxy {proxy} can't be connected: {why}")]
    Unreachable { proxy: Proxy, why: String },
    #[error("the proxy {proxy} did not connect {target} within {}", humantime::format_duration(*.timeout))]
    TimedOut {
        proxy: Proxy,
        target: String,
        timeout: Duration,
    },
    #[error("the proxy {proxy} ended the connection before it connected {target}: {why}")]
    Broken {
        proxy: Proxy,
        target: String,
        why: String,
    },
    #[error(
        "the proxy {proxy} demands a user name and a password (HTTP 407): write them into {variable}, like http://user:password@proxy.example:3128",
        variable = .proxy.variable
    )]
    NoCredentials { proxy: Proxy },
    #[error(
        "the proxy {proxy} refuses the user name and password (HTTP 407): correct them in {variable}",
        variable = .proxy.variable
    )]
    WrongCredentials { proxy: Proxy },
    #[error(
        "the proxy {proxy} does not connect {target} (HTTP {status}): it forbids that, or can't reach the host; its log says more"
    )]
    Refused {
        proxy: Proxy,
        target: String,
        status: StatusCode,
    },
}

impl Connector {
    async fn connect(self, target: Uri) -> Result<Stream, BoxError> {
        match self.proxies.proxy_of(&target)? {
            None => Ok(Stream(Box::new(self.tcp.connect(target).await?))),
            Some(proxy) => Ok(Stream(Box::new(self.tunnel(proxy, &target).await?))),
        }
    }

    async fn tunnel(self, proxy: Proxy, target: &Uri) -> Result<Upgraded, ProxyError> {
        let host = target.host().unwrap_or_default();
        let target = format!("{host}:{}", addresses::port(target));
        let timeout = self.proxy_timeout;
        let opening = open_tunnel(self.to_proxy, &proxy, &target);
        match tokio::time::timeout(timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(ProxyError::TimedOut {
                proxy,
                target,
                timeout,
            }),
        }
    }
}

async fn open_tunnel(
    mut to_proxy: HttpsConnector<TcpConnector>,
    proxy: &Proxy,
    target: &str,
) -> Result<Upgraded, ProxyError> {
    let unreachable = |error: &(dyn Error + 'static)| ProxyError::Unreachable {
        proxy: proxy.clone(),
        why: refused_certificate(error, "AGORA_CA_FILE").unwrap_or_else(|| error_chain_text(error)),
    };
    let broken = |error: &(dyn Error + 'static)| ProxyError::Broken {
        proxy: proxy.clone(),
        target: target.to_owned(),
        why: error_chain_text(error),
    };
    let io = to_proxy.call(proxy.uri.clone()).await;
    let io = io.map_err(|error| unreachable(&*error))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MAX_PROXY_HEADERS)
        .max_buf_size(MAX_PROXY_HEAD_BYTES)
        .handshake::<_, Empty<Bytes>>(io)
        .await
        .map_err(|error| unreachable(&error))?;
    let mut request = Request::connect(target).header(HOST, target);
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let opening = async {
        let request = request.body(Empty::new()).map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| broken(&error))?;
        match response.status() {
            status if status.is_success() => hyper::upgrade::on(response)
                .await
                .map_err(|error| broken(&error)),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let proxy = proxy.clone();
                Err(match proxy.authorization {
                    Some(_) => ProxyError::WrongCredentials { proxy },
                    None => ProxyError::NoCredentials { proxy },
                })
            }
            status => Err(ProxyError::Refused {
                proxy: proxy.clone(),
                target: target.to_owned(),
                status,
            }),
        }
    };
    // The connection future ends when the tunnel is open. It runs within this future, not in a task of its own, so that a
    // caller that gives up also closes the connection.
    let (mut opening, connection) = (pin!(opening), pin!(connection.with_upgrades()));
    tokio::select! {
        biased;
        opened = &mut opening => opened,
        _ended = connection => opening.await,
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(self.clone().connect(target))
    }
}

trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

/// Bytes to and from the target.
pub(crate) struct Stream(Box<dyn Io>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(context, bytes)
    }
}
