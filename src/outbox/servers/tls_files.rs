//! Checks the certificate and key files before the connection, because an error of the connection does not name the file.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::postgres::PgSslMode;

use super::parameters::{ParameterError, Parameters};
use crate::sanitize;

/// Far above the system's own certificate bundles of some 300 KB.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// Checks that the files can be used, unless the parameters ask for no TLS.
pub(super) fn check(parameters: &Parameters) -> Result<(), ParameterError> {
    if matches!(parameters.ssl_mode, PgSslMode::Disable | PgSslMode::Allow) {
        return Ok(());
    }
    for name in ["sslrootcert", "sslcert", "sslkey"] {
        let Some(file) = parameters.for_sqlx.get(name) else {
            continue;
        };
        let checked = sanitize::read_file(Path::new(&file.text), MAX_PEM_BYTES);
        let checked = checked.map_err(|error| error.to_string());
        let checked = checked.and_then(|pem| check_pem(&pem, name == "sslkey"));
        checked.map_err(|why| ParameterError::File {
            setting: file.setting.clone(),
            path: file.text.clone(),
            why,
        })?;
    }
    Ok(())
}

fn check_pem(pem: &[u8], is_key: bool) -> Result<(), String> {
    let (count, expected) = if is_key {
        let keys = PrivateKeyDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        (keys.map(|keys| keys.len()), "private key")
    } else {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        (certificates.map(|found| found.len()), "certificate")
    };
    match count {
        Ok(0) => Err(format!("it holds no {expected} in PEM form")),
        Ok(_) => Ok(()),
        // The text of the error may repeat a key.
        Err(_) => Err("it is not in PEM form".into()),
    }
}

/// Warns of a root certificate that has no effect, because this `sslmode` checks no certificate.
pub(super) fn warn_of_unchecked(parameters: &Parameters) {
    if let PgSslMode::Prefer | PgSslMode::Require = parameters.ssl_mode
        && let Some(file) = parameters.for_sqlx.get("sslrootcert")
    {
        tracing::warn!(
            event = "database_certificate_ignored",
            "{} has no effect: sslmode=prefer and sslmode=require check no certificate; write sslmode=verify-full",
            file.setting
        );
    }
}
