//! Secrets, as values or in files that may be replaced while the worker runs. `Debug` does not show them.
//!
//! One rule holds for every value from a variable, a flag, a configuration or a file. The worker trims invisible characters
//! from both ends, and treats an empty rest as not set. Without the rule, a line break at the end of a variable would make
//! the API reject credentials that look right.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::sanitize;

const MAX_SECRET_BYTES: u64 = 16 * 1024;

/// Soft hyphen, zero-width space, joiners, word joiner, byte order mark.
const INVISIBLE: [char; 6] = [
    '\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{2060}', '\u{feff}',
];

fn is_invisible(c: char) -> bool {
    c.is_whitespace() || c.is_control() || INVISIBLE.contains(&c)
}

/// Trims invisible characters from both ends. None if the rest is empty.
pub(crate) fn given(text: &str) -> Option<&str> {
    Some(text.trim_matches(is_invisible)).filter(|text| !text.is_empty())
}

/// Reads a variable of this process, and trims it. Keeps a value that is not UTF-8, so that its check reports the mistake.
pub(crate) fn variable(name: &str) -> Option<String> {
    given(&std::env::var_os(name)?.to_string_lossy()).map(str::to_owned)
}

/// Trims a path. A path that is not UTF-8 stays unchanged.
pub(crate) fn given_path(path: &Path) -> Option<&Path> {
    match path.to_str() {
        Some(text) => given(text).map(Path::new),
        None => Some(path),
    }
}

/// True for a value that can't be a secret: it has a control character, such as a line break between two secrets, or is not
/// UTF-8.
pub(crate) fn is_impossible(value: &str) -> bool {
    value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// True for a value that can't be an API key, secret, token or certificate. It has a quotation mark at an end, white space or
/// an invisible character inside, or a character other than ASCII.
pub(crate) fn is_odd(value: &str) -> bool {
    let quotes = ['"', '\'', '`'];
    value.starts_with(quotes)
        || value.ends_with(quotes)
        || value.contains(is_invisible)
        || !value.is_ascii()
}

#[derive(Debug)]
pub(crate) enum SecretSource {
    Value(SecretString),
    File(PathBuf),
}

/// A secret's file can't be read, or has no usable secret. The exit code is 1, because a file may be empty for a moment while
/// another program replaces it. With the exit code of a wrong setting, systemd would not start the service again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SecretError(pub(crate) String);

impl SecretSource {
    pub(crate) fn value(secret: impl Into<String>) -> Self {
        Self::Value(SecretString::from(secret.into()))
    }

    /// Returns the present secret. Reads a file again at each call, so that a new secret has an effect at once.
    pub(crate) fn read(&self) -> Result<SecretString, SecretError> {
        let path = match self {
            Self::Value(secret) => return Ok(secret.clone()),
            Self::File(path) => path,
        };
        let error = |why: &str| SecretError(format!("the secret's file {} {why}", path.display()));
        let text = sanitize::read_text_file(path, MAX_SECRET_BYTES)
            .map_err(|why| error(&format!("can't be read: {why}")))?;
        match given(&text) {
            None => Err(error("is empty")),
            Some(secret) if is_impossible(secret) => Err(error(
                "has more than one line, or control characters: write the secret alone into it",
            )),
            Some(secret) => Ok(SecretString::from(secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn invisible_characters_around_a_value_are_trimmed() {
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
    fn a_value_that_is_probably_a_mistake_is_odd() {
        for value in [
            "\"hush\"",
            "'hush'",
            "hush\"",
            "“hush”",
            "hu sh",
            "hu\u{200b}sh",
            "hüsh",
        ] {
            assert!(is_odd(value), "{value}");
        }
        for value in ["hush", "hu/sh+=", "hu\"sh", "0123456789abcdef"] {
            assert!(!is_odd(value), "{value}");
        }
    }

    #[test]
    fn a_file_is_read_without_the_white_space_around_its_secret() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "hush\n").expect("written");
        let secret = SecretSource::File(file.path().into())
            .read()
            .expect("a secret");
        assert_eq!(secret.expose_secret(), "hush");
    }

    #[test]
    fn a_file_that_can_not_be_a_secret_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = |path: &Path| {
            let error = SecretSource::File(path.into())
                .read()
                .expect_err("an error");
            error.to_string()
        };
        for (text, why) in [
            ("", "is empty"),
            (&"x".repeat(20_000), "has more than 16 KiB"),
            ("hush\nhush", "has more than one line"),
        ] {
            fs::write(file.path(), text).expect("written");
            assert!(error(file.path()).contains(why), "{why}");
        }
        assert!(error(Path::new("/")).contains("can't be read"));
    }
}
