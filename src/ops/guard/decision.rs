//! Who gets through. Pure.

use std::net::IpAddr;

use hyper::Method;
use hyper::http::uri::Authority;

use crate::ops::login;

/// What a request has to show for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    Wrong,
    Right,
    /// There is no token at present that any could be compared with.
    NoToken,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) fetch_site: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    /// None where no token is needed.
    pub(super) credential: Option<Credential>,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
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
pub(super) fn decide(asked: Asked<'_>) -> Verdict {
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
}
