//! The middleware in front of every route: token, host, origin, time limit and security headers.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HOST, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use super::policy::{Credential, Refusal, RequestFacts, check};
use super::session;
use super::token::{Access, COOKIE_NAME, WRONG_TOKEN_DELAY, is_cookie, is_token};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// `no-referrer` would make browsers send forms with the origin `null`.
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

/// Marks a request with the token, or of a server without one. Its response may contain details.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Authenticated;

pub(in crate::ops) async fn authenticate(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Response {
    let responding = respond(&access, request, next);
    let response = tokio::time::timeout(RESPONSE_TIMEOUT, responding).await;
    let mut response = response.unwrap_or_else(|_| {
        (StatusCode::SERVICE_UNAVAILABLE, "no response within 30 s\n").into_response()
    });
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn respond(access: &Access, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    let credential = credential(access, headers);
    let facts = RequestFacts {
        method: request.method(),
        path: request.uri().path(),
        host: only(headers, &HOST),
        fetch_site: first(headers, "sec-fetch-site"),
        origin: first(headers, ORIGIN.as_str()),
        credential,
    };
    if let Err(refusal) = check(facts) {
        let login_url = wants_page(&request).then(|| session::login_url(request.uri()));
        return refuse(refusal, login_url).await;
    }
    if matches!(credential, Credential::NotNeeded | Credential::Right) {
        request.extensions_mut().insert(Authenticated);
    }
    next.run(request).await
}

/// `login_url` is none unless the request is for a page.
async fn refuse(refusal: Refusal, login_url: Option<String>) -> Response {
    if let (Refusal::SignIn, Some(url)) = (refusal, &login_url) {
        return Redirect::to(url).into_response();
    }
    let (status, why) = match refusal {
        Refusal::SignIn => (
            StatusCode::UNAUTHORIZED,
            "send the token: Authorization: Bearer …\n",
        ),
        Refusal::WrongToken => {
            tokio::time::sleep(WRONG_TOKEN_DELAY).await;
            (StatusCode::UNAUTHORIZED, "the token is wrong\n")
        }
        Refusal::NoToken => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the file of WORKER_OPS_TOKEN_FILE has no usable token: see the worker's log\n",
        ),
        Refusal::ForeignHost => (
            StatusCode::FORBIDDEN,
            "this server has no token, so it responds only to a name of this host, like localhost or 127.0.0.1. To use another name, set WORKER_OPS_TOKEN_FILE\n",
        ),
        Refusal::ForeignOrigin => (
            StatusCode::FORBIDDEN,
            "a change must come from a page of this server, by the headers Sec-Fetch-Site or Origin, and Host\n",
        ),
    };
    let mut response = (status, why).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

fn credential(access: &Access, headers: &HeaderMap) -> Credential {
    let Access::Token(token) = access else {
        return Credential::NotNeeded;
    };
    let Some(token) = token.current() else {
        return Credential::NoToken;
    };
    match headers
        .get(AUTHORIZATION)
        .map(|header| bearer(header.as_bytes()))
    {
        Some(Some(given)) if is_token(given, &token) => Credential::Right,
        Some(_) => Credential::Wrong,
        None if cookies(headers).any(|cookie| is_cookie(cookie, &token)) => Credential::Right,
        // A wrong cookie stems from an earlier token. The browser has to sign in again.
        None => Credential::Absent,
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// The session cookies. A browser may send several.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='))
}

/// The header's value, if there is exactly one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The header's first value. An unreadable one is empty, and not absent.
fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .map(|value| value.to_str().unwrap_or_default())
}

fn wants_page(request: &Request) -> bool {
    let accepts_html = first(request.headers(), ACCEPT.as_str())
        .is_some_and(|accept| accept.contains("text/html"));
    accepts_html && matches!(*request.method(), Method::GET | Method::HEAD)
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
