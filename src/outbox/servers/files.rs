//! Checks the files of the connection parameters at the start, because an error of the connection does not name the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use connection_parameters::Parameters;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::postgres::PgSslMode;

use crate::config::UsageError;
use crate::sanitize;

/// Far above the 300 KB of a system's own certificate bundle.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

pub(super) fn check_files(parameters: &Parameters) -> Result<(), UsageError> {
    if !parameters.for_sqlx.contains_key("password")
        && let Some(path) = std::env::var_os("PGPASSFILE")
    {
        let shown = path.display();
        check_password_file(Path::new(&path))
            .map_err(|why| UsageError(format!("PGPASSFILE: {shown} can't be used: {why}")))?;
    }
    if matches!(parameters.ssl_mode, PgSslMode::Disable | PgSslMode::Allow) {
        return Ok(());
    }
    for name in ["sslrootcert", "sslcert", "sslkey"] {
        if let Some(path) = parameters.for_sqlx.get(name) {
            check_pem(Path::new(path), name == "sslkey")
                .map_err(|why| UsageError(format!("{name}: {path} can't be used: {why}")))?;
        }
    }
    Ok(())
}

/// sqlx ignores a file that it can't use, as libpq does, and then the login fails without a reason.
fn check_password_file(path: &Path) -> Result<(), String> {
    match File::open(path).and_then(|file| file.metadata()) {
        Err(why) => Err(format!("{why}: correct the path, or unset the variable")),
        // An operator names /dev/null to use no password file.
        Ok(file) if file.is_file() && file.permissions().mode() & 0o077 != 0 => {
            Err("other users have access to it: run `chmod 600` on it".into())
        }
        Ok(_) => Ok(()),
    }
}

fn check_pem(path: &Path, is_key: bool) -> io::Result<()> {
    let pem = sanitize::read_file(path, MAX_PEM_BYTES)?;
    // The parser's own error may repeat a key.
    let no_pem = |needed| io::Error::other(format!("it has no {needed} in PEM form"));
    if is_key {
        let key = PrivateKeyDer::from_pem_slice(&pem);
        return key.map(drop).map_err(|_| no_pem("unencrypted private key"));
    }
    let certificate = CertificateDer::from_pem_slice(&pem);
    certificate.map(drop).map_err(|_| no_pem("certificate"))
}
