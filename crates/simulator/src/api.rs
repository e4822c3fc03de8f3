//! The two endpoints: how the API handles a call from its arrival to its response.

use std::borrow::Cow;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use uuid::Uuid;

use super::behaviour::Behaviour;
use super::call::{Call, CallKind};
use super::faults::{Fault, Faults};
use super::ledger::{Admission, Ledger};
use super::request::{self, Refusal};
use super::response::{
    GARBAGE, close_without_response, failure, half_response, response, success, usual_body,
};

/// JSON may write each byte of a payload of 32 KB as six, and there are other fields.
const MAX_BODY_BYTES: usize = 256 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// State that the endpoints and the control API share.
#[derive(Debug)]
pub(super) struct ApiState {
    pub(super) ledger: Arc<Ledger>,
    behaviour: Mutex<Arc<Behaviour>>,
    faults: Mutex<Faults>,
    /// Prefix of the request IDs, which differ from those of another simulator with the same ledger.
    instance: String,
}

impl ApiState {
    pub(super) fn new(ledger: Arc<Ledger>, behaviour: Behaviour, faults: Faults) -> Self {
        let (instance, ..) = Uuid::new_v4().as_fields();
        Self {
            ledger,
            behaviour: Mutex::new(Arc::new(behaviour)),
            faults: Mutex::new(faults),
            instance: format!("{instance:08x}"),
        }
    }

    pub(super) fn behaviour(&self) -> MutexGuard<'_, Arc<Behaviour>> {
        self.behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn routes() -> Router<Arc<ApiState>> {
    let users = "/dev/v2/project/{app_id}/rtm/users/{user_id}";
    Router::new()
        .route(
            &format!("{users}/peer_messages"),
            post(|state, request| call(state, CallKind::Peer, request)),
        )
        .route(
            &format!("{users}/channel_messages"),
            post(|state, request| call(state, CallKind::Channel, request)),
        )
}

/// Responds to a request for an unknown path or with a wrong method.
pub(super) fn unknown(status: StatusCode) -> Response {
    let request_id = Uuid::new_v4().simple().to_string();
    response(status, usual_body(status, &request_id), &request_id, None)
}

enum Reply {
    Respond(Response),
    Close,
    Hang,
}

async fn call(State(api): State<Arc<ApiState>>, kind: CallKind, request: Request) -> Response {
    // Read before the body, because the limit counts arrivals and a body may be slow.
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let app_id = request::app_id(parts.uri.path());
    let mut call = api.ledger.arrive(arrived, kind, app_id);
    call.request_id = format!("{}{:010x}", api.instance, call.seq);

    let behaviour = Arc::clone(&api.behaviour());
    let body = read_body(body).await;
    let bytes = body.as_deref().unwrap_or_default();
    let read = request::read(&mut call, &parts, bytes);
    let admitted = admit(&api, &behaviour, &call, &parts.headers, body.and(read));
    let (reply, fault_delay) = match admitted {
        Ok(nth) => reply(&api, &behaviour, &mut call, nth),
        Err(refusal) => {
            let body = match &refusal.reason {
                Some(reason) => failure(reason, &call.request_id),
                None => usual_body(refusal.status, &call.request_id),
            };
            let retry_after = refusal.retry_after.as_deref();
            let response = response(refusal.status, body, &call.request_id, retry_after);
            (Reply::Respond(response), Duration::ZERO)
        }
    };
    let latency = Duration::from_millis(behaviour.latency_ms);
    let jitter = Duration::from_millis(behaviour.jitter_ms);
    let delay = fault_delay + latency + api.faults().delay(jitter);

    match reply {
        Reply::Respond(response) if delay.is_zero() => {
            call.status = Some(response.status().as_u16());
            api.ledger.decide(&call);
            response
        }
        Reply::Respond(response) => {
            api.ledger.decide(&call);
            // If the client closes the connection, this future ends here, and the call stays without a status.
            tokio::time::sleep(delay).await;
            api.ledger.responded(&call, response.status().as_u16());
            response
        }
        Reply::Close => {
            api.ledger.decide(&call);
            tokio::time::sleep(delay).await;
            close_without_response()
        }
        Reply::Hang => {
            api.ledger.decide(&call);
            std::future::pending().await
        }
    }
}

/// Checks credentials, parameters and the limit, in this order, as the API does. Returns how many calls of the same
/// message were admitted so far, if the ledger could count them.
fn admit(
    api: &ApiState,
    behaviour: &Behaviour,
    call: &Call,
    headers: &HeaderMap,
    read: Result<(), Refusal>,
) -> Result<Option<u32>, Refusal> {
    let is_authorized =
        behaviour
            .credentials
            .admit(headers, &call.app_id, &call.sender, unix_time_s());
    if !is_authorized {
        return Err(Refusal::of(StatusCode::UNAUTHORIZED));
    }
    read?;
    match api.ledger.admit(call, behaviour.limit) {
        Admission::Admitted { nth } => Ok(nth),
        Admission::OverLimit => Err(Refusal {
            retry_after: behaviour.retry_after.clone(),
            ..Refusal::of(StatusCode::TOO_MANY_REQUESTS)
        }),
    }
}

/// The reply to an admitted call, and the delay that a fault adds.
fn reply(
    api: &ApiState,
    behaviour: &Behaviour,
    call: &mut Call,
    nth: Option<u32>,
) -> (Reply, Duration) {
    let code = match call.wait_for_ack {
        false => "message_sent",
        true if behaviour.is_offline(&call.target) => "message_offline",
        true => "message_delivered",
    };
    let fault = api.faults().choose(call, nth);
    call.fault = fault.as_ref().map(|fault| Cow::Borrowed(fault.name()));
    call.accepted = fault.as_ref().is_none_or(Fault::takes_message);
    if matches!(fault, None | Some(Fault::Slow { .. })) {
        call.code = Some(Cow::Borrowed(code));
    }
    let request_id = &call.request_id;
    let ok = |body: Body| Reply::Respond(response(StatusCode::OK, body, request_id, None));
    let reply = match fault {
        None => ok(success(code, request_id).into()),
        Some(Fault::Slow { ms }) => {
            let reply = ok(success(code, request_id).into());
            return (reply, Duration::from_millis(ms));
        }
        Some(Fault::Status {
            code,
            retry_after,
            body,
        }) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = body.unwrap_or_else(|| usual_body(status, request_id));
            Reply::Respond(response(status, body, request_id, retry_after.as_deref()))
        }
        Some(Fault::Garbage) => ok(GARBAGE.into()),
        Some(Fault::HalfBody) => {
            Reply::Respond(half_response(success(code, request_id), request_id))
        }
        Some(Fault::Drop | Fault::DropBefore) => Reply::Close,
        Some(Fault::Hang) => Reply::Hang,
    };
    (reply, Duration::ZERO)
}

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    let too_long = || {
        let reason = format!("the body must not exceed {MAX_BODY_BYTES} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    };
    // The head announces the length, so there is no need to wait for the body.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error))
            if error
                .source()
                .is_some_and(<dyn Error>::is::<LengthLimitError>) =>
        {
            Err(too_long())
        }
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "the body could not be read",
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )),
    }
}

#[allow(clippy::disallowed_methods)] // Tokens expire by the wall clock.
fn unix_time_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
