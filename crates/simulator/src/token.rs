//! Verifies tokens of version 007 for the service RTM alone, as the worker makes them.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::body::Buf as _;
use sha2::Sha256;

/// Bounds the memory that a hostile token can take when it is inflated.
const MAX_INFLATED_BYTES: u64 = 16 * 1024;
const MAX_LIFETIME_S: u32 = 86_400;

const SERVICE_RTM: u16 = 2;
const PRIVILEGE_RTM_LOGIN: u16 = 1;

/// Checks that the certificate has signed the token, and that the token lets `user_id` log in to `app_id` at `now_s` of Unix
/// time.
pub(super) fn admits(
    token: &str,
    certificate: &str,
    app_id: &str,
    user_id: &str,
    now_s: u64,
) -> bool {
    let is_valid = || check(&inflated(token)?, certificate, app_id, user_id, now_s);
    is_valid().unwrap_or(false)
}

fn inflated(token: &str) -> Option<Vec<u8>> {
    let deflated = STANDARD.decode(token.strip_prefix("007")?).ok()?;
    let mut inflated = Vec::new();
    let decoder = ZlibDecoder::new(deflated.as_slice());
    let mut decoder = decoder.take(MAX_INFLATED_BYTES);
    decoder.read_to_end(&mut inflated).ok()?;
    Some(inflated)
}

/// Returns nothing if a field is missing or the signature is wrong.
fn check(
    mut rest: &[u8],
    certificate: &str,
    app_id: &str,
    user_id: &str,
    now_s: u64,
) -> Option<bool> {
    let signature = string(&mut rest)?;
    let signed = rest;
    let is_of_app = string(&mut rest)? == app_id.as_bytes();
    let issued_at_s = rest.try_get_u32_le().ok()?;
    let expires_in_s = rest.try_get_u32_le().ok()?;
    let salt = rest.try_get_u32_le().ok()?;
    let key = hmac(&issued_at_s.to_le_bytes(), certificate.as_bytes())?;
    let key = hmac(&salt.to_le_bytes(), &key.finalize().into_bytes())?;
    let expected = hmac(&key.finalize().into_bytes(), signed)?;
    expected.verify_slice(signature).ok()?;

    let services = rest.try_get_u16_le().ok()?;
    let service = rest.try_get_u16_le().ok()?;
    let privileges = rest.try_get_u16_le().ok()?;
    let mut may_log_in = false;
    for _ in 0..privileges {
        may_log_in |= rest.try_get_u16_le().ok()? == PRIVILEGE_RTM_LOGIN;
        let _expires_in_s = rest.try_get_u32_le().ok()?;
    }
    let is_of_user = string(&mut rest)? == user_id.as_bytes();
    let expires_at_s = u64::from(issued_at_s) + u64::from(expires_in_s);
    Some(
        (services, service) == (1, SERVICE_RTM)
            && may_log_in
            && is_of_app
            && is_of_user
            && expires_in_s <= MAX_LIFETIME_S
            && now_s < expires_at_s,
    )
}

/// Reads a length, and as many bytes.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = rest.try_get_u16_le().ok()?;
    rest.split_off(..usize::from(length))
}

fn hmac(key: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    const APP_ID: &str = "970CA35de60c44645bbae8a215061b33";
    pub(crate) const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";
    const KNOWN: &str = "20000d9a1df8a4e60649a82d4a68fb1f49581fb4d227b8f0b65773b79f1c89e7eb7c\
        2000393730434133356465363063343436343562626165386132313530363162333347f4100058020000\
        010000000100020001000100580200000900746573745f75736572";

    fn known_bytes() -> Vec<u8> {
        (0..KNOWN.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&KNOWN[at..at + 2], 16).unwrap())
            .collect()
    }

    fn deflated(inflated: &[u8]) -> String {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(inflated).unwrap();
        format!("007{}", STANDARD.encode(encoder.finish().unwrap()))
    }

    /// A token as the worker makes it.
    pub(crate) fn made(app_id: &str, user_id: &str, issued_at_s: u32) -> String {
        let text = |text: &str| {
            let mut bytes = u16::try_from(text.len()).unwrap().to_le_bytes().to_vec();
            bytes.extend(text.as_bytes());
            bytes
        };
        let mut info = text(app_id);
        for number in [issued_at_s, 600, 7] {
            info.extend(number.to_le_bytes());
        }
        for number in [1_u16, SERVICE_RTM, 1, PRIVILEGE_RTM_LOGIN] {
            info.extend(number.to_le_bytes());
        }
        info.extend(600_u32.to_le_bytes());
        info.extend(text(user_id));
        let hmac = |key: &[u8], message: &[u8]| {
            let mac = hmac(key, message).unwrap();
            mac.finalize().into_bytes()
        };
        let key = hmac(&issued_at_s.to_le_bytes(), CERTIFICATE.as_bytes());
        let key = hmac(&7_u32.to_le_bytes(), &key);
        let mut inflated = 32_u16.to_le_bytes().to_vec();
        inflated.extend(hmac(&key, &info));
        inflated.extend(info);
        deflated(&inflated)
    }

    /// Checks the token at a moment after its issue.
    fn checked(token: &[u8], app_id: &str, user_id: &str, after_s: u64) -> Option<bool> {
        check(token, CERTIFICATE, app_id, user_id, 1_111_111 + after_s)
    }

    #[test]
    fn the_known_token_is_verified() {
        let token = deflated(&known_bytes());
        let admits = |certificate: &str| {
            let last_s = 1_111_111 + 599;
            admits(&token, certificate, APP_ID, "test_user", last_s)
        };
        assert!(admits(CERTIFICATE));
        assert!(!admits("another certificate"));
    }

    #[test]
    fn a_token_admits_only_its_app_its_user_and_its_time() {
        let token = known_bytes();
        assert_eq!(checked(&token, APP_ID, "test_user", 0), Some(true));
        assert_eq!(checked(&token, "another app", "test_user", 0), Some(false));
        assert_eq!(checked(&token, APP_ID, "another_user", 0), Some(false));
        assert_eq!(checked(&token, APP_ID, "test_user", 600), Some(false));
    }

    #[test]
    fn a_changed_token_is_not_signed() {
        let mut bytes = known_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(checked(&bytes, APP_ID, "test_user", 0), None);
    }

    #[test]
    fn a_cut_token_is_refused_wherever_it_is_cut() {
        let bytes = known_bytes();
        for end in 0..bytes.len() {
            assert_eq!(checked(&bytes[..end], APP_ID, "test_user", 0), None);
        }
    }

    #[test]
    fn other_text_is_not_a_token() {
        for text in ["006abc", "007abc", "007AAAA"] {
            assert!(!admits(text, CERTIFICATE, APP_ID, "test_user", 1_111_111));
        }
    }
}
