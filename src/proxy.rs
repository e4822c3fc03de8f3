//! Reads the proxy for the API and for the collector of traces from the usual environment variables.
//!
//! The worker ignores `HTTP_PROXY` in capitals, as curl does: a web server that starts programs sets this variable from a
//! header of the request.

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::config::UsageError;
use crate::secret;

/// A proxy on another host would connect to its own loopback address.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// The proxy for a target; none if the worker connects to the target directly.
///
/// Fails if the proxy can't be used. A direct connection would bypass the proxy that the operator wanted. The error does not
/// show the value, because the value may contain a password.
pub(crate) fn proxy_of(
    target: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Intercept>, UsageError> {
    let first = |names: &[&'static str]| {
        names.iter().find_map(|name| {
            let value = variable(name)?;
            Some((*name, secret::given(&value)?.to_owned()))
        })
    };
    let proxy = match target.scheme_str() {
        Some("https") => first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
        _ => first(&["http_proxy", "ALL_PROXY", "all_proxy"]),
    };
    let Some((variable, value)) = proxy else {
        return Ok(None);
    };
    let (_, no_proxy) = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let direct = Matcher::builder()
        .all("http://any")
        .no(format!("{LOOPBACK},{no_proxy}"))
        .build();
    if direct.intercept(target).is_none() {
        return Ok(None);
    }
    parse(&value, target).map(Some).map_err(|why| {
        let target = target.host().unwrap_or_default();
        UsageError(format!(
            "{variable} can't be used for {target}: {why}. Write it like http://proxy.example:3128, or list {target} in NO_PROXY"
        ))
    })
}

/// Checks a value before the matcher reads it, because the matcher accepts more. If a password has a character that a URL
/// reserves, the matcher takes a part of the password for the host. The matcher takes port 80 for a port that it can't read.
fn parse(value: &str, target: &Uri) -> Result<Intercept, &'static str> {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let address = rest.split_once('@').map_or(rest, |(_, address)| address);
    // The colons within an IPv6 address come before its bracket.
    let after_brackets = address.rsplit(']').next().unwrap_or(address);
    let port = after_brackets.split_once(':').map(|(_, port)| port);
    let has_valid_port = port.is_none_or(|port| port.parse().is_ok_and(|port: u16| port > 0));
    let is_clear =
        has_valid_port && !rest.contains(['/', '?', '#', '\\']) && !address.contains('@');
    let proxy = Matcher::builder().all(value).build().intercept(target);
    let proxy = proxy
        .filter(|proxy| is_clear && proxy.uri().host().is_some_and(|host| !host.is_empty()))
        .ok_or(
            "it is no URL of a proxy, or a character of its password has to be percent-encoded",
        )?;
    if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
        return Err("a SOCKS proxy is not supported, only one that takes HTTP CONNECT");
    }
    Ok(proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://api.agora.io/";

    fn found(given: &[(&str, &str)], target: &str) -> Result<Option<Intercept>, UsageError> {
        proxy_of(&target.parse().expect("a URL"), |name| {
            let (_, value) = given.iter().find(|(given, _)| *given == name)?;
            Some((*value).to_owned())
        })
    }

    fn proxy(given: &[(&str, &str)], target: &str) -> Option<String> {
        let proxy = found(given, target).expect("a proxy or none");
        proxy.map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_first_variable_of_the_targets_scheme_that_is_not_empty_counts() {
        let all = ("ALL_PROXY", "http://all:1/");
        let https = ("HTTPS_PROXY", "http://https:2");
        assert_eq!(proxy(&[], API), None);
        assert_eq!(proxy(&[all], API).expect("all"), "http://all:1/");
        let found = proxy(&[all, https], API).expect("https");
        assert_eq!(found, "http://https:2/");
        let lower = proxy(&[("HTTPS_PROXY", " "), ("https_proxy", "lower:3")], API);
        assert_eq!(lower.expect("lower"), "http://lower:3/");
        let plain = "http://api.test";
        assert_eq!(proxy(&[https], plain), None);
        assert_eq!(proxy(&[("http_proxy", "p:4")], API), None);
        let found = proxy(&[("http_proxy", "p:4")], plain).expect("http");
        assert_eq!(found, "http://p:4/");
    }

    #[test]
    fn http_proxy_in_capitals_is_ignored_because_a_request_can_set_it() {
        assert_eq!(
            proxy(&[("HTTP_PROXY", "http://evil")], "http://api.test"),
            None
        );
    }

    #[test]
    fn no_proxy_and_loopback_are_connected_directly() {
        let with = |no_proxy: &str, target: &str| {
            proxy(
                &[("ALL_PROXY", "http://p:1"), ("NO_PROXY", no_proxy)],
                target,
            )
            .is_some()
        };
        for (no_proxy, target) in [
            ("agora.io", API),
            (".agora.io", API),
            ("other.test, api.agora.io", API),
            ("*", API),
            ("10.0.0.0/8", "https://10.1.2.3"),
            ("", "http://127.0.0.1:8480"),
            ("", "http://localhost:4318"),
            ("", "https://[::1]:8443"),
        ] {
            assert!(!with(no_proxy, target), "{no_proxy:?} {target}");
        }
        for (no_proxy, target) in [
            ("", API),
            ("ora.io", API),
            ("sd-rtn.com", API),
            ("10.0.0.0/8", "https://11.1.2.3"),
        ] {
            assert!(with(no_proxy, target), "{no_proxy:?} {target}");
        }
    }

    #[test]
    fn a_value_that_another_reader_would_split_elsewhere_is_refused_and_never_shown() {
        for value in [
            "http://me:p@hush@proxy.test:3128",
            "http://me:pa/hush@proxy.test:3128",
            "http://me:1234/hush@proxy.test:3128",
            "http://me:pa?hush@proxy.test:3128",
            "http://me:pa#hush@proxy.test:3128",
            "http://me:hush@proxy.test:xx",
            "http://me:hush@proxy.test:99999",
            "http://me:hush@proxy.test:",
            "http://proxy.test:0",
            "http://[::1]:xx",
            "http://proxy.test:3128/path",
        ] {
            let error = found(&[("HTTPS_PROXY", value)], API).expect_err(value);
            let printed = format!("{error} {error:?}");
            assert!(!printed.contains("hush"), "{printed}");
        }
        for value in [
            "proxy.test",
            "http://proxy.test:3128/",
            "http://[2001:db8::1]:3128",
            "http://[2001:db8::1]",
            "https://me:p%40ss@proxy.test",
        ] {
            assert!(proxy(&[("HTTPS_PROXY", value)], API).is_some(), "{value}");
        }
    }

    #[test]
    fn a_user_name_and_password_are_sent_and_never_shown() {
        let given = [("HTTPS_PROXY", "http://me:hu%20sh@proxy.test:3128")];
        let proxy = found(&given, API).expect("a proxy").expect("one");
        assert_eq!(proxy.basic_auth().expect("a header"), "Basic bWU6aHUgc2g=");
        assert_eq!(proxy.uri(), "http://proxy.test:3128/");
        let printed = format!("{proxy:?}");
        assert!(
            !printed.contains("hu") && !printed.contains("bWU6"),
            "{printed}"
        );
    }

    #[test]
    fn an_unusable_proxy_is_an_error_without_its_value_and_not_a_direct_connection() {
        for bad in [
            "http://",
            "ftp://hush:1",
            "http://a b:hush",
            "socks5://hush:1",
            "/hush",
        ] {
            let found = found(&[("HTTPS_PROXY", bad)], API);
            let error = found.expect_err(bad).to_string();
            assert!(
                error.starts_with("HTTPS_PROXY can't be used for api.agora.io"),
                "{error}"
            );
            assert!(!error.contains("hush"), "{error}");
            assert_eq!(
                proxy(&[("HTTPS_PROXY", bad), ("NO_PROXY", "agora.io")], API),
                None
            );
        }
    }
}
