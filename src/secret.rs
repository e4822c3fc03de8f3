//! Secrets: given as a value, or in a file that is read again when it changes. They never print.
//!
//! One rule holds for every value from a variable, a flag, a configuration or a file. The worker trims invisible characters
//! from both ends, and treats an empty rest as not set. Without the rule, a line break at the end of a variable would make
//! the API refuse credentials that look right.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::SecretString;

use crate::sanitize::{self, FileError};

/// The most bytes of a secret, given itself or in a file.
pub(super) const MAX_SECRET_BYTES: u64 = 16 * 1024;
/// How long a file's content is used before the file is looked at again.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// Invisible characters beside white space and control characters: soft hyphen, zero-width space, joiners, word
/// joiner, byte order mark.
const INVISIBLE: [char; 6] = [
    '\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}',
];

fn is_invisible(c: char) -> bool {
    c.is_whitespace() || c.is_control() || INVISIBLE.contains(&c)
}

/// A value, trimmed of invisible characters; none if the rest is empty.
pub(crate) fn given(text: &str) -> Option<&str> {
    Some(text.trim_matches(is_invisible)).filter(|text| !text.is_empty())
}

/// A variable of this process, as [`given`]; none if the value is not UTF-8.
pub(crate) fn variable(name: &str) -> Option<String> {
    given(&std::env::var(name).ok()?).map(str::to_owned)
}

/// A path, trimmed likewise. A path that is not UTF-8 stays unchanged.
pub(crate) fn given_path(path: &Path) -> Option<&Path> {
    match path.to_str() {
        Some(text) => given(text).map(Path::new),
        None => Some(path),
    }
}

/// True if a value has characters inside that no secret can have: a line break, as between two secrets, or bytes that are
/// not UTF-8.
pub(crate) fn is_impossible(value: &str) -> bool {
    value
        .chars()
        .any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// The reason why a value is probably a mistake, although the worker can use the value.
pub(crate) fn oddity(value: &str) -> Option<&'static str> {
    let is_quoted = ['"', '\'', '`', '“', '‘', '«']
        .iter()
        .any(|quote| value.starts_with(*quote))
        || ['"', '\'', '`', '”', '’', '»']
            .iter()
            .any(|quote| value.ends_with(*quote));
    if is_quoted {
        Some("has a quotation mark at its beginning or its end")
    } else if value.chars().any(is_invisible) {
        Some("has white space or an invisible character inside")
    } else if !value.is_ascii() {
        Some("has other characters than ASCII")
    } else {
        None
    }
}

/// Where a secret comes from.
pub(crate) enum SecretSource {
    Value(SecretString),
    /// It stands in a file, which may be replaced while the worker runs.
    File(SecretFile),
}

/// A file that holds a secret, and what it held last.
pub(crate) struct SecretFile {
    path: PathBuf,
    last: Mutex<Option<(Instant, SecretString)>>,
}

/// Why a secret can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file can't be read.
    #[error("the secret's file {path} can't be read: {source}", path = .path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file has nothing in it.
    #[error("the secret's file {path} is empty", path = .0.display())]
    Empty(PathBuf),
    /// The file is too large for a secret.
    #[error("the secret's file {path} has more than 16 KiB: is it the right file?", path = .0.display())]
    TooLong(PathBuf),
    #[error("the secret's file {path} has more than one line, or control characters: write the secret alone into it", path = .0.display())]
    Impossible(PathBuf),
}

impl SecretSource {
    /// A secret that is given itself.
    pub(crate) fn value(secret: impl Into<String>) -> Self {
        Self::Value(SecretString::from(secret.into()))
    }

    /// A secret in a file, without the white space around it.
    pub(crate) fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(SecretFile {
            path: path.into(),
            last: Mutex::new(None),
        })
    }

    /// The secret as it is now: a file's content is at most a second old.
    ///
    /// # Errors
    /// Where the file can't be read, is empty or far too long.
    pub(crate) fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(file) => file.read(),
        }
    }
}

impl SecretFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<SecretString, SecretError> {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, secret)) = &*last
            && now.duration_since(*read_at) < RECHECK_AFTER
        {
            return Ok(secret.clone());
        }
        let secret = read_file(&self.path)?;
        *last = Some((now, secret.clone()));
        Ok(secret)
    }
}

fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    let text = sanitize::read_text_file(path, MAX_SECRET_BYTES).map_err(|error| match error {
        FileError::Io(source) => SecretError::Unreadable {
            path: path.to_owned(),
            source,
        },
        FileError::TooLong { .. } => SecretError::TooLong(path.to_owned()),
    })?;
    match given(&text) {
        None => Err(SecretError::Empty(path.to_owned())),
        Some(secret) if is_impossible(secret) => Err(SecretError::Impossible(path.to_owned())),
        Some(secret) => Ok(SecretString::from(secret.to_owned())),
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("***"),
            Self::File(file) => write!(f, "*** in {}", file.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn what_nobody_sees_around_a_value_does_not_belong_to_it() {
        for text in [
            "hush",
            "hush\n",
            "hush\r\n",
            " \thush ",
            "\u{feff}hush",
            "hush\u{a0}",
            "\u{200b}hush\u{200b}\n",
            "hush\0",
        ] {
            assert_eq!(given(text), Some("hush"), "{text:?}");
        }
        for text in ["", " ", "\r\n", "\u{feff}"] {
            assert_eq!(given(text), None, "{text:?}");
        }
        assert_eq!(given_path(Path::new("/run/s\r")), Some(Path::new("/run/s")));
        assert_eq!(given_path(Path::new("\n")), None);
    }

    #[test]
    fn a_value_that_is_probably_not_what_was_meant_is_odd() {
        for value in [
            "\"hush\"",
            "'hush'",
            "hush\"",
            "“hush”",
            "hu sh",
            "hu\u{200b}sh",
            "hüsh",
        ] {
            assert!(oddity(value).is_some(), "{value}");
        }
        for value in ["hush", "hu/sh+=", "hu\"sh", "0123456789abcdef"] {
            assert_eq!(oddity(value), None, "{value}");
        }
    }

    #[test]
    fn a_file_is_read_without_the_white_space_around_its_secret() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "hush\n").expect("written");
        let secret = SecretSource::file(file.path()).read().expect("a secret");
        assert_eq!(secret.expose_secret(), "hush");
    }

    #[test]
    fn a_file_that_can_not_be_a_secret_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(
            SecretSource::file(file.path()).read(),
            Err(SecretError::Empty(_))
        ));
        fs::write(file.path(), "x".repeat(20_000)).expect("written");
        assert!(matches!(
            SecretSource::file(file.path()).read(),
            Err(SecretError::TooLong(_))
        ));
        fs::write(file.path(), "hush\nhush").expect("written");
        assert!(matches!(
            SecretSource::file(file.path()).read(),
            Err(SecretError::Impossible(_))
        ));
        assert!(matches!(
            SecretSource::file("/").read(),
            Err(SecretError::Unreadable { .. })
        ));
    }
}
