//! The hosts of the API: URLs, or a word for the vendor's hosts.
//!
//! The vendor names `api.agora.io` as the primary domain for servers outside mainland China, `api.sd-rtn.com` for servers
//! inside, and each as the other's alternate (<https://docs.agora.io/en/signaling/rest-api/overview>).

use std::fmt;

use hyper::Uri;
use hyper::http::uri::Authority;

use crate::connector::{is_server, port};

const AGORA: &str = "https://api.agora.io";
const SD_RTN: &str = "https://api.sd-rtn.com";
/// The default has no alternate, because messages and credentials go to no domain that the operator has not named.
pub(crate) const DEFAULT_BASE_URL: &str = AGORA;
const PRESETS: [(&str, [&str; 2]); 2] = [("global", [AGORA, SD_RTN]), ("china", [SD_RTN, AGORA])];

/// Scheme, host and port, and a path in front of the API's own if a gateway adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl(Uri);

/// Does not show the text, because the text may be a secret in the wrong variable, or have a secret in it.
const NOT_A_BASE_URL: &str = "it is not a base URL of the API: write it like https://api.agora.io, without a user name, a password and a query, or global or china for the vendor's hosts";

impl BaseUrl {
    /// Parses base URLs and names of presets with commas between them. A host that stands twice in the list counts once.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, &'static str> {
        let mut base_urls = Vec::new();
        for item in list.split(',').map(str::trim) {
            let preset = PRESETS.iter().find(|(name, _)| *name == item);
            let urls = preset.map_or(std::slice::from_ref(&item), |(_, urls)| urls);
            for url in urls {
                let base_url = Self::parse(url)?;
                if !base_urls.contains(&base_url) {
                    base_urls.push(base_url);
                }
            }
        }
        Ok(base_urls)
    }

    /// Only `https` protects messages and secrets; `http` is for loopback and test networks.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Option<Uri> = url.trim_end_matches('/').parse().ok();
        let base_url = uri.filter(|uri| is_server(uri) && uri.query().is_none());
        base_url.map(Self).ok_or(NOT_A_BASE_URL)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// The path in front of the API's own, without a slash at its end.
    pub(super) fn path_prefix(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    pub(crate) fn address(&self) -> (&str, u16) {
        let host = self.0.host().unwrap_or_default();
        (host, port(&self.0))
    }

    /// The value of the header `Host`.
    pub(super) fn host(&self) -> &str {
        self.0.authority().map_or("", Authority::as_str)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}{}", self.host(), self.path_prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        let base_urls = BaseUrl::parse_list(text).expect("a list");
        base_urls.iter().map(BaseUrl::to_string).collect()
    }

    #[test]
    fn a_preset_stands_for_the_vendors_hosts_in_order() {
        assert_eq!(list("global"), [AGORA, SD_RTN]);
        assert_eq!(list("china"), [SD_RTN, AGORA]);
        assert_eq!(list(DEFAULT_BASE_URL), [AGORA]);
        let regional = "https://api-eu-west-1.agora.io";
        assert_eq!(
            list(&format!("global, {regional},{AGORA}/")),
            [AGORA, SD_RTN, regional]
        );
    }

    #[test]
    fn a_word_that_is_no_preset_is_refused_with_those_that_are() {
        for bad in ["europe", "Global", "global,", "", "global;china"] {
            let error = BaseUrl::parse_list(bad).expect_err(bad);
            assert!(error.contains("global or china"), "{error}");
        }
    }

    #[test]
    fn a_base_url_says_what_is_wrong_and_does_not_show_itself() {
        for bad in [
            "api.agora.io",
            "ftp://api.agora.io",
            "https://",
            "https://h/?q=1",
            "",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
        let error = BaseUrl::parse("https://me:hush@api.agora.io").expect_err("a password");
        assert!(!error.contains("hush"));
    }
}
