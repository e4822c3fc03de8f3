//! Which certificates the worker trusts, and what an operator can do about a certificate that it does not trust.

use std::error::Error;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::config::UsageError;
use crate::sanitize::read_file;

/// Several times the size of all public authorities together.
const MAX_CA_FILE_BYTES: u64 = 2 * 1024 * 1024;

/// TLS that trusts the certificates of a file beside the public ones.
pub(crate) fn tls_config(ca_file: Option<&Path>) -> Result<ClientConfig, UsageError> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(path) = ca_file {
        add_certificates(&mut roots, path).map_err(|why| {
            let path = path.display();
            UsageError(format!("the CA file {path} can't be used: {why}"))
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
    match rustls_error(error)? {
        // A CA that was made anew under the same name leads to a bad signature.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(format!(
            "its certificate is signed by no CA that is trusted here: name the file with the CA's certificate in {trusted_in}"
        )),
        rustls::Error::InvalidCertificate(why) => {
            Some(format!("its certificate is not accepted: {why}"))
        }
        _ => None,
    }
}

/// The error of rustls within [`std::io::Error`]s, which do not show it as their `source`.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let io_error = error.downcast_ref::<std::io::Error>();
        error = match io_error.and_then(std::io::Error::get_ref) {
            Some(inner) => inner,
            None => error.source()?,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_rejected_certificate_is_found_within_other_errors() {
        for (why, text) in [
            (CertificateError::UnknownIssuer, "in CA_FILE"),
            (CertificateError::Revoked, "Revoked"),
        ] {
            let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::from(why));
            let wrapped = anyhow::Error::new(io::Error::other(inner)).context("no connection");
            let text_of = rejected_certificate(wrapped.as_ref(), "CA_FILE").expect("a reason");
            assert!(text_of.contains(text), "{text_of}");
        }
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(rejected_certificate(&refused, "CA_FILE"), None);
    }
}
