//! Access to the ops server: with the operators' token, or from this host alone.
//!
//! Monitoring sends `Authorization: Bearer`. Browsers ask for a user and a password, and send them as HTTP Basic: any user,
//! and the token as the password. Browsers add the password to requests of other sites' pages, too, so the server also
//! checks the origin of each change.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::connector::is_loopback;
use crate::secret::SecretSource;
use crate::telemetry::failure_log::FailureLog;

/// An attacker can't guess 16 random characters.
const MIN_TOKEN_CHARS: usize = 16;

const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// `no-referrer` would make browsers send forms with the origin `null`.
const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

type Refusal = (StatusCode, &'static str);

const NO_RIGHT_TOKEN: Refusal = (
    StatusCode::UNAUTHORIZED,
    "send the right token as the password of HTTP Basic, or as Authorization: Bearer …\n",
);
const NO_TOKEN: Refusal = (
    StatusCode::SERVICE_UNAVAILABLE,
    "the file of WORKER_OPS_TOKEN_FILE has no usable token: see the worker's log\n",
);
/// Prevents DNS rebinding: another site's page may reach this server by a name of that site that resolves to this host.
const FOREIGN_HOST: Refusal = (
    StatusCode::FORBIDDEN,
    "this server has no token, so it responds only to a name of this host, like localhost or 127.0.0.1. To use another name, set WORKER_OPS_TOKEN_FILE\n",
);
const FOREIGN_ORIGIN: Refusal = (
    StatusCode::FORBIDDEN,
    "a change must come from a page of this server, by the headers Sec-Fetch-Site or Origin, and Host\n",
);

/// The token, in a file that is read again when it changes.
#[derive(Debug)]
pub(crate) struct OpsToken {
    source: SecretSource,
    failures: FailureLog,
}

impl OpsToken {
    /// Fails if the file has no usable token.
    pub(super) fn in_file(path: &Path) -> Result<Self, String> {
        let token = Self {
            source: SecretSource::File(path.into()),
            failures: FailureLog::default(),
        };
        token.read()?;
        Ok(token)
    }

    fn read(&self) -> Result<SecretString, String> {
        let token = self.source.read().map_err(|error| error.to_string())?;
        let text = token.expose_secret();
        if text.chars().count() < MIN_TOKEN_CHARS {
            return Err(format!("it is shorter than {MIN_TOKEN_CHARS} characters"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "it has other characters than ASCII letters, digits and punctuation".into(),
            );
        }
        Ok(token)
    }

    /// The file's present token. None, with one log line, while the file has no usable token.
    fn current(&self) -> Option<SecretString> {
        let token = self.read();
        if let Some(error) = self.failures.observe(token.as_ref().map_err(Clone::clone)) {
            tracing::warn!(
                event = "ops_token_failed",
                "the ops server refuses all requests that need the token of WORKER_OPS_TOKEN_FILE: {error}"
            );
        }
        token.ok()
    }
}

/// True for a request with the token, or to a server without one. Its response may contain details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authenticated(pub(super) bool);

/// The middleware in front of every route. Without a token, the server listens on loopback alone.
pub(super) async fn authenticate(
    State(token): State<Option<Arc<OpsToken>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let mut response = match check(token.as_deref(), &request) {
        Ok(authenticated) => {
            request.extensions_mut().insert(authenticated);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    };
    let is_refused = response.status() == StatusCode::UNAUTHORIZED;
    let challenge = is_refused.then_some(("www-authenticate", "Basic realm=\"worker\""));
    for (name, value) in HEADERS.into_iter().chain(challenge) {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn check(token: Option<&OpsToken>, request: &Request) -> Result<Authenticated, Refusal> {
    let headers = request.headers();
    let is_local = header(headers, HOST).is_some_and(has_loopback_name);
    if token.is_none() && !is_local {
        return Err(FOREIGN_HOST);
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && !is_same_origin(headers) {
        return Err(FOREIGN_ORIGIN);
    }
    let Some(token) = token else {
        return Ok(Authenticated(true));
    };
    let given = header(headers, AUTHORIZATION).unwrap_or_default();
    let refusal = match token.current() {
        None => NO_TOKEN,
        Some(token) if has_token(given, &token) => return Ok(Authenticated(true)),
        Some(_) => NO_RIGHT_TOKEN,
    };
    // Probes have no token.
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    is_probe.then_some(Authenticated(false)).ok_or(refusal)
}

/// True if the value of an `Authorization` header has the token. Compares digests, so the duration reveals nothing about the
/// token.
fn has_token(authorization: &str, token: &SecretString) -> bool {
    let (scheme, given) = authorization.split_once(' ').unwrap_or_default();
    let mut given = given.trim().as_bytes().to_vec();
    if scheme.eq_ignore_ascii_case("Basic") {
        let user_and_password = BASE64_STANDARD.decode(given).unwrap_or_default();
        let mut parts = user_and_password.splitn(2, |byte| *byte == b':');
        given = parts.nth(1).unwrap_or_default().to_vec();
    } else if !scheme.eq_ignore_ascii_case("Bearer") {
        return false;
    }
    Sha256::digest(given) == Sha256::digest(token.expose_secret())
}

/// Browsers set these headers. A page of another site can't forge them.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let fetch_site = header(headers, HeaderName::from_static("sec-fetch-site"));
    match (fetch_site, header(headers, ORIGIN), header(headers, HOST)) {
        (Some(site), ..) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        _ => false,
    }
}

fn has_loopback_name(host: &str) -> bool {
    let authority = host.parse::<Authority>();
    !host.contains('@') && authority.is_ok_and(|authority| is_loopback(authority.host()))
}

/// The header's value. An unreadable or repeated header is empty, and not absent.
fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?.to_str();
    let is_repeated = values.next().is_some();
    value.ok().filter(|_| !is_repeated).or(Some(""))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::body::Body;

    use super::*;

    const TOKEN: &str = "0123456789:bcdef";

    fn ask(method: Method, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    fn get(headers: &[(&str, &str)]) -> Request {
        ask(Method::GET, "/", headers)
    }

    fn with_token(request: &Request) -> Result<Authenticated, Refusal> {
        let token = OpsToken {
            source: SecretSource::value(TOKEN),
            failures: FailureLog::default(),
        };
        check(Some(&token), request)
    }

    #[test]
    fn a_server_without_a_token_needs_a_loopback_name() {
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.8.7.6:9090",
            "[::1]",
            "[::1]:80",
        ] {
            assert_eq!(
                check(None, &get(&[("host", host)])),
                Ok(Authenticated(true)),
                "{host}"
            );
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
                let request = ask(Method::GET, path, &[("host", host)]);
                let refused = check(None, &request);
                assert_eq!(refused, Err(FOREIGN_HOST), "{host} {path}");
            }
        }
        let twice = get(&[("host", "localhost"), ("host", "evil.example")]);
        for request in [get(&[]), twice] {
            assert_eq!(check(None, &request), Err(FOREIGN_HOST));
        }
    }

    #[test]
    fn a_change_comes_from_the_same_origin() {
        let cases: [(&[(&str, &str)], bool); 14] = [
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (
                &[("sec-fetch-site", "same-origin"), ("origin", "http://evil")],
                true,
            ),
            (
                &[("sec-fetch-site", "same-site"), ("origin", "http://here:1")],
                false,
            ),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://here:1"),
                ],
                false,
            ),
            (
                &[("sec-fetch-site", ""), ("origin", "http://here:1")],
                false,
            ),
            (&[("origin", "http://here:1")], true),
            (&[("origin", "https://HERE:1")], true),
            (&[("origin", "http://here")], false),
            (&[("origin", "http://here:2")], false),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "here:1")], false),
            (&[], false),
        ];
        let bearer = format!("Bearer {TOKEN}");
        for (headers, passes) in cases {
            // The token does not replace the origin.
            let mut headers = headers.to_vec();
            headers.extend([("host", "here:1"), ("authorization", &bearer)]);
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
                let expected = passes.then_some(Authenticated(true)).ok_or(FOREIGN_ORIGIN);
                let checked = with_token(&ask(method, "/", &headers));
                assert_eq!(checked, expected, "{headers:?}");
            }
            // Any site may link to a page.
            assert_eq!(with_token(&get(&headers)), Ok(Authenticated(true)));
        }
    }

    #[test]
    fn with_a_token_only_probes_are_open() {
        let basic = |credentials: &str| format!("basic {}", BASE64_STANDARD.encode(credentials));
        let right = [
            format!("bearer  {TOKEN} "),
            basic(&format!("anyone:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ];
        let wrong = [
            String::new(),
            "Bearer".into(),
            format!("Bearer {TOKEN}0"),
            format!("Digest {TOKEN}"),
            TOKEN.into(),
            format!("Basic {TOKEN}"),
            basic(TOKEN),
            basic("anyone:"),
        ];
        for path in ["/", "/metrics", "/messages/1", "/healthz/", "/nothing"] {
            let given = |value| with_token(&ask(Method::GET, path, &[("authorization", value)]));
            for value in &right {
                assert_eq!(given(value), Ok(Authenticated(true)), "{path} {value}");
            }
            for value in &wrong {
                assert_eq!(given(value), Err(NO_RIGHT_TOKEN), "{path} {value}");
            }
            let absent = with_token(&ask(Method::GET, path, &[]));
            assert_eq!(absent, Err(NO_RIGHT_TOKEN), "{path}");
        }
        for path in ["/healthz", "/readyz"] {
            for headers in [&[][..], &[("authorization", wrong[1].as_str())]] {
                let checked = with_token(&ask(Method::GET, path, headers));
                assert_eq!(checked, Ok(Authenticated(false)), "{path}");
            }
        }
    }

    #[test]
    fn a_token_that_is_too_short_or_unfit_for_a_header_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (text, error) in [
            (" \n", "is empty"),
            ("0123456789abcde\n", "shorter than 16"),
            ("0123456789 abcdef", "other characters"),
            ("äääääääääääääääää", "other characters"),
        ] {
            fs::write(file.path(), text).expect("written");
            let refused = OpsToken::in_file(file.path()).expect_err("refused");
            assert!(refused.contains(error), "{refused}");
        }
        fs::write(file.path(), "0123456789abcdef\n").expect("written");
        assert!(OpsToken::in_file(file.path()).is_ok());
    }
}
