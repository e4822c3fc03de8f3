//! Connections to one host of the API, kept alive between calls.
//!
//! hyper-util's own client takes a connection from its pool, or makes one, only after a request is handed to it:
//! a TCP and TLS handshake would come between a call's slot and the wire, and calls that waited for one would arrive
//! together with calls that did not. So a connection is had first, and the slot is waited for with it at hand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use tower_service::Service;

use super::connection_age::ConnectionAge;
use super::hosts::Trial;
use super::{BaseUrl, CallFailure, ClientSettings};
use crate::connector::{Connector, ProxyError};
use crate::error_text::error_chain_text;
use crate::pace::HORIZON;
use crate::proxy::{InvalidProxy, Proxy};
use crate::tls::refused_certificate;

/// How long after a response its connection may take to be ready again before it is given up.
const REUSE_WITHIN: Duration = Duration::from_millis(100);
/// How long a host that gave no connection is no alternative to one that answers 502 to 504.
const FAILURE_MEMORY: Duration = Duration::from_secs(30);
/// Least time before its slot at which a call looks for a connection.
const MIN_LEAD: Duration = Duration::from_millis(5);

/// The most header lines of a response. The API's have about ten, and gateways add some.
const MAX_RESPONSE_HEADERS: usize = 64;
/// The most bytes of a response's status line and headers, and of what a connection has read ahead. With the usual
/// bound of 408 KiB, a thousand connections might take 400 MiB.
const MAX_RESPONSE_HEAD_BYTES: usize = 32 * 1024;

/// The connections to one host.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    /// The host's position in the configured list.
    pub(super) index: usize,
    pub(super) base_url: BaseUrl,
    /// The proxy on the way to the host, if there is one.
    pub(super) proxy: Option<Proxy>,
    connector: HttpsConnector<Connector>,
    connect_timeout: Duration,
    max_age: Duration,
    max_idle: usize,
    idle: Mutex<VecDeque<Idle>>,
    /// A moving average of how long a connection takes to make, in µs. Zero while none has been made.
    connect_us: AtomicU64,
    /// When a connection could not be made, if none was made since.
    failed_at: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Full<Bytes>>,
    age: ConnectionAge,
}

/// A connection that is ready for a request.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) host: Arc<ConnectionPool>,
    age: ConnectionAge,
    /// Present if the attempt finds out whether the first host can serve again.
    pub(super) trial: Option<Trial>,
}

impl ConnectionPool {
    pub(super) fn new(
        index: usize,
        base_url: BaseUrl,
        connector: HttpsConnector<Connector>,
        settings: &ClientSettings,
    ) -> Result<Self, InvalidProxy> {
        Ok(Self {
            index,
            proxy: settings.proxies.proxy_of(base_url.uri())?,
            base_url,
            connector,
            connect_timeout: settings.connect_timeout,
            max_age: settings.connection_max_age,
            max_idle: settings.max_idle_connections,
            idle: Mutex::default(),
            connect_us: AtomicU64::new(0),
            failed_at: Mutex::default(),
        })
    }

    /// How long before its slot a call should ask for a connection: twice what one usually takes to make.
    pub(super) fn lead(&self) -> Duration {
        match self.connect_us.load(Ordering::Relaxed) {
            0 => HORIZON,
            us => Duration::from_micros(2 * us).clamp(MIN_LEAD, HORIZON),
        }
    }

