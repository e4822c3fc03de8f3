//! The answers of the API, whole and broken ones.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Frame;
use serde_json::json;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a proxy that has gone wrong might send: no JSON, and not even UTF-8.
const GARBAGE: &[u8] = b"<html>\xff\xfe{\"result\":";

/// An answer that is ready to be sent.
#[derive(Debug)]
pub(super) struct ApiResponse {
    pub(super) status: StatusCode,
    retry_after: Option<String>,
    body: Bytes,
    /// Whether the connection breaks in the middle of the body.
    broken: bool,
}

impl ApiResponse {
    fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            retry_after: None,
            body: body.into(),
            broken: false,
        }
    }

    /// The answer to a call that succeeded with `code`.
    pub(super) fn success(code: &str, request_id: &str) -> Self {
        let body = if code == "message_offline" {
            json!({ "request_id": request_id, "code": code })
        } else {
            json!({ "result": "success", "request_id": request_id, "code": code })
        };
        Self::new(StatusCode::OK, body.to_string())
    }

    /// The answer to a call whose parameters are wrong, or which the API could not serve.
    pub(super) fn failed(status: StatusCode, reason: &str, request_id: &str) -> Self {
        let body = json!({ "result": "failed", "request_id": request_id, "reason": reason });
        Self::new(status, body.to_string())
    }

    /// What the API sends with `status` when it has nothing more to say.
    pub(super) fn usual(status: StatusCode, request_id: &str) -> Self {
        let message = match status {
            StatusCode::UNAUTHORIZED => "Invalid authentication credentials",
            StatusCode::TOO_MANY_REQUESTS => "API rate limit exceeded",
            StatusCode::NOT_FOUND => "no Route matched with those values",
            StatusCode::METHOD_NOT_ALLOWED => "method not allowed",
            _ => {
                let reason = status.canonical_reason().unwrap_or("unknown error");
                return Self::failed(status, reason, request_id);
            }
        };
        Self::new(status, json!({ "message": message }).to_string())
    }

    /// A successful status over a body that can't be read.
    pub(super) fn garbage() -> Self {
        Self::new(StatusCode::OK, GARBAGE)
    }

    /// The answer that a fault asks for.
    pub(super) fn chosen(status: StatusCode, body: Option<String>, request_id: &str) -> Self {
        match body {
            Some(body) => Self::new(status, body),
            None => Self::usual(status, request_id),
        }
    }

    pub(super) fn with_retry_after(mut self, value: Option<&str>) -> Self {
        self.retry_after = value.map(str::to_owned);
        self
    }

    pub(super) fn broken(mut self) -> Self {
        self.broken = true;
        self
    }

    pub(super) fn into_response(self, request_id: &str) -> Response {
        let length = self.body.len();
        let mut response = Response::new(if self.broken {
            Body::new(HalfBody::of(&self.body))
        } else {
            Body::from(self.body)
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=utf-8"),
        );
        headers.insert(header::CONTENT_LENGTH, length.into());
        if let Ok(value) = HeaderValue::from_str(request_id) {
            headers.insert(X_REQUEST_ID, value);
        }
        if let Some(Ok(value)) = self.retry_after.as_deref().map(HeaderValue::from_str) {
            headers.insert(header::RETRY_AFTER, value);
        }
        response
    }
}

/// Marks a response that is not to be sent: the connection is closed in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct CloseWithoutResponse;

/// The response that stands for a closed connection.
pub(super) fn close_without_response() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(CloseWithoutResponse);
    response
}

/// Half of a body. As it ends before the promised length, the server has to close the connection.
struct HalfBody {
    half: Option<Bytes>,
    flushed: bool,
}

impl HalfBody {
    fn of(body: &Bytes) -> Self {
        Self {
            half: Some(body.slice(..body.len() / 2)),
            flushed: false,
        }
    }
}

impl hyper::body::Body for HalfBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        if !self.flushed {
            // One turn of pause, in which the server writes out what it has; otherwise the head would be lost too.
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(None)
    }
}
