//! What comes from outside, as it may be kept and shown: texts and files with an end, and mistakes told without the
//! values that they are about.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The longest name that this process gives itself or its user, in characters.
pub(crate) const MAX_NAME_CHARS: usize = 128;
/// The longest description of a mistake in an input, in bytes.
const MAX_MISTAKE_BYTES: usize = 500;
/// The longest name of a setting or column that is shown although nobody knows it.
const MAX_SHOWN_KEY_BYTES: usize = 32;

/// A text without control characters, cut to so many characters. Postgres refuses NUL, and a line break would begin
/// a line of the log.
pub(crate) fn text(text: &str, max_chars: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(max_chars)
        .collect()
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The system says no, or it is no regular file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is more in it than was asked for.
    #[error("it has more than {} KiB: is it the right file?", .max_bytes / 1024)]
    TooLong { max_bytes: u64 },
}

/// Reads a regular file of at most so many bytes. A FIFO would keep the reader waiting for as long as nobody writes,
/// and a device has no end.
///
/// # Errors
/// Where it can't be read, is something else than a file, or is longer.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, FileError> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file").into());
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(FileError::TooLong { max_bytes });
    }
    Ok(bytes)
}

/// Reads a text like [`read_file`].
///
/// # Errors
/// Those of [`read_file`], and where it is not UTF-8.
pub(crate) fn read_text_file(path: &Path, max_bytes: u64) -> Result<String, FileError> {
    String::from_utf8(read_file(path, max_bytes)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8").into())
}

/// What serde says of an input that has the wrong shape, without the value that it quotes: that may be a secret or a
/// part of a payload. A key is shown only where it could be the name of a setting or a column.
pub(crate) fn redact_values(mistake: &str) -> String {
    let told = if let Some(kind) = ["invalid type", "invalid value"]
        .into_iter()
        .find(|kind| mistake.starts_with(kind))
    {
        // The value comes first, whatever it has in it.
        match mistake.rfind(", expected ") {
            Some(at) => format!("{kind}{}", &mistake[at..]),
            None => kind.to_owned(),
        }
    } else if let Some(rest) = mistake.strip_prefix("unknown field `") {
        let (key, expected) = rest
            .rfind("`, expected one of ")
            .or_else(|| rest.rfind("`, expected `"))
            .map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
        if looks_like_setting_name(key) {
            format!("unknown field `{key}`{expected}")
        } else {
            format!("unknown field{expected}")
        }
    } else {
        mistake.to_owned()
    };
    let mut told = text(&told, MAX_MISTAKE_BYTES);
    told.truncate(told.floor_char_boundary(MAX_MISTAKE_BYTES));
    told
}

/// Whether a key that nobody knows could be the misspelt name of a setting, and not a value in the wrong place.
pub(crate) fn looks_like_setting_name(key: &str) -> bool {
    (1..=MAX_SHOWN_KEY_BYTES).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_a_device_not_at_all() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "12345678").expect("written");
        assert_eq!(read_file(file.path(), 8).expect("read"), b"12345678");
        assert!(matches!(
            read_file(file.path(), 7),
            Err(FileError::TooLong { max_bytes: 7 })
        ));
        // A file of 1 TiB that takes no room on the disk.
        file.as_file().set_len(1 << 40).expect("a sparse file");
        assert!(matches!(
            read_file(file.path(), 1024),
            Err(FileError::TooLong { .. })
        ));
        for endless in ["/dev/zero", "/dev/tty", "/"] {
            assert!(
                matches!(read_file(endless.as_ref(), 8), Err(FileError::Io(_))),
                "{endless}"
            );
        }
    }

    #[test]
    fn a_mistake_is_told_without_the_value() {
        for (mistake, told) in [
            (
                "invalid type: string \"hush, expected hush\", expected f64",
                "invalid type, expected f64",
            ),
            (
                "invalid type: integer `123456`, expected a string at line 1 column 5",
                "invalid type, expected a string at line 1 column 5",
            ),
            (
                "unknown field `api_secrit`, expected one of `app_id`, `api_key`",
                "unknown field `api_secrit`, expected one of `app_id`, `api_key`",
            ),
            (
                "unknown field `5CFd2fd1`, expected `apps`",
                "unknown field, expected `apps`",
            ),
            ("unknown field `hush`hush`", "unknown field"),
            ("missing field `apps`", "missing field `apps`"),
        ] {
            assert_eq!(redact_values(mistake), told);
        }
        assert!(redact_values(&"é\n".repeat(10_000)).len() <= MAX_MISTAKE_BYTES);
    }
}
