//! Accepts and serves connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::ApiState;

/// Pause after a failed accept, so that a lack of file descriptors does not cause a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// PEM files for TLS.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, followed by its chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// # Errors
    /// If a file can't be read, or the key does not belong to the certificate.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<_, _>>)
            .with_context(|| format!("can't read {}", self.certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .with_context(|| format!("can't read {}", self.key.display()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .context("can't serve TLS with this certificate and key")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
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
            let open = Arc::clone(&api.ledger).connection_opened();
            let serving = async move {
                let _open = open;
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
            tasks.spawn(stopping.run_until_cancelled_owned(serving));
        }
    };
    stopping.run_until_cancelled(accepting).await;
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    api: Arc<ApiState>,
) {
    let behaviour = api.behaviour.lock().clone();
    let idle_close = behaviour.idle_close_ms.map(Duration::from_millis);
    // An error here is an injected fault or a client that closed the connection.
    let _ = http1::Builder::new()
        .keep_alive(!behaviour.closes_connections)
        .timer(TokioTimer::new())
        // While the connection is idle, hyper waits for the head of the next request.
        .header_read_timeout(idle_close)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
}
