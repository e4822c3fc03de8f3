//! Settings. What exists here is coherent: the errors say which variable or flag to change.

pub mod secret;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::message::{InvalidMessage, UserId};
use crate::pace::{HORIZON, TOLERANCE};
use crate::retry::RetryPolicy;
use crate::signaling::{BaseUrl, Credentials, InvalidBaseUrl, TokenHeaders};
use secret::SecretSource;

/// The vendor's address of the API.
pub const DEFAULT_BASE_URL: &str = "https://api.agora.io";
/// The API's limit for an app ID: calls of both kinds together, in a second.
pub const DEFAULT_LIMIT_PER_S: f64 = 500.0;
/// Calls of one app that may be under way at once in one process.
pub const DEFAULT_MAX_IN_FLIGHT: usize = 1_024;

/// How one process works.
#[derive(Debug)]
pub struct WorkerConfig {
    /// The apps to serve.
    pub apps: Vec<AppConfig>,
    /// Who claims, for people: host and process.
    pub name: String,
    /// How the process goes about each app.
    pub timing: Timing,
    /// When a message is called again.
    pub retry: RetryPolicy,
    /// How long a shutdown waits for calls in flight and their records.
    pub drain_timeout: Duration,
}

/// Times that depend on one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a claimed row belongs to this process.
    pub lease: Duration,
    /// Longest time from the start of a call to the end of its answer.
    pub request_timeout: Duration,
    /// Longest time for a TCP and TLS handshake.
    pub connect_timeout: Duration,
    /// How often a sleeping lane looks for itself.
    pub poll: Duration,
}

/// One app.
#[derive(Debug)]
pub struct AppConfig {
    /// Its alias: the column `app` of its rows.
    pub alias: String,
    /// Its app ID.
    pub app_id: String,
    /// How to sign in.
    pub credentials: Credentials,
    /// Where the API is: the first host, and others for when that can't be reached.
    pub base_urls: Vec<BaseUrl>,
    /// Certificates to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Calls a second that the API allows, fleet-wide.
    pub limit_per_s: f64,
    /// Calls that may be under way at once in this process.
    pub max_in_flight: usize,
}

