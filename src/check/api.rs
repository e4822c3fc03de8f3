//! Connects to the hosts of the API, and judges the connections.

use std::time::Instant;

use hyper::Uri;

use super::Finding;
use crate::connector::is_loopback;
use crate::signaling::{CallFailure, Client};

const SUBJECT: &str = "api";

/// The URL of a host, and a description of the connection.
type Tried = (String, Result<String, CallFailure>);

pub(crate) async fn hosts(client: &Client) -> Vec<Finding> {
    let mut tried = Vec::new();
    for pool in &client.pools {
        let begun = Instant::now();
        let connected = pool.get().await.map(|_| {
            let took_ms = begun.elapsed().as_secs_f64() * 1e3;
            match &pool.proxy {
                Some(proxy) => format!("through the proxy {} in {took_ms:.1} ms", proxy.uri()),
                None => format!("in {took_ms:.1} ms"),
            }
        });
        tried.push((pool.base_url.to_string(), connected));
    }
    judge(&tried)
}

fn judge(tried: &[Tried]) -> Vec<Finding> {
    let some_connect = tried.iter().any(|(_, connected)| connected.is_ok());
    let findings = tried.iter().map(|tried| host(tried, some_connect));
    findings.collect()
}

fn host((url, connected): &Tried, some_connect: bool) -> Finding {
    let connected = match connected {
        Ok(description) => format!("{url}: connected {description}"),
        Err(failure) => {
            let found = format!("{url}: {failure}");
            if some_connect {
                let advice = "make the host reachable, or remove it from AGORA_BASE_URL: the worker calls another host until then";
                return Finding::warn(SUBJECT, found, advice);
            }
            let advice = "check AGORA_BASE_URL, DNS and the firewall. If the network requires a proxy, set HTTPS_PROXY, and allow this host on the proxy; for a direct connection, list the host in NO_PROXY";
            return Finding::fail(SUBJECT, found, advice);
        }
    };
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
    let url: Uri = url.parse().unwrap_or_default();
    let is_local = |url: &Uri| url.host().is_some_and(is_loopback);
    url.scheme_str() == Some("http") && !is_local(&url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn levels(tried: &[(&str, bool)]) -> Vec<Level> {
        let tried = tried.iter().map(|(url, is_there)| {
            let took = is_there.then(|| "in 5.0 ms".to_owned());
            let refused = || CallFailure::NotSent("connection refused".into());
            ((*url).to_owned(), took.ok_or_else(refused))
        });
        let findings = judge(&tried.collect::<Vec<_>>()).into_iter();
        findings.map(|finding| finding.level).collect()
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
        for remote in ["http://api.example", "http://localhost.example:80"] {
            assert_eq!(levels(&[(remote, true)]), [Level::Warn], "{remote}");
        }
        for local in [
            "http://127.0.0.1:8480",
            "http://localhost",
            "http://[::1]:1",
        ] {
            assert_eq!(levels(&[(local, true)]), [Level::Ok], "{local}");
        }
    }
}
