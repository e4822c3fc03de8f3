//! What stands before every page: who may ask, from where, how much and for how long.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http_body_util::Limited;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, COOKIE, HOST,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use super::policy::{Credential, Decision, RequestFacts, decide};
use super::session;
use super::token::{Access, COOKIE_NAME, WRONG_TOKEN_DELAY, is_cookie, is_token};

/// The most bytes of a request's body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest time for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Referrers stay here, but are not left out: without them, browsers say of a form that its origin is null.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "same-origin"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Goes with a request of somebody to whom everything may be told: whoever has the token, or reaches a server without
/// one.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Authenticated;

#[derive(Debug, Clone)]
pub(in crate::ops) struct Auth {
    access: Access,
}

impl Auth {
    pub(in crate::ops) fn new(access: Access) -> Self {
        Self { access }
    }

    fn credential(&self, headers: &HeaderMap) -> Option<Credential> {
        let Access::Token(token) = &self.access else {
            return None;
        };
        let Some(token) = token.current() else {
            return Some(Credential::NoToken);
        };
        if let Some(header) = headers.get(AUTHORIZATION) {
            let is_right = bearer(header.as_bytes()).is_some_and(|given| is_token(given, &token));
            return Some(if is_right {
                Credential::Right
            } else {
                Credential::Wrong
            });
        }
        // A cookie that is wrong is one of a token of before: it asks for the new one.
        let has_cookie = cookies(headers).any(|cookie| is_cookie(cookie, &token));
        Some(if has_cookie {
            Credential::Right
        } else {
            Credential::None
        })
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// The values of the session's cookie, of which a browser may send several.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// The header's value, if there is exactly one.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Lets through what may get through, within its bounds, and adds what browsers are to heed.
pub(in crate::ops) async fn authenticate(
    State(auth): State<Auth>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = respond(&auth, request, next).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn respond(auth: &Auth, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let credential = auth.credential(headers);
    let facts = RequestFacts {
        method: request.method(),
        path: request.uri().path(),
        host: only(headers, HOST),
        fetch_site: headers
            .get(SEC_FETCH_SITE)
            .map(|site| site.to_str().unwrap_or_default()),
        origin: headers
            .get(ORIGIN)
            .map(|origin| origin.to_str().unwrap_or_default()),
        credential,
    };
    match decide(facts) {
        Decision::Pass => {}
        Decision::SignIn if wants_page(&request) => {
            return Redirect::to(&session::address(request.uri())).into_response();
        }
        Decision::SignIn => return unauthorized("send the token: Authorization: Bearer …\n"),
        Decision::WrongToken => {
            tokio::time::sleep(WRONG_TOKEN_DELAY).await;
            return unauthorized("the token is not right\n");
        }
        Decision::NoToken => {
            let why = "the file of WORKER_OPS_TOKEN_FILE has no token that can be used: the worker's log says why\n";
            return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
        }
        Decision::ForeignHost => {
            let why = "this server has no token, so it must be asked by a name of this host alone, like localhost or 127.0.0.1. To reach it by another name, set WORKER_OPS_TOKEN_FILE\n";
            return (StatusCode::FORBIDDEN, why).into_response();
        }
        Decision::ForeignOrigin => {
            let why = "a change must come from a page of this server: the headers Sec-Fetch-Site or Origin, and Host, say that it does not\n";
            return (StatusCode::FORBIDDEN, why).into_response();
        }
    }
    if is_too_long(headers) {
        let why = "the request has more than 64 KiB\n";
        return (StatusCode::PAYLOAD_TOO_LARGE, why).into_response();
    }
    if matches!(credential, None | Some(Credential::Right)) {
        request.extensions_mut().insert(Authenticated);
    }
    let request = request.map(|body| Body::new(Limited::new(body, MAX_BODY_BYTES)));
    let responding = tokio::time::timeout(RESPONSE_TIMEOUT, next.run(request));
    responding.await.unwrap_or_else(|_| {
        let why = "no answer within 30 s\n";
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    })
}

/// Whether a browser asks for something to show.
fn wants_page(request: &Request) -> bool {
    let accepts_page = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    accepts_page && matches!(*request.method(), Method::GET | Method::HEAD)
}

fn is_too_long(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .is_some_and(|length| length > MAX_BODY_BYTES)
}

fn unauthorized(why: &'static str) -> Response {
    let challenge = [(WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("a=b; signaling_ops=one; signaling_ops_2=no"),
        );
        headers.append(COOKIE, HeaderValue::from_static("signaling_ops=two"));
        let values: Vec<_> = cookies(&headers).collect();
        assert_eq!(values, ["one", "two"]);
        assert_eq!(bearer(b"bearer  x "), Some(&b"x"[..]));
        assert_eq!(bearer(b"Basic abcdefg"), None);
        assert_eq!(bearer(b"B"), None);
    }
}
