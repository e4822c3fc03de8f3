//! Bounds texts and files from outside, and describes mistakes in an input without the input's values.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Limits the name of a worker, a host or an operator.
pub(crate) const MAX_NAME_CHARS: usize = 128;
const MAX_MISTAKE_BYTES: usize = 500;
const MAX_SETTING_NAME_BYTES: usize = 32;

/// Removes control characters, and cuts the text to `max_chars`. Postgres rejects NUL, and a line break would begin a new line
/// of the log.
pub(crate) fn text(text: &str, max_chars: usize) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(max_chars)
        .collect()
}

/// Reads a regular file of at most `max_bytes`. A FIFO without a writer would block the reader, and a device has no end.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(max_bytes + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        let kib = max_bytes / 1024;
        let why = format!("it has more than {kib} KiB: is it the right file?");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

pub(crate) fn read_text_file(path: &Path, max_bytes: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, max_bytes)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Removes the quoted value from an error of serde, because the value may be a secret or a part of a payload. Shows a key only
/// if it could be the name of a setting or a column.
pub(crate) fn redact_values(mistake: &str) -> String {
    // The last `, expected ` comes after the value, even if the value contains the same words.
    let at = mistake.rfind(", expected ").unwrap_or(mistake.len());
    let (found, expected) = mistake.split_at(at);
    let mut kinds = ["invalid type", "invalid value"].into_iter();
    let kind = kinds.find(|kind| found.starts_with(kind));
    let redacted = match (kind, found.strip_prefix("unknown field `")) {
        (Some(kind), _) => format!("{kind}{expected}"),
        (None, Some(key)) if !could_be_setting(key.trim_end_matches('`')) => {
            format!("unknown field{expected}")
        }
        _ => mistake.to_owned(),
    };
    let mut redacted = text(&redacted, MAX_MISTAKE_BYTES);
    redacted.truncate(redacted.floor_char_boundary(MAX_MISTAKE_BYTES));
    redacted
}

/// True for a key that looks like a misspelt setting. False for a key that may be a secret in the wrong place.
fn could_be_setting(key: &str) -> bool {
    (1..=MAX_SETTING_NAME_BYTES).contains(&key.len())
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
        assert!(read_file(file.path(), 7).is_err());
        // A file of 1 TiB that takes no room on the disk.
        file.as_file().set_len(1 << 40).expect("a sparse file");
        let error = read_file(file.path(), 1024).expect_err("too long");
        assert!(error.to_string().contains("more than 1 KiB"), "{error}");
        for endless in ["/dev/zero", "/dev/tty", "/"] {
            assert!(read_file(endless.as_ref(), 8).is_err(), "{endless}");
        }
    }

    #[test]
    fn a_mistake_is_described_without_the_value() {
        for (mistake, redacted) in [
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
            assert_eq!(redact_values(mistake), redacted);
        }
        assert!(redact_values(&"é\n".repeat(10_000)).len() <= MAX_MISTAKE_BYTES);
    }
}
