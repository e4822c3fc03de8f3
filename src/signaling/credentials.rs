//! Signing in: three ways, each for one app.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::token::{self, TokenClaims};
use crate::message::UserId;
use crate::secret::{SecretError, SecretSource, oddity};

/// How the API is told who calls.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// The account's key and secret: any sender.
    Basic {
        key: SecretSource,
        secret: SecretSource,
    },
    /// A token that somebody else makes: one sender.
    Token {
        token: SecretSource,
        /// The user that it was made for.
        uid: UserId,
        /// In which headers it goes.
        headers: TokenHeaders,
    },
    /// Tokens that this worker makes from the app certificate: any sender.
    Certificate {
        app_id: String,
        certificate: SecretSource,
        /// In which headers they go.
        headers: TokenHeaders,
        made: TokenCache,
    },
}

/// In which headers a token goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenHeaders {
    /// `x-agora-token` and `x-agora-uid`, as the Messaging REST API of 1.x documents.
    XAgora,
    /// `Authorization: agora token=…`, as the vendor's newer pages give for 007 tokens.
    Authorization,
}

/// Why a call can't be signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// A given token is for one sender, and the row has another one.
    #[error(
        "the sender is not {uid:?}, the only one whom the app's token (AGORA_TOKEN, AGORA_UID) lets send"
    )]
    OtherSender {
        /// The user of the token.
        uid: String,
    },
    /// A secret can't be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret has characters that no header can carry.
    #[error("the app's {0} has characters that an HTTP header can't carry")]
    NotAHeader(&'static str),
}

type Headers = Vec<(HeaderName, HeaderValue)>;

/// What signs in a call.
pub(crate) struct Authenticator {
    pub(crate) headers: Headers,
    /// The secrets that are in them, each by itself.
    pub(crate) secrets: Vec<SecretString>,
}

impl Credentials {
    /// Whether these credentials let a sender send at all.
    ///
    /// # Errors
    /// With a given token, for every other sender than the token's own.
    pub(crate) fn allow(&self, sender: &UserId) -> Result<(), CredentialError> {
        match self {
            Self::Token { uid, .. } if uid != sender => Err(CredentialError::OtherSender {
                uid: uid.as_str().to_owned(),
            }),
            Self::Basic { .. } | Self::Token { .. } | Self::Certificate { .. } => Ok(()),
        }
    }

    /// Reads the secrets once, to learn of a mistake before the work begins.
    ///
    /// # Errors
    /// Where one can't be had.
    pub(crate) fn read_secrets(&self) -> Result<(), SecretError> {
        match self {
            Self::Basic { key, secret } => key.read().and_then(|_| secret.read()),
            Self::Token { token, .. } => token.read(),
            Self::Certificate { certificate, .. } => certificate.read(),
        }
        .map(drop)
    }

    /// The variables whose values are probably mistakes, each with the reason.
    pub(crate) fn oddities(&self) -> Vec<(&'static str, &'static str)> {
        let odd = |name, source: &SecretSource| {
            let secret = source.read().ok()?;
            Some((name, oddity(secret.expose_secret())?))
        };
        let found = match self {
            Self::Basic { key, secret } => {
                [odd("AGORA_API_KEY", key), odd("AGORA_API_SECRET", secret)]
            }
            Self::Token { token, uid, .. } => [
                odd("AGORA_TOKEN", token),
                oddity(uid.as_str()).map(|why| ("AGORA_UID", why)),
            ],
            Self::Certificate { certificate, .. } => {
                [odd("AGORA_APP_CERTIFICATE", certificate), None]
            }
        };
        found.into_iter().flatten().collect()
    }

    /// What signs in a call of this sender.
    ///
    /// # Errors
    /// Where a secret can't be read, or the credentials are for another sender.
    pub(crate) fn authorize(&self, sender: &UserId) -> Result<Authenticator, CredentialError> {
        self.allow(sender)?;
        match self {
            Self::Basic { key, secret } => {
                let (key, secret) = (key.read()?, secret.read()?);
                let pair = STANDARD.encode(format!(
                    "{}:{}",
                    key.expose_secret(),
                    secret.expose_secret()
                ));
                let header = header(&format!("Basic {pair}"), "API key and secret")?;
                Ok(Authenticator {
                    headers: vec![(AUTHORIZATION, header)],
                    secrets: vec![key, secret, pair.into()],
                })
            }
            Self::Token {
                token,
                uid,
                headers,
            } => with_token(*headers, token.read()?, uid),
            Self::Certificate {
                app_id,
                certificate,
                headers,
                made,
            } => {
                let certificate = certificate.read()?;
                let token = made.token(app_id, sender, certificate.expose_secret());
                with_token(*headers, token.into(), sender)
            }
        }
    }

    /// Forgets tokens that were made: the API has refused one, or the certificate may have changed.
    pub(crate) fn discard_signed_tokens(&self) {
        if let Self::Certificate { made, .. } = self {
            made.clear();
        }
    }
}

