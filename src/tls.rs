//! Which certificates the worker trusts, and what an operator can do about a certificate that it does not trust.

use std::error::Error;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use time::OffsetDateTime;

use crate::sanitize::read_file;

/// Several times the size of all public authorities together.
const MAX_CA_FILE_BYTES: u64 = 2 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("the CA file {path} can't be used: {why}", path = .path.display())]
pub(crate) struct InvalidCaFile {
    path: PathBuf,
    why: String,
}

/// TLS that trusts the certificates of a file beside the public ones.
pub(crate) fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, InvalidCaFile> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(path) = ca_file {
        add_certificates(&mut roots, path).map_err(|error| InvalidCaFile {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    }
    let provider = rustls::crypto::ring::default_provider();
    Ok(ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring supports the versions of the features of rustls")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add_certificates(roots: &mut RootCertStore, path: &Path) -> Result<(), Box<dyn Error>> {
    let public = roots.len();
    for certificate in CertificateDer::pem_slice_iter(&read_file(path, MAX_CA_FILE_BYTES)?) {
        roots.add(certificate?)?;
    }
    if roots.len() == public {
        return Err("it has no certificate in PEM form".into());
    }
    Ok(())
}

/// The reason why the worker rejected the other side's certificate, if that made a TLS handshake fail. `trusted_in` is the
/// setting that names the certificates of CAs to trust.
pub(crate) fn rejected_certificate(
    error: &(dyn Error + 'static),
    trusted_in: &str,
) -> Option<String> {
    let rustls::Error::InvalidCertificate(why) = rustls_error(error)? else {
        return None;
    };
    Some(match why {
        // A CA that was made anew under the same name leads to a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "its certificate is signed by no CA that is trusted here: name the file with the CA's certificate in {trusted_in}"
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<_> = presented.iter().map(|name| host_of(name)).collect();
            let names = names.join(", ");
            format!(
                "its certificate is for {names}, not for {}",
                expected.to_str()
            )
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!(
                "its certificate has expired on {}",
                day(not_after.as_secs())
            )
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid yet: it begins on {}",
            day(not_before.as_secs())
        ),
        _ => return None,
    })
}

/// The error of rustls within [`std::io::Error`]s, which do not show it as their `source`.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

/// The host in a name of a certificate like `DnsName("example.com")`.
fn host_of(name: &str) -> &str {
    let host = name.split_once('(').map_or(name, |(_, host)| host);
    host.trim_end_matches(')').trim_matches('"')
}

fn day(unix_time_s: u64) -> String {
    i64::try_from(unix_time_s)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .map_or_else(|| "an unknown day".into(), |time| time.date().to_string())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    /// The text for an error in the wrapping of hyper-rustls.
    fn text(why: CertificateError) -> Option<String> {
        let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::from(why));
        rejected_certificate(&io::Error::other(inner), "CA_FILE")
    }

    #[test]
    fn a_rejection_names_the_action() {
        let second = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let unknown = text(CertificateError::UnknownIssuer).unwrap();
        assert!(unknown.ends_with("in CA_FILE"), "{unknown}");
        let name = CertificateError::NotValidForNameContext {
            expected: "db.example".try_into().unwrap(),
            presented: vec![
                "DnsName(\"a.example\")".into(),
                "IpAddress(10.0.0.1)".into(),
            ],
        };
        assert_eq!(
            text(name).unwrap(),
            "its certificate is for a.example, 10.0.0.1, not for db.example"
        );
        let expired = CertificateError::ExpiredContext {
            time: second(2_000_000_000),
            not_after: second(1_000_000_000),
        };
        assert_eq!(
            text(expired).unwrap(),
            "its certificate has expired on 2001-09-09"
        );
    }

    #[test]
    fn other_failures_keep_their_own_text() {
        assert_eq!(text(CertificateError::BadEncoding), None);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(rejected_certificate(&refused, "CA_FILE"), None);
    }
}
