//! The settings of each app, from the command line and its variables or from a file.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{UsageError, parse_number};
use crate::sanitize;
use crate::secret::{
    SecretError, SecretSource, given, given_path, is_impossible, is_odd, variable,
};
use crate::signaling::{BaseUrl, Credentials, DEFAULT_BASE_URL, TokenHeaders};

/// The API's limit of calls a second for one app ID.
const DEFAULT_LIMIT_PER_S: f64 = 500.0;
const DEFAULT_MAX_IN_FLIGHT: usize = 1_024;
/// The API allows these in a user ID, and letters and digits, as in `migrations/functions/check_message.sql`.
const SENDER_PUNCTUATION: &str = " !#$%&()+-:;<=.>?@[]^_{}|~,'";

#[derive(Debug)]
pub(crate) struct AppConfig {
    /// The name in the column `app`.
    pub(crate) alias: String,
    pub(crate) app_id: String,
    pub(crate) credentials: Credentials,
    /// In order of preference.
    pub(crate) base_urls: Vec<BaseUrl>,
    /// Certificates to trust beside the public ones.
    pub(crate) ca_file: Option<PathBuf>,
    /// Calls a second of the whole fleet.
    pub(crate) limit_per_s: f64,
    /// Messages in this process.
    pub(crate) max_in_flight: usize,
}

/// An app's settings before their check, from the command line and its variables or from the table of a file. Secrets
/// have no flags, because a list of processes shows flags.
#[derive(Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawApp {
    /// The app ID
    #[arg(long, env = "AGORA_APP_ID", value_name = "ID")]
    pub(crate) app_id: Option<String>,

    #[arg(skip)]
    pub(crate) api_key: Option<String>,
    #[arg(skip)]
    pub(crate) api_key_file: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) api_secret: Option<String>,
    #[arg(skip)]
    pub(crate) api_secret_file: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) token: Option<String>,
    #[arg(skip)]
    pub(crate) token_file: Option<PathBuf>,
    #[arg(skip)]
    pub(crate) app_certificate: Option<String>,
    #[arg(skip)]
    pub(crate) app_certificate_file: Option<PathBuf>,

    /// With `AGORA_TOKEN`: the user that the token was made for
    #[arg(long, env = "AGORA_UID", value_name = "USER")]
    pub(crate) uid: Option<String>,

    /// The headers of tokens: x-agora (the default of `AGORA_TOKEN`) or authorization (the default of
    /// `AGORA_APP_CERTIFICATE`)
    #[arg(long, env = "AGORA_TOKEN_HEADERS", value_name = "KIND")]
    pub(crate) token_headers: Option<String>,

    /// The URLs of the API's hosts, separated by commas, or `global` (api.agora.io, then api.sd-rtn.com), or `china` (the
    /// reverse). The worker calls the next host while the first is unreachable or answers 502 to 504
    /// [default: `https://api.agora.io`]
    #[arg(long, env = "AGORA_BASE_URL", value_name = "URLS")]
    pub(crate) base_url: Option<String>,

    /// Certificates to trust beside the public ones, as PEM
    #[arg(long, env = "AGORA_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// The API's limit of calls a second for the app, for all workers together. `worker limit` changes it for running
    /// workers [default: 500]
    #[arg(long, env = "WORKER_RATE", value_name = "CALLS", value_parser = parse_number::<f64>)]
    pub(crate) rate: Option<f64>,

    /// Most messages of an app that this worker has in flight, from the claim to the record
    /// [default: 1024]
    #[arg(long, env = "WORKER_MAX_IN_FLIGHT", value_name = "MESSAGES", value_parser = parse_number::<usize>)]
    pub(crate) max_in_flight: Option<usize>,
}

/// The variable of a secret, its value and its file.
type RawSecret<'a> = (
    &'static str,
    &'a mut Option<String>,
    &'a mut Option<PathBuf>,
);

impl fmt::Debug for RawApp {
    /// Shows nothing, because fields may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawApp")
    }
}

