//! Listening, TLS, and serving connections until the simulator stops.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::SimulatorError;
use super::api_state::ApiState;
use super::behaviour::Behaviour;
use super::response::CloseWithoutResponse;

const BACKLOG: u32 = 1_024;
const MAX_CONNECTIONS: usize = 4_096;
/// The most bytes of a file with a certificate chain or a key.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a connection is checked for being idle too long.
const IDLE_CHECK: Duration = Duration::from_millis(50);
/// How long accepting rests when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The PEM files for serving over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and the chain after it.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A simulator that was stopped comes back on the same port, with its old connections still in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(super) fn tls_acceptor(files: &TlsFiles) -> Result<TlsAcceptor, SimulatorError> {
    let unreadable = |path: &PathBuf| {
        let path = path.clone();
        move |source| SimulatorError::TlsFile { path, source }
    };
    let certificates = read_pem(&files.certificate)
        .and_then(|pem| CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>())
        .map_err(unreadable(&files.certificate))?;
    let key = read_pem(&files.key)
        .and_then(|pem| PrivateKeyDer::from_pem_slice(&pem))
        .map_err(unreadable(&files.key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Reads a regular PEM file of bounded size. A FIFO that nobody writes to would block the start, and a device would
/// have no end.
fn read_pem(path: &Path) -> Result<Vec<u8>, pem::Error> {
    if !fs::metadata(path).map_err(pem::Error::Io)?.is_file() {
        return Err(pem::Error::Io(io::Error::other("it is not a regular file")));
    }
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM_BYTES + 1).read_to_end(&mut pem))
        .map_err(pem::Error::Io)?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        let too_long = format!("it has more than {} KiB", MAX_PEM_BYTES / 1024);
        return Err(pem::Error::Io(io::Error::other(too_long)));
    }
    Ok(pem)
}

/// Accepts and serves connections until `stopping`, all of them as `tasks`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    api: Arc<ApiState>,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        // The semaphore is never closed.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let counted = api.ledger.connected();
            let (tls, router, stopping) = (tls.clone(), router.clone(), stopping.clone());
            let api = Arc::clone(&api);
            tasks.spawn(async move {
                let serving = connection(stream, tls, router, api);
                stopping.run_until_cancelled(serving).await;
                drop((slot, counted));
            });
        }
    };
    stopping.run_until_cancelled(accepting).await;
}

/// Serves one connection. What goes wrong with it is its client's business, or was asked for.
async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    api: Arc<ApiState>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return http(stream, router, api).await;
    };
    if let Ok(Ok(stream)) = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        http(stream, router, api).await;
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, Error)]
#[error("the connection is closed on purpose")]
struct ClosedOnPurpose;

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, api: Arc<ApiState>) {
    let activity = Arc::new(Activity::default());
    let service = {
        let (activity, api) = (Arc::clone(&activity), Arc::clone(&api));
        service_fn(move |request: Request<Incoming>| {
            let (mut router, api) = (router.clone(), Arc::clone(&api));
            let requested = activity.request();
            async move {
                let mut response: Response<_> = match router.call(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                say_how_long(response.headers_mut(), &api.behaviour());
                drop(requested);
                // The server sends nothing and closes when the service fails.
                match response.extensions().get::<CloseWithoutResponse>() {
                    Some(_) => Err(ClosedOnPurpose),
                    None => Ok(response),
                }
            }
        })
    };
    let serving = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _closed_on_purpose_or_by_the_client = serving => {}
        () = activity.is_over(&api) => {}
    }
}

/// Announces how long the connection is kept.
fn say_how_long(headers: &mut HeaderMap, behaviour: &Behaviour) {
    if let Some(seconds) = behaviour.keep_alive_s
        && let Ok(value) = HeaderValue::from_str(&format!("timeout={seconds}"))
    {
        headers.insert("keep-alive", value);
    }
    if behaviour.closes_connections {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A connection's request under way, or the moment since which it has none.
#[derive(Debug)]
struct Activity(Mutex<Option<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }
}

impl Activity {
    fn idle_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is here until what is returned is dropped.
    fn request(self: &Arc<Self>) -> Requested {
        *self.idle_since() = None;
        Requested(Arc::clone(self))
    }

    /// Returns when the connection has been idle for as long as the API keeps one.
    async fn is_over(&self, api: &ApiState) {
        loop {
            let idle_close = api.behaviour().idle_close_ms.map(Duration::from_millis);
            let idle_since = *self.idle_since();
            if let (Some(idle_close), Some(since)) = (idle_close, idle_since)
                && since.elapsed() >= idle_close
            {
                return;
            }
            tokio::time::sleep(IDLE_CHECK).await;
        }
    }
}

struct Requested(Arc<Activity>);

impl Drop for Requested {
    fn drop(&mut self) {
        *self.0.idle_since() = Some(Instant::now());
    }
}
