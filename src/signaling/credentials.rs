//! Authentication of calls: three kinds of credentials, each for one app.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use strum::EnumString;

use super::token::{self, TokenClaims};
use crate::secret::{SecretError, SecretSource};

const X_AGORA_TOKEN: HeaderName = HeaderName::from_static("x-agora-token");
const X_AGORA_UID: HeaderName = HeaderName::from_static("x-agora-uid");

#[derive(Debug)]
pub(crate) enum Credentials {
    /// The account's key and secret, for any sender.
    Basic {
        key: SecretSource,
        secret: SecretSource,
    },
    /// A token that another program makes, for one sender.
    Token {
        token: SecretSource,
        uid: String,
        headers: TokenHeaders,
    },
    /// The app certificate, from which the worker makes a token for each call, for any sender.
    Certificate {
        app_id: String,
        certificate: SecretSource,
        headers: TokenHeaders,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "kebab-case")]
pub(crate) enum TokenHeaders {
    /// `x-agora-token` and `x-agora-uid`, as in the documentation of the Messaging REST API 1.x.
    XAgora,
    /// `Authorization: agora token=…`, as in the vendor's newer pages about 007 tokens.
    Authorization,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error(
        "the sender is not {uid:?}, the only sender of the app's token (AGORA_TOKEN, AGORA_UID)"
    )]
    OtherSender { uid: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The configuration and the table allow no such value.
    #[error("HTTP can't carry a character of AGORA_TOKEN, AGORA_UID or AGORA_BASE_URL: remove it")]
    NotAHeader,
}

impl Credentials {
    /// Fails for a sender who can't use these credentials.
    pub(crate) fn allow(&self, sender: &str) -> Result<(), CredentialError> {
        match self {
            Self::Token { uid, .. } if uid != sender => {
                Err(CredentialError::OtherSender { uid: uid.clone() })
            }
            Self::Basic { .. } | Self::Token { .. } | Self::Certificate { .. } => Ok(()),
        }
    }

    /// Adds the headers of a call. Returns each secret in them, for the echo filter.
    pub(crate) fn sign(
        &self,
        sender: &str,
        headers: &mut HeaderMap,
    ) -> Result<Vec<SecretString>, CredentialError> {
        self.allow(sender)?;
        let (token, kind) = match self {
            Self::Basic { key, secret } => {
                let (key, secret) = (key.read()?, secret.read()?);
                let pair = format!("{}:{}", key.expose_secret(), secret.expose_secret());
                let pair = STANDARD.encode(pair);
                headers.insert(AUTHORIZATION, header(&format!("Basic {pair}"))?);
                return Ok(vec![key, secret, pair.into()]);
            }
            Self::Token {
                token,
                headers: kind,
                ..
            } => (token.read()?, kind),
            Self::Certificate {
                app_id,
                certificate,
                headers: kind,
            } => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a token has the time of the host's clock, for the API to compare"
                )]
                let now = SystemTime::now();
                let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                let claims = TokenClaims {
                    app_id,
                    user_id: sender,
                    issued_at_s: u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX),
                    expires_in_s: token::MAX_LIFETIME_S,
                    salt: rand::random_range(1..=99_999_999),
                };
                let token = token::make(claims, certificate.read()?.expose_secret());
                (token.into(), kind)
            }
        };
        let text = token.expose_secret();
        match kind {
            TokenHeaders::XAgora => {
                headers.insert(X_AGORA_TOKEN, header(text)?);
                headers.insert(X_AGORA_UID, header(sender)?);
            }
            TokenHeaders::Authorization => {
                headers.insert(AUTHORIZATION, header(&format!("agora token={text}"))?);
            }
        }
        Ok(vec![token])
    }
}

fn header(value: &str) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| CredentialError::NotAHeader)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(credentials: &Credentials, sender: &str) -> Option<Vec<String>> {
        let mut headers = HeaderMap::new();
        credentials.sign(sender, &mut headers).ok()?;
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().expect("text"))
        };
        Some(headers.iter().map(text).collect())
    }

    #[test]
    fn basic_is_for_any_sender_and_prints_no_secret() {
        let basic = Credentials::Basic {
            key: SecretSource::value("key"),
            secret: SecretSource::value("secret"),
        };
        let expected = ["authorization: Basic a2V5OnNlY3JldA=="];
        assert_eq!(headers(&basic, "a").expect("headers"), expected);
        let printed = format!("{basic:?}");
        assert!(
            !printed.contains("\"key\"") && !printed.contains("\"secret\""),
            "{printed}"
        );
        assert_eq!(printed.matches("[REDACTED]").count(), 2, "{printed}");
    }

    #[test]
    fn a_given_token_is_for_its_own_sender_alone() {
        for (kind, expected) in [
            (
                TokenHeaders::XAgora,
                &["x-agora-token: T", "x-agora-uid: u"][..],
            ),
            (
                TokenHeaders::Authorization,
                &["authorization: agora token=T"],
            ),
        ] {
            let given = Credentials::Token {
                token: SecretSource::value("T"),
                uid: "u".into(),
                headers: kind,
            };
            assert_eq!(headers(&given, "u").expect("headers"), expected);
            assert_eq!(headers(&given, "v"), None);
        }
    }
}
