//! Accepts and serves connections.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::api::ApiState;
use super::response::{CloseWithoutResponse, insert};

const ACCEPT_BACKLOG: u32 = 1_024;
const MAX_CONNECTIONS: usize = 4_096;
const MAX_PEM_BYTES: u64 = 1024 * 1024;
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, so that a lack of file descriptors does not cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A simulator that restarts on its port finds its old connections in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

pub(super) fn tls_acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_slice_iter(&read_pem(&files.certificate)?)
        .collect::<Result<_, _>>()
        .with_context(|| format!("can't read {}", files.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&read_pem(&files.key)?)
        .with_context(|| format!("can't read {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("can't serve TLS with this certificate and key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Reads a regular file of bounded size. A FIFO without a writer would block the start, and a device would never end.
fn read_pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || {
        ensure!(fs::metadata(path)?.is_file(), "it is not a regular file");
        let mut pem = Vec::new();
        let mut file = File::open(path)?.take(MAX_PEM_BYTES + 1);
        let bytes = file.read_to_end(&mut pem)?;
        ensure!(
            bytes as u64 <= MAX_PEM_BYTES,
            "it has more than {MAX_PEM_BYTES} bytes"
        );
        Ok(pem)
    };
    read().with_context(|| format!("can't read {}", path.display()))
}

/// Serves connections as `tasks` until `stopping`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    api: Arc<ApiState>,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            stream.set_nodelay(true).ok();
            let open_connection = api.ledger.open_connection();
            let (tls, router, api) = (tls.clone(), router.clone(), Arc::clone(&api));
            let serving = async move {
                let Some(tls) = tls else {
                    return serve_http(stream, router, api).await;
                };
                let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream));
                if let Ok(Ok(stream)) = handshake.await {
                    serve_http(stream, router, api).await;
                }
            };
            let stopping = stopping.clone();
            tasks.spawn(async move {
                stopping.run_until_cancelled(serving).await;
                drop((permit, open_connection));
            });
        }
    };
    stopping.run_until_cancelled(accepting).await;
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    api: Arc<ApiState>,
) {
    // While the connection is idle, hyper waits for the head of the next request.
    let idle_close = api.behaviour().idle_close_ms.map(Duration::from_millis);
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut router, api) = (router.clone(), Arc::clone(&api));
        async move {
            let Ok::<_, Infallible>(mut response) = router.call(request).await;
            let headers = response.headers_mut();
            let behaviour = Arc::clone(&api.behaviour());
            if let Some(seconds) = behaviour.keep_alive_s {
                let name = HeaderName::from_static("keep-alive");
                insert(headers, name, &format!("timeout={seconds}"));
            }
            if behaviour.closes_connections {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            // After an error of the service, hyper closes the connection and sends nothing.
            match response.extensions().get::<CloseWithoutResponse>() {
                Some(_) => Err(io::Error::other("a fault closes this connection")),
                None => Ok(response),
            }
        }
    });
    // An error here is an injected fault or a client that closed the connection.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_close)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
