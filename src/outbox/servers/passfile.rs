//! Looks up a password in a password file, as libpq does.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::sanitize;
use crate::secret::MAX_SECRET_BYTES;
use crate::telemetry::log_throttle::LogThrottle;

pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// libpq's default file.
pub(super) fn default_path() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".pgpass"))
}

/// The password for a login. None if the file has no matching line or can't be used. `is_named`: the operator named the file,
/// so a missing file is a warning.
pub(super) fn password(
    path: &Path,
    is_named: bool,
    login: &Login<'_>,
    unusable: &LogThrottle,
) -> Option<SecretString> {
    let warn = |why: String| {
        if unusable.admit().is_some() {
            tracing::warn!(
                event = "passfile_ignored",
                path = %path.display(),
                "the password file can't be used: {why}"
            );
        }
    };
    let Ok(metadata) = std::fs::metadata(path) else {
        if is_named {
            warn("it can't be read: name one that the worker's user can read".into());
        }
        return None;
    };
    if !metadata.is_file() {
        warn("it is no file".into());
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        warn("others can read it, which libpq refuses, too: run `chmod 600` on it".into());
        return None;
    }
    match sanitize::read_text_file(path, MAX_SECRET_BYTES) {
        Ok(text) => find(&text, login).map(SecretString::from),
        Err(error) => {
            warn(error.to_string());
            None
        }
    }
}

/// The password of the first matching line. A star matches any value.
fn find(text: &str, login: &Login<'_>) -> Option<String> {
    let port = login.port.to_string();
    let wanted = [login.host, &port, login.database, login.user];
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let fields = fields(line);
            let (password, fields) = fields.get(..5)?.split_last()?;
            let matches = fields
                .iter()
                .zip(wanted)
                .all(|(field, wanted)| *field == "*" || unescaped(field) == wanted);
            matches
                .then(|| unescaped(password))
                .filter(|password| !password.is_empty())
        })
}

/// Splits a line at its colons. A backslash escapes the next character.
fn fields(line: &str) -> Vec<&str> {
    let mut is_escaped = false;
    line.split(|character| {
        let is_separator = character == ':' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        is_separator
    })
    .collect()
}

fn unescaped(field: &str) -> String {
    let mut is_escaped = false;
    field
        .chars()
        .filter(|character| {
            is_escaped = *character == '\\' && !is_escaped;
            !is_escaped
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: Login<'_> = Login {
        host: "db.example.com",
        port: 5433,
        database: "app",
        user: "worker",
    };

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        for (text, password) in [
            ("db.example.com:5433:app:worker:hush", Some("hush")),
            (
                "# a comment\nother:*:*:*:no\n*:*:*:worker:yes\n*:*:*:*:late\n",
                Some("yes"),
            ),
            ("db.example.com:5432:app:worker:hush", None),
            (r"*:*:*:*:a\:b\\c:rest", Some(r"a:b\c")),
            ("db.example.com:5433:app:worker", None),
            ("db.example.com:5433:app:worker:", None),
            ("\n\r\n:::::\n", None),
        ] {
            assert_eq!(find(text, &LOGIN).as_deref(), password, "{text}");
        }
        let odd = Login {
            user: r"a:b\",
            ..LOGIN
        };
        assert_eq!(find(r"*:*:*:a\:b\\:hush", &odd).as_deref(), Some("hush"));
    }
}
