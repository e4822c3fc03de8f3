//! One call over HTTP. [`Client::connection`] makes the connection before the call's slot, [`Client::send`] uses it in the
//! slot. The client never repeats a request.

use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::TrySendError;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::connection_pool::{Connection, ConnectionPool};
use super::hosts::Hosts;
use super::request::path_and_body;
use super::response::MAX_BODY_BYTES;
use super::{CallFailure, CredentialError, EchoFilter, Response};
use crate::config::{AppConfig, Timing, UsageError};
use crate::error_text::error_chain_text;
use crate::message::Message;
use crate::pace::SendPermit;
use crate::telemetry::log_throttle::LogThrottle;
use crate::tls::tls_config;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) app: AppConfig,
    pub(crate) pools: Vec<ConnectionPool>,
    pub(super) hosts: Mutex<Hosts>,
    /// One for avoided hosts, one for restored hosts.
    pub(super) host_logs: [LogThrottle; 2],
}

impl Client {
    pub(crate) fn new(app: AppConfig, timing: Timing) -> Result<Arc<Self>, UsageError> {
        let tls = Arc::new(tls_config(app.ca_file.as_deref())?);
        let base_urls = app.base_urls.iter().enumerate();
        let pools = base_urls
            .map(|(index, base_url)| ConnectionPool::new(index, base_url.clone(), &tls, timing));
        Ok(Arc::new(Self {
            pools: pools.collect::<Result<_, _>>()?,
            hosts: Mutex::new(Hosts::new(app.base_urls.len())),
            host_logs: Default::default(),
            app,
        }))
    }

    /// The request with its credentials, for the host of a connection. An attempt prepares it before the slot, so that the
    /// call starts in the slot.
    ///
    /// Fails if a secret can't be read, or the credentials are for another sender.
    pub(crate) fn prepare(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<SignedRequest, CredentialError> {
        let base_url = &self.pools[connection.host].base_url;
        let (path, body) = path_and_body(&self.app.app_id, message);
        // The request has no scheme and no host before its path, as a server expects it, so HTTP/1.1 needs the header `Host`.
        let target = format!("{}{path}", base_url.path_prefix());
        let mut request = Request::post(target)
            .header(HOST, base_url.host())
            .header(CONTENT_TYPE, "application/json;charset=utf-8")
            .header(
                USER_AGENT,
                concat!("signaling-worker/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| CredentialError::NotAHeader)?;
        let credentials = &self.app.credentials;
        let echo_filter = EchoFilter {
            payload: message.payload.clone(),
            secrets: credentials.sign(&message.sender, request.headers_mut())?,
        };
        Ok((request, echo_filter))
    }

    /// Makes one call. At most one request leaves this process, even if the call fails.
    ///
    /// Fails if no response came. The error says whether the request may have arrived.
    pub(crate) async fn send(
        &self,
        _permit: SendPermit,
        mut connection: Connection,
        (request, echo_filter): SignedRequest,
    ) -> Result<Response, CallFailure> {
        let (host, is_trial) = (connection.host, connection.is_trial);
        let timeout = self.pools[host].timing.request_timeout;
        let deadline = Instant::now() + timeout;
        let sending = timeout_at(deadline, connection.sender.try_send_request(request));
        let sent = sending.await.map_err(|_| CallFailure::TimedOut(timeout))?;
        // The status counts even if the body does not come: a 400 with half a body is a 400.
        let (head, body) = sent.map_err(failure)?.into_parts();
        let body = match timeout_at(deadline, Limited::new(body, MAX_BODY_BYTES).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err("its body is longer than 64 KiB")
            }
            Ok(Err(_)) => Err("its body did not come to its end"),
            Err(_) => Err("its body did not come in time"),
        };
        if body.is_ok() {
            self.pools[host].reuse(connection).await;
        }
        let status = head.status.as_u16();
        self.observe(host, is_trial, status);
        let body = body.as_deref().map_err(|why| *why);
        Ok(Response::read(status, &head.headers, body, &echo_filter))
    }
}

/// A request with its credentials. The filter has no `Debug`, so that no log shows the pair.
pub(crate) type SignedRequest = (Request<Full<Bytes>>, EchoFilter);

fn failure(mut error: TrySendError<Request<Full<Bytes>>>) -> CallFailure {
    let why = error_chain_text(error.error());
    match error.take_message() {
        Some(_) => CallFailure::NotSent(why),
        None => CallFailure::Broken(why),
    }
}
