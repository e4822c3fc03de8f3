//! The two endpoints: what becomes of a call, from its arrival to its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use hyper::body::Body as _;
use uuid::Uuid;

use super::api_state::ApiState;
use super::behaviour::Behaviour;
use super::call::{Call, CallKind};
use super::faults::Fault;
use super::ledger_state::{Admission, Arrival};
use super::request::{self, Refusal};
use super::response::{ApiResponse, close_without_response};

/// The longest body: a payload of 32 KB, of which JSON may write each byte as six, and the fields around it.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// How long a body may take to come in.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

enum Ending {
    Respond(ApiResponse),
    Close,
    Hang,
}

/// The routes of the two endpoints. Every other path gets a 404 and counts as a stray request, except the control API.
pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new()
        .route(
            "/dev/v2/project/{app_id}/rtm/users/{user_id}/peer_messages",
            post(|state, request| call(state, CallKind::Peer, request)),
        )
        .route(
            "/dev/v2/project/{app_id}/rtm/users/{user_id}/channel_messages",
            post(|state, request| call(state, CallKind::Channel, request)),
        )
}

/// Responds to a request for an unknown path or with a wrong method, and counts it.
pub(super) fn stray(api: &ApiState, status: StatusCode) -> Response {
    api.ledger.note_stray();
    unknown(status)
}

/// Responds as the API does to a request that it does not know.
pub(super) fn unknown(status: StatusCode) -> Response {
    let request_id = Uuid::new_v4().simple().to_string();
    ApiResponse::usual(status, &request_id).into_response(&request_id)
}

/// Decides what becomes of a call, in the order in which the API would find out, and notes it in `arrival`.
/// Besides the ending it tells how long a fault delays it.
fn judge(
    api: &ApiState,
    behaviour: &Behaviour,
    arrival: &mut Arrival,
    headers: &HeaderMap,
    read: Result<(), Refusal>,
) -> (Ending, Duration) {
    let call = &mut arrival.call;
    let answer = |answer| (Ending::Respond(answer), Duration::ZERO);
    let signed_in = behaviour
        .credentials
        .admit(headers, &call.app_id, &call.sender, unix_time_s());
    if !signed_in {
        return answer(ApiResponse::usual(
            StatusCode::UNAUTHORIZED,
            &call.request_id,
        ));
    }
    if let Err(refusal) = read {
        return answer(ApiResponse::failed(
            refusal.status,
            &refusal.reason,
            &call.request_id,
        ));
    }
    let limit = behaviour.limit_of(&call.app_id);
    let nth = match api.ledger.admit(arrival, limit) {
        Admission::Admitted { nth } => nth,
        Admission::Refused => {
            let request_id = &arrival.call.request_id;
            return answer(
                ApiResponse::usual(StatusCode::TOO_MANY_REQUESTS, request_id)
                    .with_retry_after(behaviour.retry_after.as_deref()),
            );
        }
    };
    let call = &mut arrival.call;
    let fault = api.faults().choose(call, nth);
    call.fault = fault.as_ref().map(|fault| Cow::Borrowed(fault.name()));
    call.accepted = fault.as_ref().is_none_or(Fault::takes_message);
    let delay = match fault {
        Some(Fault::Slow { ms }) => Duration::from_millis(ms),
        _ => Duration::ZERO,
    };
    (ending(call, behaviour, fault), delay)
}

/// The ending of a call that is right in itself.
fn ending(call: &mut Call, behaviour: &Behaviour, fault: Option<Fault>) -> Ending {
    let code = if !call.wait_for_ack {
        "message_sent"
    } else if behaviour.is_offline(&call.target) {
        "message_offline"
    } else {
        "message_delivered"
    };
    let request_id = &call.request_id;
    match fault {
        None | Some(Fault::Slow { .. }) => {
            let answer = ApiResponse::success(code, request_id);
            call.code = Some(Cow::Borrowed(code));
            Ending::Respond(answer)
        }
        Some(Fault::Status {
            code,
            retry_after,
            body,
        }) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ending::Respond(
                ApiResponse::chosen(status, body, request_id)
                    .with_retry_after(retry_after.as_deref()),
            )
        }
        Some(Fault::Garbage) => Ending::Respond(ApiResponse::garbage()),
        Some(Fault::HalfBody) => Ending::Respond(ApiResponse::success(code, request_id).broken()),
        Some(Fault::Drop | Fault::DropBefore) => Ending::Close,
        Some(Fault::Hang) => Ending::Hang,
    }
}

async fn call(State(api): State<Arc<ApiState>>, kind: CallKind, request: Request) -> Response {
    // Before anything else: the limit is about arrivals, not about how quickly bodies come in.
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    let app_id = request::app_id(parts.uri.path());
    let mut arrival = api.ledger.arrive(arrived, kind, app_id);
    arrival.call.request_id = api.request_id(arrival.call.seq);

    let behaviour = api.behaviour();
    let body = read_body(body).await;
    let read = request::read(
        &mut arrival.call,
        &parts,
        body.as_deref().unwrap_or_default(),
    );
    let read = body.and(read);
    let (ending, fault_delay) = judge(&api, &behaviour, &mut arrival, &parts.headers, read);
    let jitter = Duration::from_millis(behaviour.jitter_ms);
    let delay =
        fault_delay + Duration::from_millis(behaviour.latency_ms) + api.faults().jitter(jitter);
    finish(&api, arrival, ending, delay).await
}

/// Writes the call down, and answers it after `delay` or not at all.
async fn finish(api: &ApiState, mut arrival: Arrival, ending: Ending, delay: Duration) -> Response {
    match ending {
        Ending::Respond(answer) => {
            let status = answer.status.as_u16();
            if delay.is_zero() {
                arrival.call.status = Some(status);
                api.ledger.judge(&arrival);
            } else {
                api.ledger.judge(&arrival);
                // A client that goes away meanwhile ends this future here, and the call has had no answer.
                tokio::time::sleep(delay).await;
                api.ledger.responded(&arrival, status);
            }
            answer.into_response(&arrival.call.request_id)
        }
        Ending::Close => {
            api.ledger.judge(&arrival);
            tokio::time::sleep(delay).await;
            close_without_response()
        }
        Ending::Hang => {
            api.ledger.judge(&arrival);
            std::future::pending().await
        }
    }
}

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    let too_long = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body must not exceed {MAX_BODY_BYTES} bytes"),
        )
    };
    // A length announced in the head is refused without waiting for the body.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(too_long()),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "the body could not be read",
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[allow(clippy::disallowed_methods)] // A token says when it expires by the wall clock.
fn unix_time_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
