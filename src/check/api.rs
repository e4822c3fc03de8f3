//! What the connections to the API say.

use super::Finding;
use crate::signaling::TriedHost;

const SUBJECT: &str = "api";

/// What came of connecting to an app's hosts, each by its base URL.
pub(crate) fn hosts(tried: &[TriedHost], is_probed: bool) -> Vec<Finding> {
    let some_answer = tried.iter().any(|host| host.connected.is_ok());
    tried
        .iter()
        .map(|tried| host(tried, some_answer, is_probed))
        .collect()
}

fn host(tried: &TriedHost, some_answer: bool, is_probed: bool) -> Finding {
    let url = &tried.base_url;
    let through = match &tried.proxy {
        Some(proxy) => format!(" through the proxy {proxy}"),
        None => String::new(),
    };
    match &tried.connected {
        Err(failure) if some_answer => Finding::warn(
            SUBJECT,
            format!("{url}: {failure}"),
            "another host of AGORA_BASE_URL can be reached, and is called instead",
        ),
        Err(failure) if tried.proxy.is_some() => Finding::fail(
            SUBJECT,
            format!("{url}: {failure}"),
            "if the error names the proxy, check HTTPS_PROXY and let the proxy connect this host; for a direct connection, list the host in NO_PROXY",
        ),
        Err(failure) => Finding::fail(
            SUBJECT,
            format!("{url}: {failure}"),
            "check AGORA_BASE_URL, the name service and the firewall; where the network demands a proxy, name it in HTTPS_PROXY",
        ),
        Ok(_) if is_in_the_clear(url) => Finding::warn(
            SUBJECT,
            format!(
                "{url}: connected{through} without TLS: credentials and messages go as they are"
            ),
            "write https:// in AGORA_BASE_URL",
        ),
        Ok(took) => {
            let how = if url.starts_with("https:") {
                "its certificate is good"
            } else {
                "without TLS, on this host"
            };
            let sign_in = if is_probed {
                ""
            } else {
                "; signing in is not tried (--probe does)"
            };
            Finding::ok(
                SUBJECT,
                format!(
                    "{url}: connected{through} in {:.1} ms, {how}{sign_in}",
                    took.as_secs_f64() * 1e3
                ),
            )
        }
    }
}

/// Whether what is said to a base URL can be read on its way.
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
        hosts(&tried, false)
            .into_iter()
            .map(|finding| finding.level)
            .collect()
    }

    #[test]
    fn one_host_that_can_be_reached_is_enough() {
        use Level::{Fail, Ok, Warn};
        let (a, b) = ("https://a.example", "https://b.example");
        assert_eq!(levels(&[(a, true)]), [Ok]);
        assert_eq!(levels(&[(a, false)]), [Fail]);
        assert_eq!(levels(&[(a, false), (b, true)]), [Warn, Ok]);
        assert_eq!(levels(&[(a, false), (b, false)]), [Fail, Fail]);
    }

    #[test]
    fn a_secret_that_would_go_over_a_network_in_the_clear_is_warned_of() {
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
