//! One app's settings: as they are given, and checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::message::{InvalidMessage, Name};
use crate::secret::{
    MAX_SECRET_BYTES, SecretError, SecretSource, given, given_path, is_impossible,
};
use crate::signaling::{BaseUrl, Credentials, DEFAULT_BASE_URL, InvalidBaseUrl, TokenHeaders};

/// The API's limit for an app ID: calls of both kinds together, in a second.
const DEFAULT_LIMIT_PER_S: f64 = 500.0;
/// Calls of one app that may be under way at once in one process.
const DEFAULT_MAX_IN_FLIGHT: usize = 1_024;
#[derive(Debug)]
pub(crate) struct AppConfig {
    /// Its alias: the column `app` of its rows.
    pub(crate) alias: String,
    pub(crate) app_id: String,
    pub(crate) credentials: Credentials,
    /// The API's hosts: the first one, and others for when that fails.
    pub(crate) base_urls: Vec<BaseUrl>,
    /// Certificates to trust beside the public ones.
    pub(crate) ca_file: Option<PathBuf>,
    /// Calls a second that the API allows, fleet-wide.
    pub(crate) limit_per_s: f64,
    /// Calls that may be under way at once in this process.
    pub(crate) max_in_flight: usize,
}
/// What can be wrong with an app.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    /// The alias can't stand in the column.
    #[error("its name is not 1 to 64 letters, digits, dots, dashes or underscores")]
    Alias,
    #[error("it has no app ID: set AGORA_APP_ID (app_id in a file)")]
    NoAppId,
    #[error("its app ID is not 1 to 128 letters, digits, dashes or underscores")]
    AppId,
    /// No way to sign in, or more than one, or half of one.
    #[error("{0}")]
    Authenticator(&'static str),
    /// A value and a file for the same secret.
    #[error("{0} is given both as a value and as a file: leave out one")]
    TwoSecrets(&'static str),
    /// A secret is too long for one.
    #[error("{0} has more than 16 KiB: is it the right value?")]
    SecretTooLong(&'static str),
    #[error(
        "{0} has a line break or a control character inside, or is not UTF-8: set it to the value alone"
    )]
    Impossible(&'static str),
    /// The user of a token is none.
    #[error("AGORA_UID (uid): {0}")]
    Uid(InvalidMessage),
    /// Not a known place for tokens.
    #[error("AGORA_TOKEN_HEADERS (token_headers) is not x-agora or authorization")]
    TokenHeaders,
    /// The base URL is none.
    #[error("AGORA_BASE_URL (base_url): {0}")]
    BaseUrl(#[from] InvalidBaseUrl),
    /// A secret can't be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "a rate of {0} calls a second is not between 1 and 1,000,000: change WORKER_RATE (rate)"
    )]
    Rate(f64),
    /// No room for a call.
    #[error("WORKER_MAX_IN_FLIGHT (max_in_flight) is not between 1 and 100,000")]
    MaxInFlight,
}

