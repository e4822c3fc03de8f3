//! The files that a database's URL names for TLS. They are looked at first: what is wrong with one is told without its
//! name when the connection is made, and some of it not at all.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::sanitize;

/// The system's own collections of certificates have some 300 KB.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// A file that a URL names does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error("{setting} of DATABASE_URL names {path}: {why}", path = .path.display())]
pub(crate) struct TlsFileError {
    /// The parameter of the URL.
    setting: &'static str,
    path: PathBuf,
    why: String,
}

/// The parameters that name files, as sqlx knows them.
const ROOT_CERTIFICATE: &[&str] = &["sslrootcert", "ssl-root-cert", "ssl-ca"];
const CLIENT_CERTIFICATE: &[&str] = &["sslcert", "ssl-cert"];
const CLIENT_KEY: &[&str] = &["sslkey", "ssl-key"];

/// Checks that the files that a URL names for TLS can be used. A URL that is none passes: connecting says so. So does
/// one that asks for no TLS.
pub(crate) fn check_tls_files(url: &SecretString) -> Result<(), TlsFileError> {
    let url = url.expose_secret();
    let Ok(options) = PgConnectOptions::from_str(url) else {
        return Ok(());
    };
    let unchecked = match options.get_ssl_mode() {
        PgSslMode::Disable | PgSslMode::Allow => return Ok(()),
        PgSslMode::Prefer => Some("prefer"),
        PgSslMode::Require => Some("require"),
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => None,
    };
    if let Some(path) = file(url, ROOT_CERTIFICATE) {
        check_certificates("sslrootcert", &path)?;
        if let Some(mode) = unchecked {
            tracing::warn!(
                event = "database_certificate_ignored",
                "sslrootcert of DATABASE_URL has no effect: sslmode={mode} checks no certificate; write sslmode=verify-full"
            );
        }
    }
    if let Some(path) = file(url, CLIENT_CERTIFICATE) {
        check_certificates("sslcert", &path)?;
    }
    if let Some(path) = file(url, CLIENT_KEY) {
        PrivateKeyDer::from_pem_slice(&read("sslkey", &path)?)
            .map_err(|error| unusable("sslkey", &path, &error, "no private key"))?;
    }
    Ok(())
}

/// The parameters of a URL with their values.
pub(in crate::outbox) fn url_parameters(url: &str) -> form_urlencoded::Parse<'_> {
    let (_, query) = url.split_once('?').unwrap_or_default();
    let query = query.split('#').next().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
}

/// The value of a parameter of a URL, under any of its names; the last one counts.
fn file(url: &str, names: &[&str]) -> Option<PathBuf> {
    url_parameters(url)
        .filter(|(name, _)| names.contains(&&**name))
        .last()
        .map(|(_, path)| PathBuf::from(path.into_owned()))
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    sanitize::read_file(path, MAX_PEM_BYTES).map_err(|error| TlsFileError {
        setting,
        path: path.to_owned(),
        why: error.to_string(),
    })
}

fn check_certificates(setting: &'static str, path: &Path) -> Result<(), TlsFileError> {
    let wrong = |error| unusable(setting, path, &error, "no certificate");
    let pem = read(setting, path)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    certificates
        .next()
        .unwrap_or(Err(pem::Error::NoItemsFound))
        .map_err(wrong)?;
    certificates.try_for_each(|certificate| certificate.map(drop).map_err(wrong))
}

fn unusable(setting: &'static str, path: &Path, error: &pem::Error, nothing: &str) -> TlsFileError {
    let why = match error {
        pem::Error::NoItemsFound => format!("it holds {nothing} in PEM form"),
        // What stands in the file is not told: it may be a key.
        _ => "it is not in PEM form".into(),
    };
    TlsFileError {
        setting,
        path: path.to_owned(),
        why,
    }
}