/// The apps of the file at `path`, or the one app of `given`, which comes from the command line and the environment.
pub(crate) fn apps(given: RawApp, path: Option<&Path>) -> anyhow::Result<Vec<AppConfig>> {
    const NO_APP: &str = "no app is configured: set AGORA_APP_ID and credentials (AGORA_API_KEY and AGORA_API_SECRET), or name a file of apps with --config";
    let given = given.trimmed();
    // Defaults for each app of a file.
    let shared = RawApp {
        token_headers: given.token_headers.clone(),
        base_url: given.base_url.clone(),
        ca_file: given.ca_file.clone(),
        rate: given.rate,
        max_in_flight: given.max_in_flight,
        ..RawApp::default()
    };
    let apps = match path {
        None => BTreeMap::from([("default".to_owned(), given)]),
        Some(path) if given == shared => read_apps(path)?,
        Some(_) => bail!(UsageError(
            "apps are configured twice: with --config, leave the app ID, AGORA_UID and the secrets out of the variables and flags".into(),
        )),
    };
    if apps.values().all(|app| *app == shared) {
        bail!(UsageError(NO_APP.into()));
    }
    let with_defaults = |app: RawApp| RawApp {
        token_headers: app.token_headers.or_else(|| shared.token_headers.clone()),
        base_url: app.base_url.or_else(|| shared.base_url.clone()),
        ca_file: app.ca_file.or_else(|| shared.ca_file.clone()),
        rate: app.rate.or(shared.rate),
        max_in_flight: app.max_in_flight.or(shared.max_in_flight),
        ..app
    };
    let mut checked: Vec<AppConfig> = Vec::with_capacity(apps.len());
    for (alias, app) in apps {
        let app = with_defaults(app).check(&alias)?;
        // Together, two apps with one app ID would send twice the limit.
        if let Some(other) = checked.iter().find(|other| other.app_id == app.app_id) {
            bail!(UsageError(format!(
                "the apps {:?} and {alias:?} have the same app ID, and so one limit of calls: make them one app",
                other.alias
            )));
        }
        checked.push(app);
    }
    Ok(checked)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    apps: BTreeMap<String, RawApp>,
}

const MAX_FILE_BYTES: u64 = 1024 * 1024;

fn read_apps(path: &Path) -> Result<BTreeMap<String, RawApp>, UsageError> {
    let wrong = |why: String| UsageError(format!("the configuration {} {why}", path.display()));
    let text = sanitize::read_text_file(path, MAX_FILE_BYTES)
        .map_err(|error| wrong(format!("can't be read: {error}")))?;
    parse_apps(&text).map_err(|error| wrong(format!("is not right: {error}")))
}

/// An error has the line of the mistake, and shows no values, because a value may be a secret.
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

impl RawApp {
    fn secrets(&mut self) -> [RawSecret<'_>; 4] {
        [
            ("AGORA_API_KEY", &mut self.api_key, &mut self.api_key_file),
            (
                "AGORA_API_SECRET",
                &mut self.api_secret,
                &mut self.api_secret_file,
            ),
            ("AGORA_TOKEN", &mut self.token, &mut self.token_file),
            (
                "AGORA_APP_CERTIFICATE",
                &mut self.app_certificate,
                &mut self.app_certificate_file,
            ),
        ]
    }

    pub(crate) fn with_secrets(mut self) -> Self {
        for (name, value, file) in self.secrets() {
            *value = variable(name);
            *file = variable(&format!("{name}_FILE")).map(PathBuf::from);
        }
        self
    }

    /// The error is the first mistake in the settings, with the app's name.
    pub(crate) fn check(self, alias: &str) -> anyhow::Result<AppConfig> {
        self.trimmed().into_app(alias).map_err(|error| {
            let alias = sanitize::text(alias, 64);
            let text = format!("the app {alias:?}: {error}");
            if error.is::<SecretError>() {
                SecretError(text).into()
            } else {
                UsageError(text).into()
            }
        })
    }

    /// Each value without the invisible characters around it.
    fn trimmed(mut self) -> Self {
        let trim = |text: &mut Option<String>| {
            *text = text.as_deref().and_then(given).map(str::to_owned);
        };
        let trim_path = |path: &mut Option<PathBuf>| {
            *path = path.as_deref().and_then(given_path).map(PathBuf::from);
        };
        for (_, value, file) in self.secrets() {
            trim(value);
            trim_path(file);
        }
        trim(&mut self.app_id);
        trim(&mut self.uid);
        trim(&mut self.token_headers);
        trim(&mut self.base_url);
        trim_path(&mut self.ca_file);
        self
    }

