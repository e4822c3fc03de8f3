//! Who gets through. Pure.

use std::net::IpAddr;

use hyper::Method;
use hyper::http::uri::Authority;

pub(in crate::ops) const LOGIN_PATH: &str = "/login";

/// What a request has to show for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Credential {
    None,
    Wrong,
    Right,
    /// There is no token at present that any could be compared with.
    NoToken,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct RequestFacts<'a> {
    pub(in crate::ops) method: &'a Method,
    pub(in crate::ops) path: &'a str,
    pub(in crate::ops) host: Option<&'a str>,
    pub(in crate::ops) fetch_site: Option<&'a str>,
    pub(in crate::ops) origin: Option<&'a str>,
    /// None where no token is needed.
    pub(in crate::ops) credential: Option<Credential>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Decision {
    Pass,
    SignIn,
    WrongToken,
    NoToken,
    /// The name by which the server was called is none of this host alone.
    ForeignHost,
    /// Another site's page has sent it.
    ForeignOrigin,
}

/// Decides on a request. Pure.
pub(in crate::ops) fn decide(facts: RequestFacts<'_>) -> Decision {
    if facts.credential.is_none() && !facts.host.is_some_and(is_loopback_name) {
        return Decision::ForeignHost;
    }
    let reads = matches!(*facts.method, Method::GET | Method::HEAD);
    if !reads && !is_same_origin(facts) {
        return Decision::ForeignOrigin;
    }
    if is_open(facts.path) {
        return Decision::Pass;
    }
    match facts.credential {
        None | Some(Credential::Right) => Decision::Pass,
        Some(Credential::None) => Decision::SignIn,
        Some(Credential::Wrong) => Decision::WrongToken,
        Some(Credential::NoToken) => Decision::NoToken,
    }
}

/// What says nothing but that the worker is there and well, and what the login page needs.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | LOGIN_PATH) || path.starts_with("/assets/")
}

/// A page of another site may be able to send a request here, but not to say that it comes from here.
fn is_same_origin(facts: RequestFacts<'_>) -> bool {
    match (facts.fetch_site, facts.origin, facts.host) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const GET: RequestFacts<'_> = RequestFacts {
        method: &Method::GET,
        path: "/",
        host: Some("localhost:9090"),
        fetch_site: None,
        origin: None,
        credential: None,
    };
    const POST: RequestFacts<'_> = RequestFacts {
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
            let facts = RequestFacts {
                host: Some(host),
                ..GET
            };
            assert_eq!(decide(facts), Decision::Pass, "{host}");
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
                assert_eq!(decide(facts), Decision::ForeignHost, "{host} {path}");
            }
        }
        assert_eq!(
            decide(RequestFacts { host: None, ..GET }),
            Decision::ForeignHost
        );
        // With a token, names do not matter.
        let facts = RequestFacts {
            host: Some("evil.example"),
            credential: Some(Credential::Right),
            ..GET
        };
        assert_eq!(decide(facts), Decision::Pass);
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
                    Decision::Pass
                } else {
                    Decision::ForeignOrigin
                };
                assert_eq!(
                    decide(facts),
                    expected,
                    "{method} {fetch_site:?} {origin:?}"
                );
            }
            // What only reads may be linked to from anywhere.
            let facts = RequestFacts {
                fetch_site,
                origin,
                ..GET
            };
            assert_eq!(decide(facts), Decision::Pass);
        }
    }

    #[test]
    fn with_a_token_everything_but_health_and_the_login_needs_it() {
        let ask = |path, credential| {
            decide(RequestFacts {
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
            assert_eq!(ask(path, Credential::None), Decision::SignIn, "{path}");
            assert_eq!(ask(path, Credential::Wrong), Decision::WrongToken, "{path}");
            assert_eq!(ask(path, Credential::NoToken), Decision::NoToken, "{path}");
            assert_eq!(ask(path, Credential::Right), Decision::Pass, "{path}");
        }
        for path in ["/healthz", "/readyz", "/login", "/assets/page.css"] {
            for credential in [Credential::None, Credential::Wrong, Credential::NoToken] {
                assert_eq!(ask(path, credential), Decision::Pass, "{path}");
            }
        }
    }

    #[test]
    fn the_token_does_not_replace_the_origin() {
        let facts = RequestFacts {
            credential: Some(Credential::Right),
            fetch_site: Some("cross-site"),
            ..POST
        };
        assert_eq!(decide(facts), Decision::ForeignOrigin);
    }
}