/// Why settings can't be used. Each says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No app ID.
    #[error(
        "no app is configured: set AGORA_APP_ID and how to sign in (AGORA_API_KEY and AGORA_API_SECRET), or name a file of apps with --config"
    )]
    NoApp,
    /// An app in the environment and apps in a file.
    #[error(
        "apps are configured twice: with --config, leave the app ID, AGORA_UID and the secrets out of the variables and flags"
    )]
    TwoSources,
    /// Two apps with one budget would each think it theirs.
    #[error(
        "the apps {0:?} and {1:?} have the same app ID, and so one limit of calls: make them one app"
    )]
    SameAppId(String, String),
    /// An app's settings are wrong.
    #[error("the app {alias:?}: {source}")]
    App {
        /// The app's alias.
        alias: String,
        /// What is wrong.
        source: AppError,
    },
    /// The file can't be read.
    #[error("the configuration {path} can't be read: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("the configuration {path} has more than 1 MiB: is it the right file?", path = .0.display())]
    FileTooLong(PathBuf),
    /// The file is not TOML of the right shape. The text around the mistake is not shown: it might be a secret.
    #[error("the configuration {path} is not right: {message}{}", line.map(|line| format!(" (line {line})")).unwrap_or_default(), path = .path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// Where.
        line: Option<usize>,
    },
    /// The lease could end during a call.
    #[error(
        "a lease of {lease:?} is too short for a request timeout of {request_timeout:?}: set WORKER_LEASE to at least {needed:?}, or WORKER_REQUEST_TIMEOUT lower"
    )]
    LeaseTooShort {
        /// The lease.
        lease: Duration,
        /// The request timeout.
        request_timeout: Duration,
        /// The shortest lease for it.
        needed: Duration,
    },
    /// The retry policy is impossible.
    #[error(transparent)]
    Retry(#[from] crate::retry::InvalidRetryPolicy),
    /// A time of nothing.
    #[error("{0} is zero: set it to at least 1ms")]
    Zero(&'static str),
}

/// What can be wrong with an app.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The alias can't stand in the column.
    #[error("its name is not 1 to 64 letters, digits, dots, dashes or underscores")]
    Alias,
    /// No app ID.
    #[error("it has no app ID: set AGORA_APP_ID (app_id in a file)")]
    NoAppId,
    /// Not an app ID.
    #[error("its app ID is not 1 to 128 letters, digits, dashes or underscores")]
    AppId,
    /// No way to sign in, or more than one, or half of one.
    #[error("{0}")]
    SignIn(&'static str),
    /// A value and a file for the same secret.
    #[error("{0} is given both as a value and as a file: leave out one")]
    TwoSecrets(&'static str),
    /// The user of a token is none.
    #[error("AGORA_UID (uid): {0}")]
    Uid(InvalidMessage),
    /// Not a known place for tokens.
    #[error("AGORA_TOKEN_HEADERS (token_headers) is {0:?}: it can be x-agora or authorization")]
    TokenHeaders(String),
    /// The base URL is none.
    #[error("AGORA_BASE_URL (base_url): {0}")]
    BaseUrl(#[from] InvalidBaseUrl),
    /// A secret can't be had.
    #[error(transparent)]
    Secret(#[from] secret::SecretError),
    /// The limit is none.
    #[error(
        "a rate of {0} calls a second is not between 1 and 1,000,000: change WORKER_RATE (rate)"
    )]
    Rate(f64),
    /// No room for a call.
    #[error("WORKER_MAX_IN_FLIGHT (max_in_flight) is not between 1 and 100,000")]
    MaxInFlight,
}

/// Checks that no two apps share a budget of calls.
///
/// # Errors
/// Where two have the same app ID.
pub fn check_distinct(apps: &[AppConfig]) -> Result<(), ConfigError> {
    let mut aliases = BTreeMap::new();
    for app in apps {
        if let Some(other) = aliases.insert(&app.app_id, &app.alias) {
            return Err(ConfigError::SameAppId(other.clone(), app.alias.clone()));
        }
    }
    Ok(())
}

/// An app's settings as they are given, in the environment or in a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_docs,
    reason = "each is the variable of the same name, documented in the README"
)]
pub struct RawApp {
    pub app_id: Option<String>,
    pub api_key: Option<String>,
    pub api_key_file: Option<PathBuf>,
    pub api_secret: Option<String>,
    pub api_secret_file: Option<PathBuf>,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub uid: Option<String>,
    pub app_certificate: Option<String>,
    pub app_certificate_file: Option<PathBuf>,
    pub token_headers: Option<String>,
    pub base_url: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub rate: Option<f64>,
    pub max_in_flight: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    apps: BTreeMap<String, RawApp>,
}

/// The most bytes of a configuration file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What the environment gives for one app: secrets have no flags, so that they stand in no list of processes.
pub fn secrets_from(variable: impl Fn(&str) -> Option<String>) -> RawApp {
    let text = |name: &str| variable(name).filter(|value| !value.is_empty());
    let path = |name: &str| text(name).map(PathBuf::from);
    RawApp {
        app_id: text("AGORA_APP_ID"),
        api_key: text("AGORA_API_KEY"),
        api_key_file: path("AGORA_API_KEY_FILE"),
        api_secret: text("AGORA_API_SECRET"),
        api_secret_file: path("AGORA_API_SECRET_FILE"),
        token: text("AGORA_TOKEN"),
        token_file: path("AGORA_TOKEN_FILE"),
        uid: text("AGORA_UID"),
        app_certificate: text("AGORA_APP_CERTIFICATE"),
        app_certificate_file: path("AGORA_APP_CERTIFICATE_FILE"),
        token_headers: text("AGORA_TOKEN_HEADERS"),
        ..RawApp::default()
    }
}

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

impl RawApp {
    /// True if nothing at all is said of an app.
    pub fn is_empty(&self) -> bool {
        let texts = [
            &self.app_id,
            &self.api_key,
            &self.api_secret,
            &self.token,
            &self.uid,
            &self.app_certificate,
        ];
        let files = [
            &self.api_key_file,
            &self.api_secret_file,
            &self.token_file,
            &self.app_certificate_file,
        ];
        texts.iter().all(|text| text.is_none()) && files.iter().all(|file| file.is_none())
    }