    /// A connection that is ready: an idle one, or a new one.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Connection, CallFailure> {
        if let Some(Idle { sender, age }) = self.take_idle() {
            return Ok(self.connection_of(sender, age));
        }
        let started = Instant::now();
        let connected = tokio::time::timeout(self.connect_timeout, self.connect())
            .await
            .unwrap_or_else(|_| {
                let timeout = humantime::format_duration(self.connect_timeout);
                let why = format!("no connection{} within {timeout}", self.through());
                Err(CallFailure::NotSent(why))
            });
        *self.failed_at() = connected.is_err().then(Instant::now);
        let sender = connected?;
        self.note_headers(started.elapsed());
        let age = ConnectionAge::new(Instant::now(), self.max_age);
        Ok(self.connection_of(sender, age))
    }

    /// The proxy, for an error.
    fn through(&self) -> String {
        let through = |proxy| format!(" through the proxy {proxy}");
        self.proxy.as_ref().map_or_else(String::new, through)
    }

    /// True if the latest try to connect failed, and not long ago.
    pub(super) fn lately_failed(&self) -> bool {
        self.failed_at()
            .is_some_and(|failed_at| failed_at.elapsed() < FAILURE_MEMORY)
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn connection_of(
        self: &Arc<Self>,
        sender: SendRequest<Full<Bytes>>,
        age: ConnectionAge,
    ) -> Connection {
        Connection {
            sender,
            host: Arc::clone(self),
            age,
            trial: None,
        }
    }

    fn note_headers(&self, connect_time: Duration) {
        let took = u64::try_from(connect_time.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let average = match self.connect_us.load(Ordering::Relaxed) {
            0 => took,
            before => (7 * before).saturating_add(took) / 8,
        };
        self.connect_us.store(average, Ordering::Relaxed);
    }

    fn take_idle(&self) -> Option<Idle> {
        let now = Instant::now();
        let mut idle = self.idle();
        // The one used last is the least likely to have been closed by the other side.
        while let Some(last) = idle.pop_back() {
            if last.is_reusable(now) {
                return Some(last);
            }
        }
        None
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallFailure> {
        let io = self
            .connector
            .clone()
            .call(self.base_url.uri().clone())
            .await
            .map_err(|error| {
                let certificate = refused_certificate(&*error, "AGORA_CA_FILE");
                let mut why = certificate.unwrap_or_else(|| error_chain_text(&*error));
                if !error.is::<ProxyError>() {
                    why += &self.through();
                }
                CallFailure::NotSent(why)
            })?;
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MAX_RESPONSE_HEADERS)
            .max_buf_size(MAX_RESPONSE_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(|error| CallFailure::NotSent(error_chain_text(&error)))?;
        // Ends when the connection does; what goes wrong with it reaches the call that uses it.
        tokio::spawn(async move { connection.await.ok() });
        sender
            .ready()
            .await
            .map_err(|error| CallFailure::NotSent(error_chain_text(&error)))?;
        Ok(sender)
    }
}

impl Connection {
    pub(crate) fn base_url(&self) -> &BaseUrl {
        &self.host.base_url
    }

    /// The host's position in the configured list: evidence of one host is none about another.
    pub(crate) fn host_index(&self) -> usize {
        self.host.index
    }

    /// Puts a connection back that no request went out on, or whose response has been read.
    pub(crate) fn put_back(self) {
        let Self {
            sender, host, age, ..
        } = self;
        let now = Instant::now();
        let mut idle = host.idle();
        while idle.front().is_some_and(|oldest| !oldest.is_reusable(now)) {
            idle.pop_front();
        }
        if idle.len() < host.max_idle {
            idle.push_back(Idle { sender, age });
        }
    }

    /// Puts a connection back as soon as it is ready after its response. `keep_alive` is the idle
    /// timeout that the server announced.
    pub(super) async fn reuse(mut self, keep_alive: Option<Duration>) {
        self.age.used(Instant::now(), keep_alive);
        if let Ok(Ok(())) = tokio::time::timeout(REUSE_WITHIN, self.sender.ready()).await {
            self.put_back();
        }
    }

    /// Takes in that the call which began at this time got no response. If its connection had been idle, a firewall or a
    /// load balancer may have dropped idle connections silently. Each of them would cost another call its timeout, so
    /// this drops all connections that were idle before the call.
    pub(super) fn failed(self, call_start: Instant) {
        if self.age.was_idle(call_start) {
            self.host
                .idle()
                .retain(|idle| idle.age.used_since(call_start));
        }
    }
}

impl Idle {
    fn is_reusable(&self, now: Instant) -> bool {
        self.sender.is_ready() && self.age.allows_reuse(now)
    }
}
