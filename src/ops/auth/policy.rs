//! Decides whether a request may pass. Pure.

use std::net::IpAddr;

use hyper::Method;
use hyper::http::uri::Authority;

pub(super) const LOGIN_PATH: &str = "/login";

/// The result of comparing a request's token or cookie with the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    /// The server has no token. It listens on loopback alone.
    NotNeeded,
    Absent,
    Wrong,
    Right,
    /// The token's file has no usable token at present.
    NoToken,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct RequestFacts<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    /// The `Host` header.
    pub(super) host: Option<&'a str>,
    /// The `Sec-Fetch-Site` header.
    pub(super) fetch_site: Option<&'a str>,
    /// The `Origin` header.
    pub(super) origin: Option<&'a str>,
    pub(super) credential: Credential,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The `Host` header is no name of loopback. Another site's DNS may point to this host.
    ForeignHost,
    /// Another site's page has sent the request.
    ForeignOrigin,
    SignIn,
    WrongToken,
    NoToken,
}

pub(super) fn check(facts: RequestFacts<'_>) -> Result<(), Refusal> {
    let is_local = facts.host.is_some_and(is_loopback_name);
    if facts.credential == Credential::NotNeeded && !is_local {
        return Err(Refusal::ForeignHost);
    }
    let changes = !matches!(*facts.method, Method::GET | Method::HEAD);
    if changes && !is_same_origin(facts) {
        return Err(Refusal::ForeignOrigin);
    }
    // Probes and the login page need no token.
    if matches!(facts.path, "/healthz" | "/readyz" | LOGIN_PATH)
        || facts.path.starts_with("/assets/")
    {
        return Ok(());
    }
    match facts.credential {
        Credential::NotNeeded | Credential::Right => Ok(()),
        Credential::Absent => Err(Refusal::SignIn),
        Credential::Wrong => Err(Refusal::WrongToken),
        Credential::NoToken => Err(Refusal::NoToken),
    }
}

/// Browsers set these headers. A page of another site can't forge them.
fn is_same_origin(facts: RequestFacts<'_>) -> bool {
    match (facts.fetch_site, facts.origin, facts.host) {
        (Some(site), ..) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        _ => false,
    }
}

/// True for `localhost` and loopback addresses. No name server outside of this host can give out such a name.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = address
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    !host.contains('@') && (name.eq_ignore_ascii_case("localhost") || is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: RequestFacts<'_> = RequestFacts {
        method: &Method::GET,
        path: "/",
        host: Some("localhost:9090"),
        fetch_site: None,
        origin: None,
        credential: Credential::NotNeeded,
    };
    const POST: RequestFacts<'_> = RequestFacts {
        method: &Method::POST,
        fetch_site: Some("same-origin"),
        ..GET
    };

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
            let facts = RequestFacts {
                host: Some(host),
                ..GET
            };
            assert_eq!(check(facts), Ok(()), "{host}");
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
                let facts = RequestFacts {
                    host: Some(host),
                    path,
                    ..GET
                };
                assert_eq!(check(facts), Err(Refusal::ForeignHost), "{host} {path}");
            }
        }
        assert_eq!(
            check(RequestFacts { host: None, ..GET }),
            Err(Refusal::ForeignHost)
        );
        // With a token, any name is right.
        let facts = RequestFacts {
            host: Some("evil.example"),
            credential: Credential::Right,
            ..GET
        };
        assert_eq!(check(facts), Ok(()));
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
                let facts = RequestFacts {
                    method,
                    fetch_site,
                    origin,
                    ..POST
                };
                let expected = if passes {
                    Ok(())
                } else {
                    Err(Refusal::ForeignOrigin)
                };
                assert_eq!(check(facts), expected, "{method} {fetch_site:?} {origin:?}");
            }
            // Any site may link to a page.
            let facts = RequestFacts {
                fetch_site,
                origin,
                ..GET
            };
            assert_eq!(check(facts), Ok(()));
        }
    }

    #[test]
    fn with_a_token_only_health_login_and_assets_are_open() {
        let result = |path, credential| {
            check(RequestFacts {
                path,
                credential,
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
            assert_eq!(
                result(path, Credential::Absent),
                Err(Refusal::SignIn),
                "{path}"
            );
            assert_eq!(
                result(path, Credential::Wrong),
                Err(Refusal::WrongToken),
                "{path}"
            );
            assert_eq!(
                result(path, Credential::NoToken),
                Err(Refusal::NoToken),
                "{path}"
            );
            assert_eq!(result(path, Credential::Right), Ok(()), "{path}");
        }
        for path in ["/healthz", "/readyz", "/login", "/assets/page.css"] {
            for credential in [Credential::Absent, Credential::Wrong, Credential::NoToken] {
                assert_eq!(result(path, credential), Ok(()), "{path}");
            }
        }
    }

    #[test]
    fn the_token_does_not_replace_the_origin() {
        let facts = RequestFacts {
            credential: Credential::Right,
            fetch_site: Some("cross-site"),
            ..POST
        };
        assert_eq!(check(facts), Err(Refusal::ForeignOrigin));
    }
}