    fn into_app(mut self, alias: &str) -> anyhow::Result<AppConfig> {
        if !is_name(alias, "._-", 64) {
            bail!("its name is not 1 to 64 letters, digits, dots, dashes or underscores");
        }
        let app_id = self.app_id.clone();
        let app_id = app_id.context("it has no app ID: set AGORA_APP_ID (app_id in a file)")?;
        if !is_name(&app_id, "_-", 128) {
            bail!("its app ID is not 1 to 128 letters, digits, dashes or underscores");
        }
        let limit_per_s = self.rate.unwrap_or(DEFAULT_LIMIT_PER_S);
        if !(1.0..=1_000_000.0).contains(&limit_per_s) {
            bail!(
                "a rate of {limit_per_s} calls a second is not between 1 and 1,000,000: change WORKER_RATE (rate)"
            );
        }
        let max_in_flight = self.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT);
        if !(1..=100_000).contains(&max_in_flight) {
            bail!("WORKER_MAX_IN_FLIGHT (max_in_flight) is not between 1 and 100,000");
        }
        let base_urls = self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
        let base_urls = BaseUrl::parse_list(base_urls)
            .map_err(|error| anyhow!("AGORA_BASE_URL (base_url): {error}"))?;
        Ok(AppConfig {
            alias: alias.to_owned(),
            credentials: self.credentials(&app_id)?,
            app_id,
            base_urls,
            ca_file: self.ca_file,
            limit_per_s,
            max_in_flight,
        })
    }

    fn credentials(&mut self, app_id: &str) -> anyhow::Result<Credentials> {
        let given_headers = self.token_headers.as_deref().map(TokenHeaders::from_str);
        let given_headers = given_headers
            .transpose()
            .context("AGORA_TOKEN_HEADERS (token_headers) is not x-agora or authorization")?;
        let [key, api_secret, token, certificate] = self.secrets().map(secret);
        let wrong = match (key?, api_secret?, token?, certificate?) {
            (Some(key), Some(secret), None, None) => {
                return Ok(Credentials::Basic { key, secret });
            }
            (None, None, Some(token), None) => {
                let uid = self.uid.take().context(
                    "AGORA_TOKEN needs AGORA_UID (uid): the user that the token was made for",
                )?;
                // No message has such a sender, so every message would end as failed.
                let is_quoted = uid.starts_with('\'') && uid.ends_with('\'');
                if is_quoted || !is_name(&uid, SENDER_PUNCTUATION, 64) {
                    bail!(
                        "AGORA_UID (uid) has quotation marks around it, more than 64 characters, or a character that the API does not allow in a user ID: set it to the ID alone. An env file may keep quotation marks"
                    );
                }
                return Ok(Credentials::Token {
                    token,
                    uid,
                    headers: given_headers.unwrap_or(TokenHeaders::XAgora),
                });
            }
            (None, None, None, Some(certificate)) => {
                return Ok(Credentials::Certificate {
                    app_id: app_id.to_owned(),
                    certificate,
                    headers: given_headers.unwrap_or(TokenHeaders::Authorization),
                });
            }
            (None, None, None, None) => {
                "it has no credentials: set AGORA_API_KEY and AGORA_API_SECRET (api_key, api_secret), or AGORA_TOKEN and AGORA_UID, or AGORA_APP_CERTIFICATE; each has a variant ending in _FILE"
            }
            (Some(_), None, None, None) => "AGORA_API_KEY needs AGORA_API_SECRET",
            (None, Some(_), None, None) => "AGORA_API_SECRET needs AGORA_API_KEY",
            _ => {
                "it has more than one kind of credentials: keep one of AGORA_API_KEY with AGORA_API_SECRET, AGORA_TOKEN, and AGORA_APP_CERTIFICATE"
            }
        };
        bail!(wrong)
    }
}

/// True for 1 to `longest` letters and digits of ASCII, or characters of `more`.
pub(crate) fn is_name(text: &str, more: &str, longest: usize) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    (1..=longest).contains(&text.len()) && text.chars().all(is_allowed)
}

fn secret((name, value, file): RawSecret<'_>) -> anyhow::Result<Option<SecretSource>> {
    let source = match (value.take(), file.take()) {
        (Some(_), Some(_)) => {
            bail!("{name} is given both as a value and as a file: leave out one");
        }
        (Some(value), None) => SecretSource::value(value),
        (None, Some(file)) => SecretSource::File(file),
        (None, None) => return Ok(None),
    };
    // Only a file that is missing at startup ends the worker. A file that disappears later only holds the lane.
    let secret = source.read()?;
    if is_impossible(secret.expose_secret()) {
        bail!(
            "{name} has a line break or a control character inside, or is not UTF-8: set it to the value alone"
        );
    }
    // The API would answer 401, and the app would be held.
    if is_odd(secret.expose_secret()) {
        bail!(
            "{name} has a quotation mark at an end, a space or an invisible character inside, or a character other than ASCII: set it to the value alone. An env file may keep quotation marks"
        );
    }
    Ok(Some(source))
}
