//! Secrets: given as a value, or in a file that is read again when it changes. They never print.

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
    match text.trim() {
        "" => Err(SecretError::Empty(path.to_owned())),
        secret => Ok(SecretString::from(secret.to_owned())),
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
        assert!(matches!(
            SecretSource::file("/").read(),
            Err(SecretError::Unreadable { .. })
        ));
    }
}