/// An app's settings as they are given, in the environment or in a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawApp {
    pub(crate) app_id: Option<String>,
    pub(crate) api_key: Option<String>,
    pub(crate) api_key_file: Option<PathBuf>,
    pub(crate) api_secret: Option<String>,
    pub(crate) api_secret_file: Option<PathBuf>,
    pub(crate) token: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) uid: Option<String>,
    pub(crate) app_certificate: Option<String>,
    pub(crate) app_certificate_file: Option<PathBuf>,
    pub(crate) token_headers: Option<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) rate: Option<f64>,
    pub(crate) max_in_flight: Option<usize>,
}
/// What the environment gives for one app: secrets have no flags, so that they stand in no list of processes.
pub(crate) fn secrets_from(variable: impl Fn(&str) -> Option<String>) -> RawApp {
    let text = |name: &str| given(&variable(name)?).map(str::to_owned);
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
/// Checks that no two apps share a budget of calls.
///
/// # Errors
/// Where two have the same app ID.
pub(crate) fn check_distinct(apps: &[AppConfig]) -> Result<(), ConfigError> {
    let mut aliases = BTreeMap::new();
    for app in apps {
        if let Some(other) = aliases.insert(&app.app_id, &app.alias) {
            return Err(ConfigError::SameAppId(other.clone(), app.alias.clone()));
        }
    }
    Ok(())
}

impl RawApp {
    /// True if nothing at all is said of an app.
    pub(crate) fn is_empty(&self) -> bool {
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
    pub(crate) fn check(self, alias: &str) -> Result<AppConfig, ConfigError> {
        self.trimmed()
            .into_app(alias)
            .map_err(|source| ConfigError::App {
                alias: alias.to_owned(),
                source,
            })
    }

    /// Each value without the invisible characters around it.
    fn trimmed(self) -> Self {
        let text = |text: Option<String>| given(&text?).map(str::to_owned);
        let path = |path: Option<PathBuf>| given_path(&path?).map(PathBuf::from);
        Self {
            app_id: text(self.app_id),
            api_key: text(self.api_key),
            api_key_file: path(self.api_key_file),
            api_secret: text(self.api_secret),
            api_secret_file: path(self.api_secret_file),
            token: text(self.token),
            token_file: path(self.token_file),
            uid: text(self.uid),
            app_certificate: text(self.app_certificate),
            app_certificate_file: path(self.app_certificate_file),
            token_headers: text(self.token_headers),
            base_url: text(self.base_url),
            ca_file: path(self.ca_file),
            rate: self.rate,
            max_in_flight: self.max_in_flight,
        }
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
        let base_urls = BaseUrl::parse_list(self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL))?;
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
            Some(_) => return Err(AppError::TokenHeaders),
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
                uid: Name::sender(self.uid.ok_or(AppError::Authenticator(
                    "AGORA_TOKEN needs AGORA_UID (uid): the user that the token was made for",
                ))?)
                .map_err(AppError::Uid)?,
                headers: given_headers.unwrap_or(TokenHeaders::XAgora),
            }),
            (None, None, None, Some(certificate)) => Ok(Credentials::Certificate {
                app_id: app_id.to_owned(),
                certificate,
                headers: given_headers.unwrap_or(TokenHeaders::Authorization),
            }),
            (None, None, None, None) => Err(AppError::Authenticator(
                "it has no way to sign in: set AGORA_API_KEY and AGORA_API_SECRET (api_key, api_secret), or AGORA_TOKEN and AGORA_UID, or AGORA_APP_CERTIFICATE; each has a variant ending in _FILE",
            )),
            (Some(_), None, None, None) => Err(AppError::Authenticator(
                "AGORA_API_KEY needs AGORA_API_SECRET",
            )),
            (None, Some(_), None, None) => Err(AppError::Authenticator(
                "AGORA_API_SECRET needs AGORA_API_KEY",
            )),
            _ => Err(AppError::Authenticator(
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
        (Some(value), None) if value.len() as u64 > MAX_SECRET_BYTES => {
            Err(AppError::SecretTooLong(name))
        }
        (Some(value), None) if is_impossible(&value) => Err(AppError::Impossible(name)),
        (Some(value), None) => Ok(Some(SecretSource::value(value))),
        (None, Some(file)) => Ok(Some(SecretSource::file(file))),
        (None, None) => Ok(None),
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
    fn an_app_without_a_base_url_calls_the_vendors_first_host_alone() {
        let hosts = |base_url: Option<&str>| {
            let app = RawApp {
                base_url: base_url.map(str::to_owned),
                ..basic()
            };
            app.check("a").expect("an app").base_urls.len()
        };
        assert_eq!((hosts(None), hosts(Some("global"))), (1, 2));
    }

    #[test]
    fn every_value_is_taken_without_what_nobody_sees_around_it() {
        let around = |value: &str| Some(format!("\u{feff} {value}\u{a0}\r\n"));
        let app = RawApp {
            app_id: around("id"),
            token: around("T"),
            uid: around("u"),
            token_headers: around("authorization"),
            base_url: around("http://127.0.0.1:1"),
            api_key_file: Some("\r\n".into()),
            ..RawApp::default()
        };
        let app = app.check("a").expect("an app");
        assert_eq!(app.app_id, "id");
        let sender = Name::sender("u").expect("a user");
        let signed_in = app.credentials.authenticate(&sender).expect("headers");
        assert_eq!(
            signed_in.headers[0].1.to_str().expect("text"),
            "agora token=T"
        );
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
                api_secret: Some("x".repeat(20_000)),
                ..basic()
            },
            RawApp {
                api_key: Some("two\nlines".into()),
                ..basic()
            },
            RawApp {
                api_key: Some(" \r\n".into()),
                ..basic()
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
}
