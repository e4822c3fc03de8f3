//! Listening, and serving connections until the worker has ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use super::connection_limit::{ConnectionLimit, ConnectionSlot};
use super::metrics::{Metrics, MetricsError};
use super::{OpsState, router};

/// Where the server is if nobody says another address.
const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// The most connections at once. One more takes the place of another one.
const MAX_CONNECTIONS: usize = 64;
/// How long the head of a request may take, and a connection be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long a connection may be used.
const CONNECTION_FOR: Duration = Duration::from_secs(300);
/// How long the answer may take after that, or after the worker has ended.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long accepting rests when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the server is to be, and for whom.
#[derive(Debug)]
pub(crate) struct OpsSettings {
    address: SocketAddr,
    /// Whether somebody has said so: then it has to be there.
    is_explicit: bool,
    access: Access,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpsError {
    #[error(
        "WORKER_OPS_ADDR is no address: write an IP address and a port, like 127.0.0.1:9090, [::1]:9090 or 0.0.0.0:9090 (port 0 is any that is free), or `off`"
    )]
    Address,
    #[error(
        "WORKER_OPS_ADDR={0} can be reached from other hosts: name a file with a token that they need in WORKER_OPS_TOKEN_FILE (--ops-token-file), or take an address of this host alone, like 127.0.0.1:9090"
    )]
    Open(SocketAddr),
    /// The token can't be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address can't be had.
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

impl OpsSettings {
    /// Settings as they were given; none if there is to be no server.
    ///
    /// # Errors
    /// Where the address is none, or others could ask without a token, or the token can't be used.
    pub(crate) fn new(
        address: Option<&str>,
        token_file: Option<&Path>,
    ) -> Result<Option<Self>, OpsError> {
        if address == Some("off") {
            return Ok(None);
        }
        let access = match token_file {
            Some(path) => Access::Token(Arc::new(OpsToken::in_file(path)?)),
            None => Access::Loopback,
        };
        let is_explicit = address.is_some();
        let address = match address {
            Some(address) => SocketAddr::from_str(address).map_err(|_| OpsError::Address)?,
            None => DEFAULT_ADDRESS,
        };
        if matches!(access, Access::Loopback) && !address.ip().is_loopback() {
            return Err(OpsError::Open(address));
        }
        Ok(Some(Self {
            address,
            is_explicit,
            access,
        }))
    }
}

#[derive(Debug)]
pub(crate) struct OpsServer {
    /// What it shows; to be filled while the worker goes on.
    pub(crate) state: OpsState,
    pub(crate) address: SocketAddr,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl OpsServer {
    /// Begins to serve, and to record metrics. None if the default address can't be had: several workers may run on one
    /// host.
    ///
    /// # Errors
    /// Where an address that was asked for can't be had.
    pub(crate) async fn start(
        settings: OpsSettings,
        shutdown: CancellationToken,
    ) -> Result<Option<Self>, OpsError> {
        let OpsSettings {
            address,
            is_explicit,
            access,
        } = settings;
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = match listening.await {
            Ok(listening) => listening,
            Err(source) if is_explicit => return Err(OpsError::Bind { address, source }),
            Err(error) => {
                tracing::warn!(
                    event = "ops_server_skipped",
                    %address,
                    %error,
                    "no ops server: its default address can't be had. Set WORKER_OPS_ADDR to another one, or to `off`"
                );
                return Ok(None);
            }
        };
        let metrics = Arc::new(Metrics::install()?);
        let server = Self {
            state: OpsState {
                shutdown,
                access,
                metrics: Some(Arc::clone(&metrics)),
                ..OpsState::default()
            },
            address,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let stopping = server.stopping.clone();
        server.tasks.spawn(async move {
            stopping.run_until_cancelled(metrics.keep_up()).await;
        });
        server.tasks.spawn(serve(
            listener,
            router(server.state.clone()),
            server.stopping.clone(),
            server.tasks.clone(),
        ));
        tracing::info!(event = "ops_server_started", %address, "ops server: http://{address}");
        Ok(Some(server))
    }

    /// Ends it, with the answers that are under way.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn serve(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = ConnectionLimit::new(MAX_CONNECTIONS);
    let accepting = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let slot = slots.take(Instant::now());
            let (router, stopping) = (router.clone(), stopping.clone());
            tasks.spawn(async move { connection(stream, router, slot, &stopping).await });
        }
    };
    stopping.run_until_cancelled(accepting).await;
}

/// Serves one connection, as long as it has its slot. What goes wrong with it is its client's business.
async fn connection(
    stream: TcpStream,
    router: Router,
    slot: Arc<ConnectionSlot>,
    stopping: &CancellationToken,
) {
    stream.set_nodelay(true).ok();
    let service = TowerToHyperService::new(router);
    let answer = service_fn(|request: Request<Incoming>| {
        let (answering, answer) = (slot.begin_request(), service.call(request));
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = slot.evicted() => return,
        () = stopping.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_FOR) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(LAST_RESPONSE_TIMEOUT, connection)
        .await
        .ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_can_not_ask_without_a_token() {
        for address in ["0.0.0.0:9090", "[::]:9090", "10.1.2.3:80"] {
            let refused = OpsSettings::new(Some(address), None).expect_err("refused");
            assert!(matches!(refused, OpsError::Open(_)), "{address}: {refused}");
        }
        for address in ["127.0.0.1:0", "127.1.2.3:1", "[::1]:9090"] {
            assert!(
                OpsSettings::new(Some(address), None).is_ok_and(|settings| settings.is_some()),
                "{address}"
            );
        }
        for address in ["", "9090", "localhost:9090", "127.0.0.1"] {
            let refused = OpsSettings::new(Some(address), None).expect_err("refused");
            assert!(matches!(refused, OpsError::Address), "{address}: {refused}");
        }
        assert!(OpsSettings::new(Some("off"), None).is_ok_and(|settings| settings.is_none()));
    }
}
