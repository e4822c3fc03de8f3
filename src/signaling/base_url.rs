//! Where the API is: URLs, or a word for the vendor's hosts.
//!
//! The vendor names `api.agora.io` as the primary domain for servers outside mainland China, `api.sd-rtn.com` for those
//! inside, and each as the other's alternate (<https://docs.agora.io/en/signaling/rest-api/overview>, "Ensure service
//! reliability"). Both lead to a region near the caller. The vendor's regional hosts, such as
//! `api-eu-west-1.agora.io`, are in no preset because which of them is adjacent depends on where the worker runs: an
//! operator who wants one names it after the preset.

use std::fmt;

use hyper::Uri;

const AGORA: &str = "https://api.agora.io";
const SD_RTN: &str = "https://api.sd-rtn.com";
/// The vendor's host for callers outside mainland China. Its alternate is no part of the default: messages and
/// credentials go to no domain that the operator has not named.
pub(crate) const DEFAULT_BASE_URL: &str = AGORA;
/// Words that stand in the place of URLs.
const PRESETS: [(&str, [&str; 2]); 2] = [("global", [AGORA, SD_RTN]), ("china", [SD_RTN, AGORA])];

/// Where the API is: scheme, host and port, and a path in front of the API's own if a gateway adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    uri: Uri,
    path_prefix: String,
}

/// Why a text is no base URL. The text is not shown: it may be a secret that got into the wrong variable, or have one
/// in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not a base URL of the API ({why}): write it like https://api.agora.io, or global or china for the vendor's hosts"
)]
pub(crate) struct InvalidBaseUrl {
    why: &'static str,
}

impl BaseUrl {
    /// Parses a list with commas. Each item is a base URL or the name of a preset. A host that comes twice counts once.
    ///
    /// # Errors
    /// Where an item is neither.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>, InvalidBaseUrl> {
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

    /// Parses a base URL. Only `https` protects messages and secrets; `http` is for loopback and test networks.
    ///
    /// # Errors
    /// Where it is not an http or https URL with a host, or has a query, or a user name or password in it.
    pub(super) fn parse(url: &str) -> Result<Self, InvalidBaseUrl> {
        let invalid = |why| InvalidBaseUrl { why };
        let uri: Uri = url.parse().map_err(|_| invalid("it can't be read"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("it does not begin with https:// or http://"));
        }
        let authority = uri.authority().ok_or_else(|| invalid("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("it has a user name or password in it"));
        }
        if authority.host().is_empty() {
            return Err(invalid("it names no host"));
        }
        if uri.query().is_some() {
            return Err(invalid("it has a query"));
        }
        let path_prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { uri, path_prefix })
    }

    /// The URL to connect to.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The path in front of the API's own, without a slash at its end.
    pub(super) fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// The host's name or address, and its port.
    pub(crate) fn address(&self) -> (&str, u16) {
        let default = if self.uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let port = self.uri.port_u16().unwrap_or(default);
        (self.uri.host().unwrap_or_default(), port)
    }

    /// The value of the header `Host`.
    pub(super) fn host(&self) -> &str {
        self.uri
            .authority()
            .map_or("", hyper::http::uri::Authority::as_str)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.uri.scheme_str().unwrap_or_default(),
            self.host(),
            self.path_prefix
        )
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
            let error = BaseUrl::parse_list(bad).expect_err(bad).to_string();
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
        assert!(!error.to_string().contains("hush"));
    }
}
