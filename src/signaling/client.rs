//! One call over HTTP, on a connection that is there before the call's slot is.
//!
//! hyper-util's own client takes a connection from its pool, or makes one, only after a request is handed to it:
//! a TCP and TLS handshake would come between the slot and the wire, and calls that waited for one would arrive
//! together with calls that did not. So the two steps are apart here: [`Client::connection`] before the slot,
//! [`Client::send`] in it. Nothing in here repeats a request.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tower_service::Service;

use super::answer::MAX_BODY_BYTES;
use super::{Answer, ApiRequest, BaseUrl, CallFailure, CredentialError, Credentials};
use crate::message::UserId;
use crate::pace::{HORIZON, SendPermit};
use crate::telemetry::causes;

/// How long a connection may be idle before it is not used again: shorter than what servers and the gateways in
/// front of them commonly keep, so that a request seldom meets a connection that is just being closed.
const MAX_IDLE: Duration = Duration::from_secs(20);
/// How long after an answer its connection may take to be ready again before it is given up.
const REUSE_WITHIN: Duration = Duration::from_millis(100);
/// Least time before its slot at which a call looks for a connection.
const MIN_LEAD: Duration = Duration::from_millis(5);

/// What a client needs to know of its app.
#[derive(Debug)]
pub struct ClientSettings {
    /// Where the API is.
    pub base_url: BaseUrl,
    /// A PEM file with certificates to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// The app ID.
    pub app_id: String,
    /// How to sign in.
    pub credentials: Credentials,
    /// Longest time for a TCP and TLS handshake.
    pub connect_timeout: Duration,
    /// Longest time from the start of a call to the end of its answer.
    pub request_timeout: Duration,
    /// Most connections that are kept idle.
    pub max_idle_connections: usize,
}

/// Why a client can't be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidClient {
    /// The file of certificates can't be read.
    #[error("the CA file {path} can't be used: {why}", path = .path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The API as one app sees it: its address, its credentials and its connections.
#[derive(Debug)]
pub struct Client {
    settings: ClientSettings,
    connector: HttpsConnector<HttpConnector>,
    idle: Mutex<VecDeque<Connection>>,
    /// A moving average of how long a connection takes to make, in µs. Zero while none has been made.
    connect_us: AtomicU64,
}

/// A connection that is ready for a request.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    idle_since: Instant,
}