    /// The app, if its settings are coherent.
    ///
    /// # Errors
    /// The first thing that is wrong, with the app's name.
    pub fn check(self, alias: &str) -> Result<AppConfig, ConfigError> {
        self.into_app(alias).map_err(|source| ConfigError::App {
            alias: alias.to_owned(),
            source,
        })
    }

    fn into_app(self, alias: &str) -> Result<AppConfig, AppError> {
        let is_name = |text: &str, more: &str, longest| {
            (1..=longest).contains(&text.len())
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !is_name(alias, "._-", 64) {
            return Err(AppError::Alias);
        }
        let app_id = self.app_id.clone().ok_or(AppError::NoAppId)?;
        if !is_name(&app_id, "_-", 128) {
            return Err(AppError::AppId);
        }
        let limit_per_s = self.rate.unwrap_or(DEFAULT_LIMIT_PER_S);
        if !(1.0..=1_000_000.0).contains(&limit_per_s) {
            return Err(AppError::Rate(limit_per_s));
        }
        let max_in_flight = self.max_in_flight.unwrap_or(DEFAULT_MAX_IN_FLIGHT);
        if !(1..=100_000).contains(&max_in_flight) {
            return Err(AppError::MaxInFlight);
        }
        let base_urls = self
            .base_url
            .as_deref()
            .unwrap_or(DEFAULT_BASE_URL)
            .split(',')
            .map(|url| BaseUrl::parse(url.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        let ca_file = self.ca_file.clone();
        let credentials = self.credentials(&app_id)?;
        // A file that is missing now is a mistake; one that goes away later holds the lane until it is back.
        credentials.read_secrets()?;
        Ok(AppConfig {
            alias: alias.to_owned(),
            credentials,
            app_id,
            base_urls,
            ca_file,
            limit_per_s,
            max_in_flight,
        })
    }

    fn credentials(self, app_id: &str) -> Result<Credentials, AppError> {
        let given_headers = match self.token_headers.as_deref() {
            None => None,
            Some("x-agora") => Some(TokenHeaders::XAgora),
            Some("authorization") => Some(TokenHeaders::Authorization),
            Some(other) => return Err(AppError::TokenHeaders(other.to_owned())),
        };
        let key = secret("AGORA_API_KEY", self.api_key, self.api_key_file)?;
        let api_secret = secret("AGORA_API_SECRET", self.api_secret, self.api_secret_file)?;
        let token = secret("AGORA_TOKEN", self.token, self.token_file)?;
        let certificate = secret(
            "AGORA_APP_CERTIFICATE",
            self.app_certificate,
            self.app_certificate_file,
        )?;
        match (key, api_secret, token, certificate) {
            (Some(key), Some(secret), None, None) => Ok(Credentials::Basic { key, secret }),
            (None, None, Some(token), None) => Ok(Credentials::Token {
                token,
                uid: UserId::sender(self.uid.ok_or(AppError::SignIn(
                    "AGORA_TOKEN needs AGORA_UID (uid): the user that the token was made for",
                ))?)
                .map_err(AppError::Uid)?,
                headers: given_headers.unwrap_or(TokenHeaders::XAgora),
            }),
            (None, None, None, Some(certificate)) => Ok(Credentials::Certificate {
                app_id: app_id.to_owned(),
                certificate,
                headers: given_headers.unwrap_or(TokenHeaders::Authorization),
                made: crate::signaling::TokenCache::default(),
            }),
            (None, None, None, None) => Err(AppError::SignIn(
                "it has no way to sign in: set AGORA_API_KEY and AGORA_API_SECRET (api_key, api_secret), or AGORA_TOKEN and AGORA_UID, or AGORA_APP_CERTIFICATE; each has a variant ending in _FILE",
            )),
            (Some(_), None, None, None) => {
                Err(AppError::SignIn("AGORA_API_KEY needs AGORA_API_SECRET"))
            }
            (None, Some(_), None, None) => {
                Err(AppError::SignIn("AGORA_API_SECRET needs AGORA_API_KEY"))
            }
            _ => Err(AppError::SignIn(
                "it has more than one way to sign in: keep one of AGORA_API_KEY with AGORA_API_SECRET, AGORA_TOKEN, and AGORA_APP_CERTIFICATE",
            )),
        }
    }
}

fn secret(
    name: &'static str,
    value: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<SecretSource>, AppError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(AppError::TwoSecrets(name)),
        (Some(value), None) => Ok(Some(SecretSource::value(value))),
        (None, Some(file)) => Ok(Some(SecretSource::file(file))),
        (None, None) => Ok(None),
    }
}

/// What a lease has to have beside the call: the wait for the slot, and time to record.
const LEASE_MARGIN: Duration = Duration::from_millis(840);

impl Timing {
    /// Times that go together. Without a lease, one that is long enough for the request timeout.
    ///
    /// # Errors
    /// Where a call could outlast its lease, or a time is zero.
    pub fn new(
        lease: Option<Duration>,
        request_timeout: Duration,
        connect_timeout: Duration,
        poll: Duration,
    ) -> Result<Self, ConfigError> {
        for (name, time) in [
            ("WORKER_REQUEST_TIMEOUT", request_timeout),
            ("WORKER_CONNECT_TIMEOUT", connect_timeout),
            ("WORKER_POLL", poll),
        ] {
            if time < Duration::from_millis(1) {
                return Err(ConfigError::Zero(name));
            }
        }
        let needed = request_timeout + HORIZON + TOLERANCE + LEASE_MARGIN;
        let lease = lease.unwrap_or(request_timeout + Duration::from_secs(15));
        if lease < needed {
            return Err(ConfigError::LeaseTooShort {
                lease,
                request_timeout,
                needed,
            });
        }
        Ok(Self {
            lease,
            request_timeout,
            connect_timeout,
            poll,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_that_would_share_a_budget_are_refused() {
        let app = |alias, id: &str| {
            RawApp {
                app_id: Some(id.into()),
                ..basic()
            }
            .check(alias)
            .expect("an app")
        };
        assert!(check_distinct(&[app("a", "1"), app("b", "2")]).is_ok());
        assert!(matches!(
            check_distinct(&[app("a", "1"), app("b", "1")]),
            Err(ConfigError::SameAppId(..))
        ));
    }

    fn basic() -> RawApp {
        RawApp {
            app_id: Some("id".into()),
            api_key: Some("key".into()),
            api_secret: Some("hush".into()),
            ..RawApp::default()
        }
    }

    #[test]
    fn each_way_to_sign_in_is_found_and_two_are_one_too_many() {
        assert!(matches!(
            basic().check("a").expect("an app").credentials,
            Credentials::Basic { .. }
        ));
        let token = RawApp {
            token: Some("T".into()),
            uid: Some("u".into()),
            app_id: Some("id".into()),
            ..RawApp::default()
        };
        assert!(matches!(
            token.check("a").expect("an app").credentials,
            Credentials::Token { .. }
        ));
        let certificate = RawApp {
            app_certificate: Some("c".into()),
            app_id: Some("id".into()),
            ..RawApp::default()
        };
        assert!(matches!(
            certificate.check("a").expect("an app").credentials,
            Credentials::Certificate { .. }
        ));
        for wrong in [
            RawApp {
                token: Some("T".into()),
                ..basic()
            },
            RawApp {
                api_secret: None,
                ..basic()
            },
            RawApp {
                api_secret_file: Some("/f".into()),
                ..basic()
            },
            RawApp {
                app_id: Some("id".into()),
                token: Some("T".into()),
                ..RawApp::default()
            },
            RawApp {
                app_id: Some("id".into()),
                ..RawApp::default()
            },
            RawApp {
                rate: Some(0.0),
                ..basic()
            },
            RawApp {
                rate: Some(f64::NAN),
                ..basic()
            },
            RawApp {
                max_in_flight: Some(0),
                ..basic()
            },
            RawApp {
                app_id: Some("a/b".into()),
                ..basic()
            },
            RawApp {
                base_url: Some("nowhere".into()),
                ..basic()
            },
        ] {
            assert!(wrong.check("a").is_err());
        }
        assert!(basic().check("no spaces").is_err());
    }

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

    #[test]
    fn a_lease_outlasts_the_wait_for_the_slot_and_the_call() {
        let (second, poll) = (Duration::from_secs(1), Duration::from_millis(500));
        let timing = |lease| Timing::new(lease, second, second, poll);
        assert!(matches!(
            timing(Some(second + Duration::from_millis(999))),
            Err(ConfigError::LeaseTooShort { .. })
        ));
        assert!(timing(Some(second * 3)).is_ok());
        assert!(timing(None).is_ok());
    }
}
