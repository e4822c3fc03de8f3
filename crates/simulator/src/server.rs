//! Accepts and serves connections.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::{HeaderValue, header};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::api::ApiState;
use super::response::CloseWithoutResponse;

/// Pause after a failed accept, so that a lack of file descriptors does not cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// PEM files for TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

pub(super) fn tls_acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<_, _>>)
        .with_context(|| format!("can't read {}", files.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
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

/// Serves connections as `tasks` until `stopping`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    api: Arc<ApiState>,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let accepting = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            stream.set_nodelay(true).ok();
            let (tls, router, api) = (tls.clone(), router.clone(), Arc::clone(&api));
            let ledger = Arc::clone(&api.ledger);
            ledger.connection_opened();
            let serving = async move {
                match tls {
                    None => serve_http(stream, router, api).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve_http(stream, router, api).await;
                        }
                    }
                }
            };
            let stopping = stopping.clone();
            tasks.spawn(async move {
                stopping.run_until_cancelled(serving).await;
                ledger.connection_closed();
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
    let idle_close = api.behaviour.lock().idle_close_ms;
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut router, api) = (router.clone(), Arc::clone(&api));
        async move {
            let Ok::<_, Infallible>(mut response) = router.call(request).await;
            let headers = response.headers_mut();
            let behaviour = api.behaviour.lock();
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
        .header_read_timeout(idle_close.map(Duration::from_millis))
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
