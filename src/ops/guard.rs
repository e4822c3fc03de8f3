//! What stands before every page: who may ask, from where, how much and for how long.

use std::net::IpAddr;
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
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};

use super::access::{Access, is_cookie, is_token};
use super::login;

/// The cookie of who has signed in.
pub(super) const COOKIE_NAME: &str = "signaling_ops";
/// The most bytes of a request's body.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest time for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The answer to a wrong token comes later: who guesses needs a connection all the time for each guess.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_secs(1);

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

/// Decides who gets through.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    access: Access,
}

/// What a request has to show for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    None,
    Wrong,
    Right,
    /// There is no token at present that any could be compared with.
    NoToken,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    host: Option<&'a str>,
    fetch_site: Option<&'a str>,
    origin: Option<&'a str>,
    /// None where no token is needed.
    credential: Option<Credential>,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// It needs the token.
    SignIn,
    WrongToken,
    NoToken,
    /// The name by which the server was called is none of this host alone.
    ForeignHost,
    /// Another site's page has sent it.
    ForeignOrigin,
}

/// Decides on a request. Pure.
fn decide(asked: Asked<'_>) -> Verdict {
    if asked.credential.is_none() && !asked.host.is_some_and(is_loopback_name) {
        return Verdict::ForeignHost;
    }
    let reads = matches!(*asked.method, Method::GET | Method::HEAD);
    if !reads && !is_same_origin(asked) {
        return Verdict::ForeignOrigin;
    }
    if is_open(asked.path) {
        return Verdict::Pass;
    }
    match asked.credential {
        None | Some(Credential::Right) => Verdict::Pass,
        Some(Credential::None) => Verdict::SignIn,
        Some(Credential::Wrong) => Verdict::WrongToken,
        Some(Credential::NoToken) => Verdict::NoToken,
    }
}

/// What says nothing but that the worker is there and well, and what the login page needs.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | login::PATH) || path.starts_with("/assets/")
}

/// A page of another site may be able to send a request here, but not to say that it comes from here.
fn is_same_origin(asked: Asked<'_>) -> bool {
    match (asked.fetch_site, asked.origin, asked.host) {
        (Some(site), ..) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        _ => false,
    }
}

