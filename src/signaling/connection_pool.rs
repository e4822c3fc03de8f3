//! Connections to one host of the API, kept alive between calls.
//!
//! hyper-util's own client takes a connection from its pool, or makes one, only after it has the request. A TCP and TLS
//! handshake would then come between a call's slot and the request, and calls that waited for a handshake would arrive
//! together with calls that did not. So an attempt takes its connection first, and then waits for its slot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use hyper_util::client::proxy::matcher::Intercept;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tower::Service;

use super::{BaseUrl, CallFailure};
use crate::config::{Timing, UsageError};
use crate::connector::{Connector, https_connector};
use crate::error_text::{connection_error_text, error_chain_text};
use crate::pace::HORIZON;
use crate::proxy::proxy_of;
use crate::retry::shortened_at_random;
use crate::secret;

/// Shorter than usual idle timeouts. Otherwise a server, gateway or firewall might close a connection as a request goes out.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// The worker drops a connection that is not ready again within this time after its response.
const REUSE_WITHIN: Duration = Duration::from_millis(100);
/// The least time before its slot at which an attempt asks for a connection.
const MIN_LEAD: Duration = Duration::from_millis(5);

const MAX_RESPONSE_HEADERS: usize = 64;
/// Bounds the status line and headers of a response, and the bytes that a connection reads ahead. With hyper's default of
/// 408 KiB, a thousand connections might take 400 MiB.
const MAX_RESPONSE_HEAD_BYTES: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct ConnectionPool {
    /// The host's position in the configured list. Evidence about one host says nothing about another.
    pub(crate) index: usize,
    pub(crate) base_url: BaseUrl,
    pub(crate) proxy: Option<Intercept>,
    connector: HttpsConnector<Connector>,
    pub(super) timing: Timing,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Connection>,
    /// A moving average of the time that a connection takes.
    connect_time: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    /// The index of its pool.
    pub(crate) host: usize,
    /// True if the worker avoided the host. The response decides whether the host works again.
    pub(super) is_trial: bool,
    /// Without an end, calls would go to an address that the name service no longer returns.
    retires_at: Instant,
    /// When the connection was made, or its last response was read.
    last_used: Instant,
}

impl ConnectionPool {
    pub(super) fn new(
        index: usize,
        base_url: BaseUrl,
        tls: &Arc<ClientConfig>,
        timing: Timing,
    ) -> Result<Self, UsageError> {
        let proxy = proxy_of(base_url.uri(), secret::variable)?;
        Ok(Self {
            index,
            base_url,
            connector: https_connector(Arc::clone(tls), proxy.clone(), timing.connect_timeout),
            proxy,
            timing,
            state: Mutex::default(),
        })
    }

    /// How long before its slot an attempt should ask for a connection: twice the usual time of one.
    pub(crate) fn lead(&self) -> Duration {
        let usual = self.state.lock().connect_time;
        usual.map_or(HORIZON, |usual| (usual * 2).clamp(MIN_LEAD, HORIZON))
    }

    pub(crate) async fn get(&self) -> Result<Connection, CallFailure> {
        match self.take_idle() {
            Some(idle) => Ok(idle),
            None => self.connect().await.map_err(CallFailure::NotSent),
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.idle.retain(|idle| idle.is_reusable(now));
        // The other side is least likely to have closed the connection that was used last.
        state.idle.pop()
    }

    async fn connect(&self) -> Result<Connection, String> {
        let started = Instant::now();
        let timeout = self.timing.connect_timeout;
        let connected = tokio::time::timeout(timeout, self.handshake()).await;
        let sender = connected.unwrap_or_else(|_| {
            let timeout = humantime::format_duration(timeout);
            Err(format!("no connection within {timeout}"))
        });
        let sender = sender.map_err(|why| match &self.proxy {
            Some(proxy) => format!("through the proxy {}: {why}", proxy.uri()),
            None => why,
        })?;
        let now = Instant::now();
        let took = now - started;
        let connect_time = &mut self.state.lock().connect_time;
        *connect_time = Some(connect_time.map_or(took, |usual| (usual * 7 + took) / 8));
        Ok(Connection {
            sender,
            host: self.index,
            is_trial: false,
            retires_at: now + shortened_at_random(self.timing.connection_max_age),
            last_used: now,
        })
    }

    async fn handshake(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let io = self.connector.clone().call(self.base_url.uri().clone());
        let io = io
            .await
            .map_err(|error| connection_error_text(&*error, "AGORA_CA_FILE"))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MAX_RESPONSE_HEADERS)
            .max_buf_size(MAX_RESPONSE_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(|error| error_chain_text(&error))?;
        // Ends with the connection. The call that uses the connection gets its error.
        tokio::spawn(async move { connection.await.ok() });
        let ready = sender.ready().await;
        ready.map_err(|error| error_chain_text(&error))?;
        Ok(sender)
    }

    /// Puts a connection back. No request went out on it, or its response has been read.
    pub(super) fn put_back(&self, connection: Connection) {
        self.state.lock().idle.push(connection);
    }

    /// Puts a connection back as soon as it is ready after its response.
    pub(super) async fn reuse(&self, mut connection: Connection) {
        connection.last_used = Instant::now();
        if let Ok(Ok(())) = tokio::time::timeout(REUSE_WITHIN, connection.sender.ready()).await {
            self.put_back(connection);
        }
    }
}

impl Connection {
    fn is_reusable(&self, now: Instant) -> bool {
        self.sender.is_ready()
            && now < self.retires_at
            && now.saturating_duration_since(self.last_used) < MAX_IDLE
    }
}
