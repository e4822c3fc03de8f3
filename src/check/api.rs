//! Judges the test connections to the hosts of the API.

use super::Finding;
use crate::signaling::TriedHost;

const SUBJECT: &str = "api";

pub(crate) fn hosts(tried: &[TriedHost]) -> Vec<Finding> {
    let some_connect = tried.iter().any(|host| host.connected.is_ok());
    tried
        .iter()
        .map(|tried| host(tried, some_connect))
        .collect()
}

fn host(tried: &TriedHost, some_connect: bool) -> Finding {
    let url = &tried.base_url;
    let took = match &tried.connected {
        Ok(took) => took.as_secs_f64() * 1e3,
        Err(failure) => {
            let found = format!("{url}: {failure}");
            if some_connect {
                let advice =
                    "the worker calls another host of AGORA_BASE_URL instead, which can be reached";
                return Finding::warn(SUBJECT, found, advice);
            }
            let advice = "check AGORA_BASE_URL, DNS and the firewall. If the network requires a proxy, set HTTPS_PROXY, and allow this host on the proxy; for a direct connection, list the host in NO_PROXY";
            return Finding::fail(SUBJECT, found, advice);
        }
    };
    let proxy = tried.proxy.as_ref();
    let through = proxy.map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"));
    let connected = format!("{url}: connected{through} in {took:.1} ms");
    if is_in_the_clear(url) {
        return Finding::warn(
            SUBJECT,
            format!("{connected} without TLS, so the network can read credentials and messages"),
            "write https:// in AGORA_BASE_URL",
        );
    }
    let how = if url.starts_with("https:") {
        "its certificate is valid"
    } else {
        "without TLS, on this host"
    };
    let found = format!("{connected}, {how}; only a message tests the credentials");
    Finding::ok(SUBJECT, found)
}

/// True if requests to this URL cross a network without encryption.
fn is_in_the_clear(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    !["127.", "localhost", "[::1]"]
        .iter()
        .any(|loopback| rest.starts_with(loopback))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::check::Level;
    use crate::signaling::CallFailure;

    fn levels(tried: &[(&str, bool)]) -> Vec<Level> {
        let tried: Vec<_> = tried
            .iter()
            .map(|(url, is_there)| {
                let connected = if *is_there {
                    Ok(Duration::from_millis(5))
                } else {
                    Err(CallFailure::NotSent("connection refused".into()))
                };
                TriedHost {
                    base_url: (*url).to_owned(),
                    proxy: None,
                    connected,
                }
            })
            .collect();
        hosts(&tried)
            .into_iter()
            .map(|finding| finding.level)
            .collect()
    }

    #[test]
    fn one_reachable_host_is_enough() {
        use Level::{Fail, Ok, Warn};
        let (a, b) = ("https://a.example", "https://b.example");
        assert_eq!(levels(&[(a, true)]), [Ok]);
        assert_eq!(levels(&[(a, false)]), [Fail]);
        assert_eq!(levels(&[(a, false), (b, true)]), [Warn, Ok]);
        assert_eq!(levels(&[(a, false), (b, false)]), [Fail, Fail]);
    }

    #[test]
    fn a_url_that_sends_secrets_in_the_clear_warns() {
        assert_eq!(levels(&[("http://api.example", true)]), [Level::Warn]);
        for local in [
            "http://127.0.0.1:8480",
            "http://localhost",
            "http://[::1]:1",
        ] {
            assert_eq!(levels(&[(local, true)]), [Level::Ok], "{local}");
        }
    }
}
