//! Who may call: API key and secret, given tokens, and tokens made from an app certificate.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::token;

/// The sign-ins that are accepted. With none given, every call is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// API keys and their secrets, for basic authentication with any sender.
    pub basic: Vec<ApiKey>,
    /// Tokens that are accepted without being looked into.
    pub tokens: Vec<GivenToken>,
    /// App certificates: a 007 token that one of them has signed is accepted for its app and its user.
    pub app_certificates: Vec<String>,
}

/// What basic authentication consists of.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The API key: the user name.
    pub api_key: String,
    /// The API secret: the password.
    pub api_secret: String,
}

/// A token that is accepted as it stands.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenToken {
    pub token: String,
    /// The only user it is for.
    #[serde(default)]
    pub uid: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.accepts()).finish()
    }
}

impl Credentials {
    /// What is accepted, in words that tell no secret.
    pub fn accepts(&self) -> Vec<String> {
        let kinds = [
            ("API key and secret", self.basic.len()),
            ("given token", self.tokens.len()),
            ("token of an app certificate", self.app_certificates.len()),
        ];
        let accepts: Vec<_> = kinds
            .into_iter()
            .filter(|&(_, count)| count > 0)
            .map(|(kind, count)| format!("{kind} ({count})"))
            .collect();
        if accepts.is_empty() {
            vec!["everything".to_owned()]
        } else {
            accepts
        }
    }

    /// Whether a call of `sender` for `app_id` with these headers is signed in, at `now_s` seconds of Unix time.
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
        match SignIn::read(headers) {
            Some(SignIn::Basic { pair }) => self
                .basic
                .iter()
                .any(|key| format!("{}:{}", key.api_key, key.api_secret) == pair),
            Some(SignIn::Token { token, uid }) => {
                uid.is_none_or(|uid| uid == sender)
                    && (self.is_given(token, sender) || self.is_made(token, app_id, sender, now_s))
            }
            None => false,
        }
    }

    fn is_given(&self, token: &str, sender: &str) -> bool {
        self.tokens
            .iter()
            .filter(|given| given.token == token)
            .any(|given| given.uid.as_ref().is_none_or(|uid| uid == sender))
    }

    fn is_made(&self, token: &str, app_id: &str, sender: &str, now_s: u64) -> bool {
        if self.app_certificates.is_empty() {
            return false;
        }
        token::parse(token).is_ok_and(|token| {
            self.app_certificates
                .iter()
                .any(|certificate| token.is_signed_with(certificate))
                && token.admits(app_id, sender, now_s)
        })
    }
}

/// The sign-in that a request presents.
#[derive(Debug, PartialEq, Eq)]
enum SignIn<'a> {
    Basic {
        pair: String,
    },
    Token {
        token: &'a str,
        uid: Option<&'a str>,
    },
}

impl<'a> SignIn<'a> {
    /// `Authorization` decides where it is given; the `x-agora-` headers count only without it, and only together.
    fn read(headers: &'a HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if headers.contains_key(header::AUTHORIZATION) {
            let (scheme, value) = text(header::AUTHORIZATION.as_str())?.split_once(' ')?;
            return match scheme.to_ascii_lowercase().as_str() {
                "basic" => {
                    let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
                    Some(Self::Basic { pair })
                }
                "agora" => {
                    let token = value.trim().strip_prefix("token=")?;
                    // The uid is optional beside it, and binding where it is given.
                    let uid = text("x-agora-uid");
                    Some(Self::Token { token, uid })
                }
                _ => None,
            };
        }
        Some(Self::Token {
            token: text("x-agora-token")?,
            uid: Some(text("x-agora-uid")?),
        })
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
