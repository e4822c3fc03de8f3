//! One call over HTTP, on a connection that is there before the call's slot is: [`Client::connection`] before the
//! slot, [`Client::send`] in it. Nothing in here repeats a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::connection_age;
use super::connection_pool::Connection;
use super::hosts::{Hosts, TriedHost};
use super::response::MAX_BODY_BYTES;
use super::{
    ApiRequest, Authenticator, BaseUrl, CallFailure, CredentialError, Credentials, EchoFilter,
    Response,
};
use crate::error_text::error_chain_text;
use crate::message::UserId;
use crate::pace::SendPermit;
use crate::proxy::{InvalidProxy, ProxyVariables};
use crate::sanitize;

/// The most bytes of a file of certificates: several times what all public authorities of the world have.
const MAX_CA_FILE_BYTES: u64 = 2 * 1024 * 1024;

/// What a client needs to know of its app.
#[derive(Debug)]
pub(crate) struct ClientSettings {
    /// The API's hosts: the first one, and others for when that fails.
    pub(crate) base_urls: Vec<BaseUrl>,
    /// A PEM file with certificates to trust beside the public ones.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) app_id: String,
    pub(crate) credentials: Credentials,
    /// The proxies on the way to the hosts.
    pub(crate) proxies: ProxyVariables,
    /// Longest time for a TCP and TLS handshake, including a proxy's.
    pub(crate) connect_timeout: Duration,
    /// Maximum age at which a connection is reused.
    pub(crate) connection_max_age: Duration,
    /// Longest time from the start of a call to the end of its response.
    pub(crate) request_timeout: Duration,
    /// Most connections that are kept idle.
    pub(crate) max_idle_connections: usize,
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidClient {
    /// The file of certificates can't be read.
    #[error("the CA file {path} can't be used: {why}", path = .path.display())]
    CaFile {
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    #[error(transparent)]
    Proxy(#[from] InvalidProxy),
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The API as one app sees it: its hosts, its credentials and its connections.
#[derive(Debug)]
pub(crate) struct Client {
    settings: ClientSettings,
    hosts: Arc<Hosts>,
}

impl Client {
    /// A client for one app.
    ///
    /// # Errors
    /// Where the CA file or a proxy can't be used.
    pub(crate) fn new(settings: ClientSettings) -> Result<Arc<Self>, InvalidClient> {
        let tls = tls_config(settings.ca_file.as_deref())?;
        Ok(Arc::new(Self {
            hosts: Hosts::new(&settings, tls)?,
            settings,
        }))
    }

    /// The app ID of this client.
    pub(crate) fn app_id(&self) -> &str {
        &self.settings.app_id
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.settings.credentials
    }

    /// Where the host is that is called at present.
    pub(crate) fn base_url(&self) -> &BaseUrl {
        &self.hosts.serving().base_url
    }

    /// The place of the host that is called at present, in the order of the settings.
    pub(crate) fn serving_index(&self) -> usize {
        self.hosts.serving().index
    }

    /// Longest time from the start of a call to the end of its response.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// How long before its slot a call should ask for a connection.
    pub(crate) fn connect_ahead(&self) -> Duration {
        self.hosts.serving().lead()
    }

    /// A connection that is ready: to the host that serves, or to the next one that can be connected.
    ///
    /// # Errors
    /// [`CallFailure::NotSent`] where none can be made in time.
    pub(crate) async fn connection(&self) -> Result<Connection, CallFailure> {
        self.hosts.connection().await
    }

    /// Connects to each host in the order of the list, and measures how long that takes.
    pub(crate) async fn try_hosts(&self) -> Vec<TriedHost> {
        self.hosts.try_all().await
    }

    /// The request with everything on it, for the host of a connection: made before the slot, so that the call
    /// starts in it.
    ///
    /// # Errors
    /// Where the credentials can't be had, or are for another sender.
    pub(crate) fn prepare(
        &self,
        request: ApiRequest,
        sender: &UserId,
        connection: &Connection,
    ) -> Result<SignedRequest, CredentialError> {
        let base_url = &connection.host.base_url;
        let Authenticator {
            headers: sign_in,
            secrets,
        } = self.credentials().authorize(sender)?;
        let echo_filter = EchoFilter::new(request.payload().clone(), secrets);
        let (target, body) = request.into_parts(base_url);
        let mut signed = Request::new(Full::new(Bytes::from(body)));
        *signed.method_mut() = Method::POST;
        // Both are made of percent-encoded segments and a URL that was parsed: they can't fail to parse.
        *signed.uri_mut() = target
            .parse()
            .map_err(|_| CredentialError::NotAHeader("app ID"))?;
        let headers = signed.headers_mut();
        let host = HeaderValue::from_str(base_url.host())
            .map_err(|_| CredentialError::NotAHeader("base URL"))?;
        headers.insert(HOST, host);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=utf-8"),
        );
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("signaling-worker/", env!("CARGO_PKG_VERSION"))),
        );
        headers.extend(sign_in);
        Ok(SignedRequest {
            request: signed,
            echo_filter,
        })
    }

    /// Makes one call: at most one request leaves this process, whatever happens.
    ///
    /// # Errors
    /// Where no response came, with whether the request may have arrived.
    pub(crate) async fn send(
        &self,
        _permit: SendPermit,
        mut connection: Connection,
        request: SignedRequest,
    ) -> Result<Response, CallFailure> {
        let (host, trial) = (connection.host_index(), connection.trial.take());
        let call = exchange(connection, request, self.settings.request_timeout).await;
        self.hosts.observe(host, trial, &call);
        call
    }
}

/// A request with its credentials. It does not print.
pub(crate) struct SignedRequest {
    request: Request<Full<Bytes>>,
    /// Detects a response that repeats this request.
    echo_filter: EchoFilter,
}

async fn exchange(
    mut connection: Connection,
    request: SignedRequest,
    timeout: Duration,
) -> Result<Response, CallFailure> {
    let start = tokio::time::Instant::now();
    let deadline = start + timeout;
    let written =
        tokio::time::timeout_at(deadline, write(&mut connection.sender, request.request)).await;
    let response = match written.unwrap_or(Err(CallFailure::TimedOut(timeout))) {
        Ok(response) => response,
        Err(failure) => {
            connection.failed(start.into_std());
            return Err(failure);
        }
    };
    let keep_alive = connection_age::announced_timeout(response.headers());
    let (response, reusable) = read(response, deadline, &request.echo_filter).await;
    if reusable {
        connection.reuse(keep_alive).await;
    }
    Ok(response)
}

async fn write(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<hyper::Response<Incoming>, CallFailure> {
    sender.try_send_request(request).await.map_err(|mut error| {
        let unsent = error.take_message().is_some();
        let why = error_chain_text(error.error());
        if unsent {
            CallFailure::NotSent(why)
        } else {
            CallFailure::Broken(why)
        }
    })
}

/// Reads a response, and whether its connection can be used again. Once a status is here, it counts, even where the
/// rest does not come: a 400 with half a body is a 400.
async fn read(
    response: hyper::Response<Incoming>,
    deadline: tokio::time::Instant,
    echo_filter: &EchoFilter,
) -> (Response, bool) {
    let (head, body) = response.into_parts();
    let collected =
        tokio::time::timeout_at(deadline, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let body = match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err("its body is longer than 64 KiB")
        }
        Ok(Err(_)) => Err("its body did not come to its end"),
        Err(_) => Err("its body did not come in time"),
    };
    let read = body.as_ref().map(AsRef::as_ref).map_err(|why| *why);
    (
        Response::read(head.status.as_u16(), &head.headers, read, echo_filter),
        body.is_ok(),
    )
}

/// TLS that trusts the certificates of a file beside the public ones.
///
/// # Errors
/// Where the file can't be used.
pub(crate) fn tls_config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, InvalidClient> {
    let mut roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = ca_file {
        let unusable = |why: String| InvalidClient::CaFile {
            path: path.to_owned(),
            why,
        };
        let mut added = 0;
        let pem = sanitize::read_file(path, MAX_CA_FILE_BYTES)
            .map_err(|error| unusable(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(unusable("it has no certificate in PEM form".into()));
        }
    }
    Ok(
        rustls::ClientConfig::builder_with_provider(
            rustls::crypto::ring::default_provider().into(),
        )
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth(),
    )
}