impl Client {
    /// A client for one app.
    ///
    /// # Errors
    /// Where the CA file can't be used.
    pub fn new(settings: ClientSettings) -> Result<Self, InvalidClient> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(settings.connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(&settings)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Self {
            settings,
            connector,
            idle: Mutex::default(),
            connect_us: AtomicU64::new(0),
        })
    }

    /// How to sign in.
    pub fn credentials(&self) -> &Credentials {
        &self.settings.credentials
    }

    /// Longest time from the start of a call to the end of its answer.
    pub fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// How long before its slot a call should ask for a connection: twice what one usually takes to make.
    pub fn connect_lead(&self) -> Duration {
        match self.connect_us.load(Ordering::Relaxed) {
            0 => HORIZON,
            us => Duration::from_micros(2 * us).clamp(MIN_LEAD, HORIZON),
        }
    }

    /// A connection that is ready: an idle one, or a new one.
    ///
    /// # Errors
    /// [`CallFailure::NotSent`] where none can be made in time.
    pub async fn connection(&self) -> Result<Connection, CallFailure> {
        if let Some(connection) = self.take_idle() {
            return Ok(connection);
        }
        let started = Instant::now();
        let connection = tokio::time::timeout(self.settings.connect_timeout, self.connect())
            .await
            .map_err(|_| {
                let timeout = humantime::format_duration(self.settings.connect_timeout);
                CallFailure::NotSent(format!("no connection within {timeout}"))
            })??;
        let took = u64::try_from(started.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let average = match self.connect_us.load(Ordering::Relaxed) {
            0 => took,
            before => (7 * before).saturating_add(took) / 8,
        };
        self.connect_us.store(average, Ordering::Relaxed);
        Ok(connection)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The one used last is the least likely to have been closed by the other side.
        while let Some(connection) = idle.pop_back() {
            if connection.sender.is_ready() && connection.idle_since.elapsed() < MAX_IDLE {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, CallFailure> {
        let io = self
            .connector
            .clone()
            .call(self.settings.base_url.uri().clone())
            .await
            .map_err(|error| CallFailure::NotSent(causes(&*error)))?;
        let (mut sender, connection) = http1::handshake(io)
            .await
            .map_err(|error| CallFailure::NotSent(causes(&error)))?;
        // Ends when the connection does; what goes wrong with it reaches the call that uses it.
        tokio::spawn(async move { connection.await.ok() });
        sender
            .ready()
            .await
            .map_err(|error| CallFailure::NotSent(causes(&error)))?;
        Ok(Connection {
            sender,
            idle_since: Instant::now(),
        })
    }

    /// Puts back a connection that no request went out on.
    pub fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while idle.front().is_some_and(|oldest| {
            !oldest.sender.is_ready() || oldest.idle_since.elapsed() >= MAX_IDLE
        }) {
            idle.pop_front();
        }
        if idle.len() < self.settings.max_idle_connections {
            idle.push_back(connection);
        }
    }

    /// The request with everything on it: made before the slot, so that the call starts in it.
    ///
    /// # Errors
    /// Where the credentials can't be had, or are for another sender.
    pub fn prepare(
        &self,
        request: ApiRequest,
        sender: &UserId,
    ) -> Result<SignedRequest, CredentialError> {
        let (target, body) = request.into_parts(&self.settings.base_url);
        let mut signed = Request::new(Full::new(Bytes::from(body)));
        *signed.method_mut() = Method::POST;
        // Both are made of percent-encoded segments and a URL that was parsed: they can't fail to parse.
        *signed.uri_mut() = target
            .parse()
            .map_err(|_| CredentialError::NotAHeader("app ID"))?;
        let headers = signed.headers_mut();
        let host = HeaderValue::from_str(self.settings.base_url.host())
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
        headers.extend(self.credentials().headers(sender)?);
        Ok(SignedRequest(signed))
    }

    /// The app ID of this client.
    pub fn app_id(&self) -> &str {
        &self.settings.app_id
    }

    /// Makes one call: at most one request leaves this process, whatever happens.
    ///
    /// # Errors
    /// Where no answer came, with whether the request may have arrived.
    pub async fn send(
        &self,
        _permit: SendPermit,
        mut connection: Connection,
        request: SignedRequest,
    ) -> Result<Answer, CallFailure> {
        let timeout = self.settings.request_timeout;
        let (answer, reusable) =
            tokio::time::timeout(timeout, exchange(&mut connection.sender, request.0))
                .await
                .map_err(|_| CallFailure::TimedOut(timeout))??;
        if reusable
            && let Ok(Ok(())) = tokio::time::timeout(REUSE_WITHIN, connection.sender.ready()).await
        {
            connection.idle_since = Instant::now();
            self.put_back(connection);
        }
        Ok(answer)
    }
}

/// A request with its credentials. It does not print.
pub struct SignedRequest(Request<Full<Bytes>>);

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<(Answer, bool), CallFailure> {
    let response = sender
        .try_send_request(request)
        .await
        .map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let why = causes(error.error());
            if unsent {
                CallFailure::NotSent(why)
            } else {
                CallFailure::Broken(why)
            }
        })?;
    Ok(read(response).await)
}

/// Reads an answer, and whether its connection can be used again. Once a status is here, it counts, even where the
/// rest does not come: a 400 with half a body is a 400.
async fn read(response: Response<Incoming>) -> (Answer, bool) {
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body = match &collected {
        Ok(bytes) => Ok(bytes.as_ref()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err("its body is longer than 64 KiB")
        }
        Err(_) => Err("its body did not come to its end"),
    };
    (
        Answer::read(head.status.as_u16(), &head.headers, body),
        collected.is_ok(),
    )
}

fn tls_config(settings: &ClientSettings) -> Result<rustls::ClientConfig, InvalidClient> {
    let mut roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = &settings.ca_file {
        let unusable = |why: String| InvalidClient::CaFile {
            path: path.clone(),
            why,
        };
        let mut added = 0;
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?
        {
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
