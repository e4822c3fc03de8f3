//! A file with the settings of several apps.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{RawApp, UsageError};
use crate::sanitize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    apps: BTreeMap<String, RawApp>,
}

const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads the tables `[apps.NAME]` of a TOML file.
pub(crate) fn read_apps(path: &Path) -> Result<BTreeMap<String, RawApp>, UsageError> {
    let wrong = |why: String| UsageError(format!("the configuration {} {why}", path.display()));
    let text = sanitize::read_text_file(path, MAX_FILE_BYTES)
        .map_err(|error| wrong(format!("can't be read: {error}")))?;
    parse_apps(&text).map_err(|error| wrong(format!("is not right: {error}")))
}

/// An error has the line of the mistake. It shows no values, because they may be secrets.
pub(crate) fn parse_apps(text: &str) -> Result<BTreeMap<String, RawApp>, String> {
    let file: Result<ConfigFile, _> = toml::from_str(text);
    file.map(|file| file.apps).map_err(|error| {
        let message = sanitize::redact_values(error.message());
        let before = error.span().and_then(|span| text.get(..span.start));
        match before.map(|before| 1 + before.matches('\n').count()) {
            Some(line) => format!("{message} (line {line})"),
            None => message,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_named_without_its_value() {
        let apps =
            parse_apps("[apps.one]\napp_id = \"1\"\nrate = 100\n[apps.two]\napp_id = \"2\"\n")
                .expect("apps");
        assert_eq!(apps.keys().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(apps["one"].rate, Some(100.0));
        let error = parse_apps("[apps.one]\napi_secrit = \"hush\"\n").expect_err("an error");
        assert!(
            error.contains("api_secrit") && error.ends_with("(line 2)") && !error.contains("hush"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_not_shown() {
        for text in [
            "[apps.one]\napi_secret = 471147114711",
            "[apps.one]\nrate = \"471147114711\"",
            "[apps.one]\nrate = 471147114711.471147114711.471147114711",
            "[apps.one]\n471147114711 = \"\"",
            "[apps.one]\napi_secret = 471147114711471147114711471147114711",
            "[apps.one]\napi_secret = \"471147114711",
            "apps = \"471147114711\"",
            "[apps.one]\ntoken = [\"471147114711\"]",
        ] {
            let error = parse_apps(text).expect_err("an error");
            assert!(!error.contains("4711"), "{text}: {error}");
        }
    }
}
