//! The HTTP server for operators and monitoring. It serves connections until the worker has ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Access, OpsToken, TokenError};
use super::connection_limit::{Connection, ConnectionLimit};
use super::metrics::{Metrics, MetricsError};
use super::{OpsState, router};

const DEFAULT_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));
const MAX_CONNECTIONS: usize = 64;
/// Bounds an idle connection, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// For the last response on a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the system has refused another socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpsError {
    #[error(
        "WORKER_OPS_ADDR is no address: write an IP address and a port, like 127.0.0.1:9090, [::1]:9090 or 0.0.0.0:9090 (port 0 is any free port), or `off`"
    )]
    Address,
    #[error(
        "WORKER_OPS_ADDR={0} can be reached from other hosts: name a file with a token for them in WORKER_OPS_TOKEN_FILE (--ops-token-file), or use an address of this host alone, like 127.0.0.1:9090"
    )]
    Open(SocketAddr),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "the ops server can't listen at {address}: {source}. Set WORKER_OPS_ADDR (--ops-addr) to another address, or to `off`"
    )]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("metrics can't be recorded: {0}")]
    Metrics(#[from] MetricsError),
}

#[derive(Debug)]
pub(crate) struct OpsServer {
    pub(crate) state: OpsState,
    #[cfg(feature = "dev")]
    pub(crate) address: SocketAddr,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl OpsServer {
    /// Starts the server and the recording of metrics. Returns none if the address is `off`, or if the default address
    /// is taken, because several workers may run on one host.
    ///
    /// # Errors
    /// If the address or the token is invalid, if an explicit address is taken, or if other hosts could send requests
    /// without a token.
    pub(crate) async fn start(
        address: Option<&str>,
        token_file: Option<&Path>,
        shutdown: CancellationToken,
    ) -> Result<Option<Self>, OpsError> {
        let is_explicit = address.is_some();
        let Some((address, access)) = parse(address, token_file)? else {
            return Ok(None);
        };
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(source) if is_explicit => return Err(OpsError::Bind { address, source }),
            Err(error) => {
                tracing::warn!(
                    event = "ops_server_skipped",
                    %address,
                    %error,
                    "the ops server can't listen at its default address: the worker runs without it. Set WORKER_OPS_ADDR to another address, or to `off`"
                );
                return Ok(None);
            }
        };
        // Port 0 has become another port.
        let address = listener.local_addr().unwrap_or(address);
        let metrics = Arc::new(Metrics::install()?);
        let server = Self {
            state: OpsState {
                shutdown,
                access,
                metrics: Some(Arc::clone(&metrics)),
                ..OpsState::default()
            },
            #[cfg(feature = "dev")]
            address,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let stopping = server.stopping.clone();
        server.tasks.spawn(async move {
            stopping.run_until_cancelled(metrics.run_upkeep()).await;
        });
        let (tasks, stopping) = (server.tasks.clone(), server.stopping.clone());
        let router = router(server.state.clone());
        server
            .tasks
            .spawn(accept(listener, router, tasks, stopping));
        tracing::info!(event = "ops_server_started", %address, "ops server: http://{address}");
        Ok(Some(server))
    }

    /// Stops the server after the responses in progress.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn parse(
    address: Option<&str>,
    token_file: Option<&Path>,
) -> Result<Option<(SocketAddr, Access)>, OpsError> {
    if address == Some("off") {
        return Ok(None);
    }
    let access = match token_file {
        Some(path) => Access::Token(Arc::new(OpsToken::in_file(path)?)),
        None => Access::Loopback,
    };
    let address = address.map_or(Ok(DEFAULT_ADDRESS), str::parse);
    let address = address.map_err(|_| OpsError::Address)?;
    if matches!(access, Access::Loopback) && !address.ip().is_loopback() {
        return Err(OpsError::Open(address));
    }
    Ok(Some((address, access)))
}

async fn accept(
    listener: TcpListener,
    router: Router,
    tasks: TaskTracker,
    stopping: CancellationToken,
) {
    let limit = ConnectionLimit::new(MAX_CONNECTIONS);
    while let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (connection, stopping) = (limit.add(), stopping.clone());
                tasks.spawn(serve(stream, router.clone(), connection, stopping));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection. Its errors concern only its client, so nothing logs them.
async fn serve(
    stream: TcpStream,
    router: Router,
    connection: Connection,
    stopping: CancellationToken,
) {
    stream.set_nodelay(true).ok();
    let service = TowerToHyperService::new(router);
    let respond = service_fn(|request: Request<Incoming>| {
        connection.set_busy(true);
        let response = service.call(request);
        let connection = &connection;
        async move {
            let response = response.await;
            connection.set_busy(false);
            response
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), respond);
    tokio::pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        () = connection.evicted() => return,
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(MAX_CONNECTION_AGE) => {}
    }
    serving.as_mut().graceful_shutdown();
    tokio::time::timeout(CLOSE_TIMEOUT, serving).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_other_hosts_reach_needs_a_token() {
        for address in ["0.0.0.0:9090", "[::]:9090", "10.1.2.3:80"] {
            let refused = parse(Some(address), None).expect_err("refused");
            assert!(matches!(refused, OpsError::Open(_)), "{address}: {refused}");
        }
        for address in ["127.0.0.1:0", "127.1.2.3:1", "[::1]:9090"] {
            assert!(
                parse(Some(address), None).is_ok_and(|parsed| parsed.is_some()),
                "{address}"
            );
        }
        for address in ["", "9090", "localhost:9090", "127.0.0.1"] {
            let refused = parse(Some(address), None).expect_err("refused");
            assert!(matches!(refused, OpsError::Address), "{address}: {refused}");
        }
        assert!(parse(Some("off"), None).is_ok_and(|parsed| parsed.is_none()));
    }
}