/// Whether a Host header names this host by a name that no other's name server can give out.
fn is_loopback_name(host: &str) -> bool {
    if host.contains('@') {
        return false;
    }
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl Guard {
    pub(super) fn new(access: Access) -> Self {
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
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = answer(&guard, request, next).await;
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn answer(guard: &Guard, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let asked = Asked {
        method: request.method(),
        path: request.uri().path(),
        host: only(headers, HOST),
        fetch_site: headers
            .get(SEC_FETCH_SITE)
            .map(|site| site.to_str().unwrap_or_default()),
        origin: headers
            .get(ORIGIN)
            .map(|origin| origin.to_str().unwrap_or_default()),
        credential: guard.credential(headers),
    };
    match decide(asked) {
        Verdict::Pass => {}
        Verdict::SignIn if wants_page(&request) => {
            return Redirect::to(&login::address(request.uri())).into_response();
        }
        Verdict::SignIn => return unauthorized("send the token: Authorization: Bearer …\n"),
        Verdict::WrongToken => {
            tokio::time::sleep(WRONG_TOKEN_PAUSE).await;
            return unauthorized("the token is not right\n");
        }
        Verdict::NoToken => {
            let why = "the file of WORKER_OPS_TOKEN_FILE has no token that can be used: the worker's log says why\n";
            return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
        }
        Verdict::ForeignHost => {
            let why = "this server has no token, so it must be asked by a name of this host alone, like localhost or 127.0.0.1. To reach it by another name, set WORKER_OPS_TOKEN_FILE\n";
            return (StatusCode::FORBIDDEN, why).into_response();
        }
        Verdict::ForeignOrigin => {
            let why = "a change must come from a page of this server: the headers Sec-Fetch-Site or Origin, and Host, say that it does not\n";
            return (StatusCode::FORBIDDEN, why).into_response();
        }
    }
    if is_too_long(headers) {
        let why = "the request has more than 64 KiB\n";
        return (StatusCode::PAYLOAD_TOO_LARGE, why).into_response();
    }
    let request = request.map(|body| Body::new(Limited::new(body, MAX_BODY_BYTES)));
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let why = "no answer within 30 s\n";
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
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

    const GET: Asked<'_> = Asked {
        method: &Method::GET,
        path: "/",
        host: Some("localhost:9090"),
        fetch_site: None,
        origin: None,
        credential: None,
    };
    const POST: Asked<'_> = Asked {
        method: &Method::POST,
        fetch_site: Some("same-origin"),
        ..GET
    };

    #[test]
    fn only_a_loopback_name_leads_to_a_server_without_a_token() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.8.7.6:9090",
            "[::1]",
            "[::1]:80",
        ] {
            let asked = Asked {
                host: Some(host),
                ..GET
            };
            assert_eq!(decide(asked), Verdict::Pass, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::ffff:10.0.0.1]:9090",
            "localhost/",
            "local host",
        ] {
            for path in ["/", "/metrics", "/healthz", "/nothing"] {
                let asked = Asked {
                    host: Some(host),
                    path,
                    ..GET
                };
                assert_eq!(decide(asked), Verdict::ForeignHost, "{host} {path}");
            }
        }
        assert_eq!(decide(Asked { host: None, ..GET }), Verdict::ForeignHost);
        // With a token, names do not matter.
        let asked = Asked {
            host: Some("evil.example"),
            credential: Some(Credential::Right),
            ..GET
        };
        assert_eq!(decide(asked), Verdict::Pass);
    }

    #[test]
    fn a_change_comes_from_the_same_origin() {
        let cases = [
            (Some("same-origin"), None, true),
            (Some("none"), None, true),
            (Some("same-origin"), Some("http://evil.example"), true),
            (Some("same-site"), Some("http://localhost:9090"), false),
            (Some("cross-site"), Some("http://localhost:9090"), false),
            (Some(""), Some("http://localhost:9090"), false),
            (None, Some("http://localhost:9090"), true),
            (None, Some("https://LOCALHOST:9090"), true),
            (None, Some("http://localhost"), false),
            (None, Some("http://localhost:9091"), false),
            (None, Some("http://evil.example"), false),
            (None, Some("null"), false),
            (None, Some("localhost:9090"), false),
            (None, None, false),
        ];
        for (fetch_site, origin, passes) in cases {
            for method in [
                &Method::POST,
                &Method::PUT,
                &Method::DELETE,
                &Method::OPTIONS,
            ] {
                let asked = Asked {
                    method,
                    fetch_site,
                    origin,
                    ..POST
                };
                let expected = if passes {
                    Verdict::Pass
                } else {
                    Verdict::ForeignOrigin
                };
                assert_eq!(
                    decide(asked),
                    expected,
                    "{method} {fetch_site:?} {origin:?}"
                );
            }
            // What only reads may be linked to from anywhere.
            let asked = Asked {
                fetch_site,
                origin,
                ..GET
            };
            assert_eq!(decide(asked), Verdict::Pass);
        }
    }

    #[test]
    fn with_a_token_everything_but_health_and_the_login_needs_it() {
        let ask = |path, credential| {
            decide(Asked {
                path,
                credential: Some(credential),
                ..GET
            })
        };
        for path in [
            "/",
            "/metrics",
            "/messages/1",
            "/healthz/",
            "/nothing",
            "/logout",
        ] {
            assert_eq!(ask(path, Credential::None), Verdict::SignIn, "{path}");
            assert_eq!(ask(path, Credential::Wrong), Verdict::WrongToken, "{path}");
            assert_eq!(ask(path, Credential::NoToken), Verdict::NoToken, "{path}");
            assert_eq!(ask(path, Credential::Right), Verdict::Pass, "{path}");
        }
        for path in ["/healthz", "/readyz", "/login", "/assets/page.css"] {
            for credential in [Credential::None, Credential::Wrong, Credential::NoToken] {
                assert_eq!(ask(path, credential), Verdict::Pass, "{path}");
            }
        }
    }

    #[test]
    fn the_token_does_not_replace_the_origin() {
        let asked = Asked {
            credential: Some(Credential::Right),
            fetch_site: Some("cross-site"),
            ..POST
        };
        assert_eq!(decide(asked), Verdict::ForeignOrigin);
    }

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
