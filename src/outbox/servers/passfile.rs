//! Looks up a password in a password file, as libpq does. sqlx would log the lines that it can't parse.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::sanitize;
use crate::secret::MAX_SECRET_BYTES;

/// The file that the operator named, or libpq's default.
pub(super) fn path(named: Option<&Path>) -> PathBuf {
    let default = || std::env::home_dir().unwrap_or_else(|| "~".into());
    named.map_or_else(|| default().join(".pgpass"), Path::to_owned)
}

/// The password for a login: host, port, database and user. None if the file has no matching line, or the operator named
/// no file and the default one does not exist.
pub(super) fn password(named: Option<&Path>, login: [&str; 4]) -> io::Result<Option<String>> {
    let path = path(named);
    if named.is_none() && !path.exists() {
        return Ok(None);
    }
    let unusable = |why: String| {
        let why = format!("the password file {} can't be used: {why}", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, why)
    };
    let text = sanitize::read_text_file(&path, MAX_SECRET_BYTES);
    let text = text.map_err(|error| unusable(error.to_string()))?;
    if std::fs::metadata(&path)?.permissions().mode() & 0o077 != 0 {
        let why = "other users can read it, which libpq refuses, too: run `chmod 600` on it";
        return Err(unusable(why.into()));
    }
    Ok(find(&text, login))
}

/// The password of the first matching line. A star matches any value.
fn find(text: &str, login: [&str; 4]) -> Option<String> {
    let matches = |fields: &Vec<String>| {
        let mut pairs = fields.iter().zip(login);
        fields.len() > login.len() && pairs.all(|(field, value)| field == "*" || field == value)
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(split)
        .filter(matches)
        .map(|mut fields| fields.swap_remove(login.len()))
        .find(|password| !password.is_empty())
}

/// Splits a line at its colons. A backslash escapes the next character.
fn split(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => fields.push(std::mem::take(&mut field)),
            '\\' => field.extend(characters.next()),
            character => field.push(character),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: [&str; 4] = ["db.example.com", "5433", "app", "worker"];

    #[test]
    fn the_first_line_that_matches_gives_the_password() {
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
            assert_eq!(find(text, LOGIN).as_deref(), password, "{text}");
        }
        let odd = ["db.example.com", "5433", "app", r"a:b\"];
        assert_eq!(find(r"*:*:*:a\:b\\:hush", odd).as_deref(), Some("hush"));
    }
}
