//! The responses of the API.

use std::convert::Infallible;
use std::io;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::json;

/// The body that a broken proxy may send: neither JSON nor UTF-8.
pub(super) const GARBAGE: &[u8] = b"<html>\xff\xfe{\"result\":";

pub(super) fn success(code: &str, request_id: &str) -> String {
    let mut body = json!({ "request_id": request_id, "code": code });
    if code != "message_offline" {
        body["result"] = "success".into();
    }
    body.to_string()
}

pub(super) fn failure(reason: &str, request_id: &str) -> String {
    json!({ "result": "failed", "request_id": request_id, "reason": reason }).to_string()
}

/// The body that the API usually sends with an error status.
pub(super) fn usual_body(status: StatusCode, request_id: &str) -> String {
    let message = match status {
        StatusCode::UNAUTHORIZED => "Invalid authentication credentials",
        StatusCode::TOO_MANY_REQUESTS => "API rate limit exceeded",
        StatusCode::NOT_FOUND => "no Route matched with those values",
        StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
        _ => {
            let reason = status.canonical_reason().unwrap_or("unknown error");
            return failure(reason, request_id);
        }
    };
    json!({ "message": message }).to_string()
}

pub(super) fn response(
    status: StatusCode,
    body: impl Into<Body>,
    request_id: &str,
    retry_after: Option<&str>,
) -> Response {
    let headers = [
        (CONTENT_TYPE.as_str(), "application/json;charset=utf-8"),
        ("x-request-id", request_id),
    ];
    let retry_after = retry_after.map(|value| [(RETRY_AFTER, value)]);
    (status, headers, retry_after, body.into()).into_response()
}

/// A response that ends before its announced length, so that hyper closes the connection.
pub(super) fn half_response(mut body: String, request_id: &str) -> Response {
    let length = body.len();
    body.truncate(length / 2);
    let half = stream::unfold(Some(body), async |half| {
        if half.is_none() {
            // Lets hyper write the first half. Otherwise hyper would drop even the head.
            tokio::task::yield_now().await;
        }
        half.map(|half| (Ok::<_, Infallible>(half), None))
    });
    let mut response = response(StatusCode::OK, Body::from_stream(half), request_id, None);
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// A response whose body fails before the server has written the head, so that the server closes the connection and sends
/// nothing.
pub(super) fn close_without_response() -> Response {
    let failure = io::Error::other("a fault closes this connection");
    Response::new(Body::from_stream(stream::iter([Err::<&str, _>(failure)])))
}
