//! Checks the certificate and key files before the connection, because an error of the connection does not name the file.

use std::path::PathBuf;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::postgres::PgSslMode;

use super::parameters::{NamedFile, Parameters};
use crate::sanitize;

/// Far above the system's own certificate bundles of some 300 KB.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// The file of a parameter has no usable certificate or key.
#[derive(Debug, thiserror::Error)]
#[error("{setting} names {path}: {why}", path = .path.display())]
pub(crate) struct TlsFileError {
    setting: String,
    path: PathBuf,
    why: String,
}

/// Checks that the files can be used, unless the parameters ask for no TLS.
pub(super) fn check(parameters: &Parameters) -> Result<(), TlsFileError> {
    if matches!(parameters.ssl_mode, PgSslMode::Disable | PgSslMode::Allow) {
        return Ok(());
    }
    if let Some(file) = &parameters.root_certificate {
        check_certificates(file)?;
    }
    if let Some(file) = &parameters.client_certificate {
        check_certificates(file)?;
    }
    if let Some(file) = &parameters.client_key {
        PrivateKeyDer::from_pem_slice(&read(file)?)
            .map_err(|error| unusable(file, &error, "no private key"))?;
    }
    Ok(())
}

/// Warns of a root certificate that has no effect, because this `sslmode` checks no certificate.
pub(super) fn warn_of_unchecked(parameters: &Parameters) {
    let mode = match parameters.ssl_mode {
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::VerifyCa | PgSslMode::VerifyFull => {
            return;
        }
    };
    if let Some(file) = &parameters.root_certificate {
        tracing::warn!(
            event = "database_certificate_ignored",
            "{} has no effect: sslmode={mode} checks no certificate; write sslmode=verify-full",
            file.setting
        );
    }
}

fn read(file: &NamedFile) -> Result<Vec<u8>, TlsFileError> {
    sanitize::read_file(&file.path, MAX_PEM_BYTES).map_err(|error| TlsFileError {
        setting: file.setting.clone(),
        path: file.path.clone(),
        why: error.to_string(),
    })
}

fn check_certificates(file: &NamedFile) -> Result<(), TlsFileError> {
    let wrong = |error| unusable(file, &error, "no certificate");
    let pem = read(file)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    certificates
        .next()
        .unwrap_or(Err(pem::Error::NoItemsFound))
        .map_err(wrong)?;
    certificates.try_for_each(|certificate| certificate.map(drop).map_err(wrong))
}

fn unusable(file: &NamedFile, error: &pem::Error, nothing: &str) -> TlsFileError {
    let why = match error {
        pem::Error::NoItemsFound => format!("it holds {nothing} in PEM form"),
        // The error may repeat a key.
        _ => "it is not in PEM form".into(),
    };
    TlsFileError {
        setting: file.setting.clone(),
        path: file.path.clone(),
        why,
    }
}
