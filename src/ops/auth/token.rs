//! Who may ask: everybody on this host, or whoever has the token.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::secret::{SecretError, SecretSource};

/// The cookie of who has signed in.
pub(in crate::ops) const COOKIE_NAME: &str = "signaling_ops";
/// The answer to a wrong token comes later: who guesses has to wait for it, or to connect anew. It bounds no other's
/// tries, least of all those of who has the right one.
pub(in crate::ops) const WRONG_TOKEN_DELAY: Duration = Duration::from_secs(1);
/// The shortest token, in characters: 16 that are random can't be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// What makes a cookie of a token. It is the same in all processes, so that several behind one address take each
/// other's.
const COOKIE_LABEL: &[u8] = b"signaling-worker ops session 1";

#[derive(Debug, Clone, Default)]
pub(crate) enum Access {
    /// Whoever reaches a loopback address, by a loopback name: there is no token.
    #[default]
    Loopback,
    Token(Arc<OpsToken>),
}

/// The token, in a file that is read again when it changes.
#[derive(Debug)]
pub(crate) struct OpsToken {
    source: SecretSource,
    has_warned: AtomicBool,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file can't be read, or has nothing in it.
    #[error(
        "WORKER_OPS_TOKEN_FILE: {0}: write a token into it, like the output of `openssl rand -hex 32`"
    )]
    File(#[from] SecretError),
    #[error(
        "the token in WORKER_OPS_TOKEN_FILE is shorter than {MIN_TOKEN_CHARS} characters: write a longer one into it, like the output of `openssl rand -hex 32`"
    )]
    Short,
    /// It can't stand in a header.
    #[error(
        "the token in WORKER_OPS_TOKEN_FILE has other characters than ASCII letters, digits and punctuation: write another one into it, like the output of `openssl rand -hex 32`"
    )]
    Characters,
}

impl OpsToken {
    /// The token in a file.
    ///
    /// # Errors
    /// Where there is none in it now that can be used.
    pub(crate) fn in_file(path: impl Into<PathBuf>) -> Result<Self, TokenError> {
        let token = Self {
            source: SecretSource::file(path),
            has_warned: AtomicBool::new(false),
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

    /// The token as it is now; none if there is none that can be used. That is logged once.
    pub(in crate::ops) fn current(&self) -> Option<SecretString> {
        match self.read() {
            Ok(token) => {
                self.has_warned.store(false, Ordering::Relaxed);
                Some(token)
            }
            Err(error) => {
                if !self.has_warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        event = "ops_token_failed",
                        "the ops server lets nobody in: {error}"
                    );
                }
                None
            }
        }
    }
}

/// Whether somebody has the token. Takes as long for any wrong one.
pub(in crate::ops) fn is_token(given: &[u8], token: &SecretString) -> bool {
    let expected = mac(token.expose_secret().as_bytes())
        .finalize()
        .into_bytes();
    mac(given).verify_slice(&expected).is_ok()
}

/// The value of the cookie that stands for the token. The token can't be had from it.
pub(in crate::ops) fn cookie_value(token: &SecretString) -> String {
    use std::fmt::Write as _;
    let mut value = String::new();
    for byte in mac(token.expose_secret().as_bytes())
        .finalize()
        .into_bytes()
    {
        // Writing into a string does not fail.
        write!(value, "{byte:02x}").ok();
    }
    value
}

/// Whether a cookie stands for the token. Takes as long for any wrong one.
pub(in crate::ops) fn is_cookie(given: &str, token: &SecretString) -> bool {
    let compare = |value: &str| mac(value.as_bytes());
    let expected = compare(&cookie_value(token)).finalize().into_bytes();
    compare(given).verify_slice(&expected).is_ok()
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
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
    fn a_token_and_its_cookie_are_known_and_are_not_the_same() {
        let (right, wrong) = (token("0123456789abcdef"), token("0123456789abcdeF"));
        let cookie = cookie_value(&right);
        assert!(is_token(b"0123456789abcdef", &right) && is_cookie(&cookie, &right));
        assert!(!is_token(b"0123456789abcdef", &wrong) && !is_cookie(&cookie, &wrong));
        // Neither stands in for the other.
        assert!(!is_token(cookie.as_bytes(), &right) && !is_cookie("0123456789abcdef", &right));
        assert!(!is_token(b"", &right) && !is_cookie("", &right));
    }

    #[test]
    fn a_token_that_can_be_guessed_or_not_be_sent_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let read = |text: &str| {
            fs::write(file.path(), text).expect("written");
            OpsToken::in_file(file.path())
        };
        assert!(matches!(
            read(" \n"),
            Err(TokenError::File(SecretError::Empty(_)))
        ));
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