fn with_token(
    kind: TokenHeaders,
    secret: SecretString,
    uid: &UserId,
) -> Result<Authenticator, CredentialError> {
    let token = secret.expose_secret();
    let headers = match kind {
        TokenHeaders::XAgora => vec![
            (
                HeaderName::from_static("x-agora-token"),
                header(token, "token")?,
            ),
            (
                HeaderName::from_static("x-agora-uid"),
                header(uid.as_str(), "uid")?,
            ),
        ],
        TokenHeaders::Authorization => {
            vec![(
                AUTHORIZATION,
                header(&format!("agora token={token}"), "token")?,
            )]
        }
    };
    Ok(Authenticator {
        headers,
        secrets: vec![secret],
    })
}

fn header(value: &str, what: &'static str) -> Result<HeaderValue, CredentialError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| CredentialError::NotAHeader(what))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Made tokens by sender, bounded. A token is renewed when half of its life is over.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    made: Mutex<SignedTokens>,
}

#[derive(Default)]
struct SignedTokens {
    /// What they were made from: another certificate makes them all worthless.
    certificate: String,
    by_sender: HashMap<UserId, SignedToken>,
}

impl std::fmt::Debug for SignedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignedTokens({})", self.by_sender.len())
    }
}

struct SignedToken {
    token: String,
    made_at: Instant,
}

/// How many senders' tokens are kept. Making one takes some 20 µs, so that starting over costs little.
const MAX_CACHED_TOKENS: usize = 10_000;
const RENEW_AFTER: Duration = Duration::from_secs(token::MAX_LIFETIME.as_secs() / 2);

impl TokenCache {
    fn token(&self, app_id: &str, sender: &UserId, certificate: &str) -> String {
        let now = Instant::now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.certificate != certificate {
            certificate.clone_into(&mut made.certificate);
            made.by_sender.clear();
        }
        if let Some(known) = made.by_sender.get(sender)
            && now.duration_since(known.made_at) < RENEW_AFTER
        {
            return known.token.clone();
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a token is dated by the host's clock, for the API to compare"
        )]
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let lifetime_s = u32::try_from(token::MAX_LIFETIME.as_secs()).unwrap_or(u32::MAX);
        let token = token::make(
            TokenClaims {
                app_id,
                user_id: sender.as_str(),
                issued_at_s: u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX),
                expires_in_s: lifetime_s,
                salt: rand::random_range(1..=99_999_999),
            },
            certificate,
        );
        if made.by_sender.len() >= MAX_CACHED_TOKENS {
            made.by_sender.clear();
        }
        made.by_sender.insert(
            sender.clone(),
            SignedToken {
                token: token.clone(),
                made_at: now,
            },
        );
        token
    }

    fn clear(&self) {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_sender
            .clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(name: &str) -> UserId {
        UserId::sender(name).expect("a sender")
    }

    fn shown(signed_in: &Authenticator) -> Vec<String> {
        signed_in
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect()
    }

    #[test]
    fn basic_is_for_any_sender() {
        let basic = Credentials::Basic {
            key: SecretSource::value("key"),
            secret: SecretSource::value("secret"),
        };
        assert_eq!(
            shown(&basic.authorize(&sender("a")).expect("headers")),
            ["authorization: Basic a2V5OnNlY3JldA=="]
        );
    }

    #[test]
    fn a_given_token_is_for_its_own_sender_alone() {
        let given = |headers| Credentials::Token {
            token: SecretSource::value("T"),
            uid: sender("u"),
            headers,
        };
        assert_eq!(
            shown(
                &given(TokenHeaders::XAgora)
                    .authorize(&sender("u"))
                    .expect("headers")
            ),
            ["x-agora-token: T", "x-agora-uid: u"]
        );
        assert_eq!(
            shown(
                &given(TokenHeaders::Authorization)
                    .authorize(&sender("u"))
                    .expect("headers")
            ),
            ["authorization: agora token=T"]
        );
        let error = given(TokenHeaders::XAgora)
            .authorize(&sender("v"))
            .err()
            .expect("another sender");
        assert!(matches!(error, CredentialError::OtherSender { .. }));
    }

    #[test]
    fn a_made_token_is_kept_for_its_sender() {
        let made = Credentials::Certificate {
            app_id: "id".into(),
            certificate: SecretSource::value("certificate"),
            headers: TokenHeaders::XAgora,
            made: TokenCache::default(),
        };
        let headers = |name| shown(&made.authorize(&sender(name)).expect("headers"));
        let first = headers("a");
        assert_eq!(first, headers("a"));
        assert_ne!(first, headers("b"));
        made.discard_signed_tokens();
        assert_ne!(first, headers("a"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let basic = Credentials::Basic {
            key: SecretSource::value("hush1"),
            secret: SecretSource::value("hush2"),
        };
        assert!(!format!("{basic:?}").contains("hush"));
    }
}
