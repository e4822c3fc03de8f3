//! The token that requests need, and the cookie that is derived from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::secret::{SecretError, SecretSource};
use crate::telemetry::failure_log::FailureLog;

pub(super) const COOKIE_NAME: &str = "signaling_ops";
/// Slows down guessing on one connection.
pub(super) const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);
/// An attacker can't guess 16 random characters.
const MIN_TOKEN_CHARS: usize = 16;
/// Identical on all workers, so that workers behind one address accept each other's cookies.
const COOKIE_LABEL: &[u8] = b"signaling-worker ops session 1";

#[derive(Debug, Clone, Default)]
pub(crate) enum Access {
    /// Requests need no token. They must use a loopback name.
    #[default]
    Loopback,
    Token(Arc<OpsToken>),
}

/// The token, in a file that is read again when it changes.
#[derive(Debug)]
pub(crate) struct OpsToken {
    source: SecretSource,
    failures: FailureLog,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(
        "WORKER_OPS_TOKEN_FILE: {0}: write a token into it, like the output of `openssl rand -hex 32`"
    )]
    File(#[from] SecretError),
    #[error(
        "the token in WORKER_OPS_TOKEN_FILE is shorter than {MIN_TOKEN_CHARS} characters: write a longer one into it, like the output of `openssl rand -hex 32`"
    )]
    Short,
    #[error(
        "the token in WORKER_OPS_TOKEN_FILE has other characters than ASCII letters, digits and punctuation: write another one into it, like the output of `openssl rand -hex 32`"
    )]
    Characters,
}

impl OpsToken {
    /// # Errors
    /// If the file has no usable token.
    pub(crate) fn in_file(path: impl Into<PathBuf>) -> Result<Self, TokenError> {
        let token = Self {
            source: SecretSource::File(path.into()),
            failures: FailureLog::default(),
        };
        token.read()?;
        Ok(token)
    }

    fn read(&self) -> Result<SecretString, TokenError> {
        let token = self.source.read()?;
        let text = token.expose_secret();
        if text.chars().count() < MIN_TOKEN_CHARS {
            return Err(TokenError::Short);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        Ok(token)
    }

    /// The file's present token. None, with one log line, while the file has no usable token.
    pub(super) fn current(&self) -> Option<SecretString> {
        match self.read() {
            Ok(token) => {
                self.failures.succeeded();
                Some(token)
            }
            Err(error) => {
                if self.failures.failed() {
                    tracing::warn!(
                        event = "ops_token_failed",
                        "the ops server refuses all requests that need the token: {error}"
                    );
                }
                None
            }
        }
    }
}

/// Compares in constant time.
pub(super) fn is_token(given: &[u8], token: &SecretString) -> bool {
    let expected = mac(token.expose_secret().as_bytes())
        .finalize()
        .into_bytes();
    mac(given).verify_slice(&expected).is_ok()
}

/// The token can't be computed from the cookie.
pub(super) fn cookie_value(token: &SecretString) -> String {
    let mac = mac(token.expose_secret().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// Compares in constant time.
pub(super) fn is_cookie(given: &str, token: &SecretString) -> bool {
    let expected = mac(token.expose_secret().as_bytes());
    let given = BASE64_URL_SAFE_NO_PAD.decode(given);
    given.is_ok_and(|given| expected.verify_slice(&given).is_ok())
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(COOKIE_LABEL);
    mac
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn token(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[test]
    fn a_token_and_its_cookie_do_not_replace_each_other() {
        let (right, wrong) = (token("0123456789abcdef"), token("0123456789abcdeF"));
        let cookie = cookie_value(&right);
        assert!(is_token(b"0123456789abcdef", &right) && is_cookie(&cookie, &right));
        assert!(!is_token(b"0123456789abcdef", &wrong) && !is_cookie(&cookie, &wrong));
        assert!(!is_token(cookie.as_bytes(), &right) && !is_cookie("0123456789abcdef", &right));
        assert!(!is_token(b"", &right) && !is_cookie("", &right));
    }

    #[test]
    fn a_token_that_is_too_short_or_unfit_for_a_header_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let read = |text: &str| {
            fs::write(file.path(), text).expect("written");
            OpsToken::in_file(file.path())
        };
        assert!(matches!(read(" \n"), Err(TokenError::File(_))));
        assert!(matches!(read("0123456789abcde\n"), Err(TokenError::Short)));
        assert!(matches!(
            read("0123456789 abcdef"),
            Err(TokenError::Characters)
        ));
        assert!(matches!(
            read("äääääääääääääääää"),
            Err(TokenError::Characters)
        ));
        assert!(read("0123456789abcdef\n").is_ok());
    }
}
