//! What it means that a certificate is refused, for whoever can put it right.

use std::error::Error;

use rustls::CertificateError;
use time::OffsetDateTime;

/// Why a TLS handshake failed, if it was for the other side's certificate. `trusted_in` is the setting that names the
/// certificates of CAs to trust.
pub(crate) fn refused_certificate(
    error: &(dyn Error + 'static),
    trusted_in: &str,
) -> Option<String> {
    let rustls::Error::InvalidCertificate(why) = rustls_error(error)? else {
        return None;
    };
    Some(match why {
        // The latter is what a CA that was made anew under the same name leads to.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "its certificate is signed by no CA that is trusted here: name the file with the CA's certificate in {trusted_in}"
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "its certificate is for {}, not for {}",
            names(presented),
            expected.to_str()
        ),
        CertificateError::NotValidForName => "its certificate is for another host".into(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate has expired{}", on_day(not_after.as_secs()))
        }
        CertificateError::Expired => "its certificate has expired".into(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "its certificate is not valid yet: it begins{}",
            on_day(not_before.as_secs())
        ),
        CertificateError::NotValidYet => "its certificate is not valid yet".into(),
        _ => return None,
    })
}

/// What rustls said, in as many [`std::io::Error`]s as it is wrapped; those do not tell of what they hold by `source`.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

/// The names of a certificate, which come as `DnsName("example.com")`.
fn names(presented: &[String]) -> String {
    let name = |name: &String| {
        let (_, inner) = name.split_once('(')?;
        Some(inner.strip_suffix(')')?.trim_matches('"').to_owned())
    };
    let names: Vec<_> = presented
        .iter()
        .map(|presented| name(presented).unwrap_or_else(|| presented.clone()))
        .collect();
    match names.as_slice() {
        [] => "no host".into(),
        names => names.join(", "),
    }
}

fn on_day(unix_time_s: u64) -> String {
    i64::try_from(unix_time_s)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .map_or_else(String::new, |time| format!(" on {}", time.date()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use rustls::pki_types::UnixTime;

    use super::*;

    fn said(why: CertificateError) -> Option<String> {
        // As hyper-rustls hands it on.
        let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::from(why));
        refused_certificate(&io::Error::other(inner), "CA_FILE")
    }

    #[test]
    fn a_refusal_says_what_to_put_right() {
        let second = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let unknown = said(CertificateError::UnknownIssuer).unwrap();
        assert!(unknown.ends_with("in CA_FILE"), "{unknown}");
        let name = CertificateError::NotValidForNameContext {
            expected: "db.example".try_into().unwrap(),
            presented: vec![
                "DnsName(\"a.example\")".into(),
                "IpAddress(10.0.0.1)".into(),
            ],
        };
        assert_eq!(
            said(name).unwrap(),
            "its certificate is for a.example, 10.0.0.1, not for db.example"
        );
        let expired = CertificateError::ExpiredContext {
            time: second(2_000_000_000),
            not_after: second(1_000_000_000),
        };
        assert_eq!(
            said(expired).unwrap(),
            "its certificate has expired on 2001-09-09"
        );
    }

    #[test]
    fn other_failures_are_left_to_their_own_words() {
        assert_eq!(said(CertificateError::BadEncoding), None);
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(refused_certificate(&refused, "CA_FILE"), None);
    }
}
