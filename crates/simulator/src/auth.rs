//! The credentials that the API accepts: API keys, given tokens, and tokens signed with an app certificate.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::token;

/// The accepted credentials. Without any, the API accepts every call.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// For basic authentication with any sender.
    pub basic: Vec<ApiKey>,
    /// Tokens that the API accepts without parsing them.
    pub tokens: Vec<GivenToken>,
    /// The API accepts 007 tokens that are signed with one of these, for their app and user.
    pub app_certificates: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    pub api_key: String,
    pub api_secret: String,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenToken {
    pub token: String,
    /// The only sender that may use the token.
    #[serde(default)]
    pub uid: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.describe()).finish()
    }
}

impl Credentials {
    /// The kinds of accepted credentials, without secrets.
    pub fn describe(&self) -> Vec<String> {
        let kinds = [
            ("API key and secret", self.basic.len()),
            ("given token", self.tokens.len()),
            ("token of an app certificate", self.app_certificates.len()),
        ];
        if kinds.iter().all(|&(_, count)| count == 0) {
            return vec!["everything".to_owned()];
        }
        kinds
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(kind, count)| format!("{kind} ({count})"))
            .collect()
    }

    /// Checks the credentials in the headers of a call. `now_s` is Unix time.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        app_id: &str,
        sender: &str,
        now_s: u64,
    ) -> bool {
        if *self == Self::default() {
            return true;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let uid = text("x-agora-uid");
        let is_for_sender = |token| {
            uid.is_none_or(|uid| uid == sender) && self.admits_token(token, app_id, sender, now_s)
        };
        // The API ignores the `x-agora-token` header of a call with `Authorization`.
        if !headers.contains_key(header::AUTHORIZATION) {
            return uid.is_some() && text("x-agora-token").is_some_and(is_for_sender);
        }
        let Some((scheme, value)) = text("authorization").and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => STANDARD.decode(value.trim()).is_ok_and(|pair| {
                let mut keys = self.basic.iter();
                keys.any(|key| pair == format!("{}:{}", key.api_key, key.api_secret).as_bytes())
            }),
            "agora" => {
                let token = value.trim().strip_prefix("token=");
                token.is_some_and(is_for_sender)
            }
            _ => false,
        }
    }

    fn admits_token(&self, token: &str, app_id: &str, sender: &str, now_s: u64) -> bool {
        let is_given = self.tokens.iter().any(|given| {
            given.token == token && given.uid.as_ref().is_none_or(|uid| uid == sender)
        });
        let is_signed = || {
            token::parse(token).is_some_and(|token| {
                let mut certificates = self.app_certificates.iter();
                certificates.any(|certificate| token.is_signed_with(certificate))
                    && token.admits(app_id, sender, now_s)
            })
        };
        is_given || is_signed()
    }
}
