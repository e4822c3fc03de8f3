//! The two endpoints: how the API handles a call from its arrival to its response.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use parking_lot::Mutex;
use uuid::Uuid;

use super::Behaviour;
use super::credentials;
use super::faults::{self, Fault, FaultRule};
use super::ledger::{Call, CallKind, Ledger};
use super::request::{self, Refusal};
use super::response::{
    GARBAGE, close_without_response, failure, half_response, response, success, usual_body,
};

/// Recipients whose name begins with this prefix are offline.
const OFFLINE_PREFIX: &str = "offline-";

/// State that the endpoints and the control API share.
pub(super) struct ApiState {
    pub(super) ledger: Arc<Ledger>,
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) faults: Mutex<Vec<FaultRule>>,
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
    let request_id = request_id();
    response(status, usual_body(status, &request_id), &request_id, None)
}

fn request_id() -> String {
    Uuid::new_v4().simple().to_string()
}

enum Reply {
    Respond(Response),
    Close,
    Hang,
}

async fn call(State(api): State<Arc<ApiState>>, kind: CallKind, request: Request) -> Response {
    let mut call = Call {
        kind,
        request_id: request_id(),
        ..Call::default()
    };
    let (headers, checked) = request::read(&mut call, request).await;
    let behaviour = api.behaviour.lock().clone();
    let mut delay = behaviour.latency;
    let reply = api.ledger.change(|state| {
        call.at_us = api.ledger.now_us();
        let authorized = authorize(&behaviour, &call, &headers);
        let admitted = authorized.and(checked).and_then(|()| {
            let nth = state.admit(&call, behaviour.limit);
            nth.ok_or((StatusCode::TOO_MANY_REQUESTS, None))
        });
        let reply = match admitted {
            Ok(nth) => {
                let fault = faults::choose(&mut api.faults.lock(), &call, nth);
                if let Some(Fault::Slow(more)) = fault {
                    delay += more;
                }
                reply(&mut call, fault)
            }
            Err((status, reason)) => {
                let request_id = &call.request_id;
                let body = reason.map_or_else(
                    || usual_body(status, request_id),
                    |reason| failure(&reason, request_id),
                );
                Reply::Respond(response(status, body, request_id, None))
            }
        };
        if let Reply::Respond(response) = &reply
            && delay.is_zero()
        {
            call.status = Some(response.status().as_u16());
        }
        state.record(&mut call);
        reply
    });
    // If the client closes the connection, this future ends here, and the call stays without a status.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match reply {
        Reply::Respond(response) => {
            if call.status.is_none() {
                api.ledger.responded(&call, response.status().as_u16());
            }
            response
        }
        Reply::Close => close_without_response(),
        Reply::Hang => std::future::pending().await,
    }
}

#[allow(clippy::disallowed_methods)] // Tokens expire by the wall clock.
fn authorize(behaviour: &Behaviour, call: &Call, headers: &HeaderMap) -> Result<(), Refusal> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since_epoch.unwrap_or_default().as_secs();
    let accepted = &behaviour.credentials;
    if credentials::admit(accepted, headers, &call.app_id, &call.sender, now_s) {
        return Ok(());
    }
    Err((StatusCode::UNAUTHORIZED, None))
}

/// The reply to an admitted call.
fn reply(call: &mut Call, fault: Option<Fault>) -> Reply {
    let code = match call.wait_for_ack {
        false => "message_sent",
        true if call.target.starts_with(OFFLINE_PREFIX) => "message_offline",
        true => "message_delivered",
    };
    call.fault = fault.as_ref().map(Into::into);
    call.accepted = fault.as_ref().is_none_or(Fault::accepts_message);
    let request_id = &call.request_id;
    let ok = |body: Body| Reply::Respond(response(StatusCode::OK, body, request_id, None));
    match fault {
        None | Some(Fault::Slow(_)) => ok(success(code, request_id).into()),
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
    }
}
