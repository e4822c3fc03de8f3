//! A file with the settings of several apps.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, RawApp};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    apps: BTreeMap<String, RawApp>,
}
/// The most bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The apps of a TOML file: a table `[apps.NAME]` each.
///
/// # Errors
/// Where the file can't be read or is not of that shape.
pub fn read_apps(path: &PathBuf) -> Result<BTreeMap<String, RawApp>, ConfigError> {
    use std::io::Read;
    let unreadable = |source| ConfigError::File {
        path: path.clone(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::FileTooLong(path.clone()));
    }
    parse_apps(&text).map_err(|(message, line)| ConfigError::Toml {
        path: path.clone(),
        message,
        line,
    })
}
fn parse_apps(text: &str) -> Result<BTreeMap<String, RawApp>, (String, Option<usize>)> {
    toml::from_str::<ConfigFile>(text)
        .map(|file| file.apps)
        .map_err(|error| {
            let line = error
                .span()
                .map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            (error.message().to_owned(), line)
        })
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_table_for_each_app_and_a_misspelt_key_is_named_without_its_value() {
        let apps =
            parse_apps("[apps.one]\napp_id = \"1\"\nrate = 100\n[apps.two]\napp_id = \"2\"\n")
                .expect("apps");
        assert_eq!(apps.keys().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(apps["one"].rate, Some(100.0));
        let (message, line) = parse_apps("[apps.one]\napi_secrit = \"hush\"\n")
            .err()
            .expect("an error");
        assert!(
            message.contains("api_secrit") && !message.contains("hush"),
            "{message}"
        );
        assert_eq!(line, Some(2));
    }
}
