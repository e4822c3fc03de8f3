//! Tokens of the 007 kind, made from the app ID and the app certificate.
//!
//! The format is the vendor's public one (`AccessToken2` of its token builder): all integers little-endian, a string
//! is its u16 length and its bytes; `"007" + base64(zlib(string(signature) + info))`.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The API rejects a token with a longer lifetime.
pub(crate) const MAX_LIFETIME_S: u32 = 24 * 60 * 60;

const SERVICE_RTM: u16 = 2;
const PRIVILEGE_RTM_LOGIN: u16 = 1;

/// The user may log in to the messaging of the app until the token expires.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenClaims<'a> {
    pub(crate) app_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) issued_at_s: u32,
    pub(crate) expires_in_s: u32,
    /// A random number that makes the signature unique.
    pub(crate) salt: u32,
}

/// Makes a token. `certificate` is the app certificate as the vendor's console shows it.
pub(crate) fn make(claims: TokenClaims<'_>, certificate: &str) -> String {
    let mut compressed = ZlibEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail, and the API would answer 401 to a token that is cut short.
    let packed = compressed
        .write_all(&signed(claims, certificate))
        .and_then(|()| compressed.finish())
        .unwrap_or_default();
    format!("007{}", STANDARD.encode(packed))
}

/// The signature and the signed claims, before compression.
fn signed(claims: TokenClaims<'_>, certificate: &str) -> Vec<u8> {
    let mut info = Vec::new();
    put_string(&mut info, claims.app_id.as_bytes());
    for number in [claims.issued_at_s, claims.expires_in_s, claims.salt] {
        info.extend(number.to_le_bytes());
    }
    let (services, privileges) = (1, 1);
    for number in [services, SERVICE_RTM, privileges, PRIVILEGE_RTM_LOGIN] {
        info.extend(number.to_le_bytes());
    }
    info.extend(claims.expires_in_s.to_le_bytes());
    put_string(&mut info, claims.user_id.as_bytes());

    let issued_key = hmac_sha256(&claims.issued_at_s.to_le_bytes(), certificate.as_bytes());
    let key = hmac_sha256(&claims.salt.to_le_bytes(), &issued_key);
    let mut signed = Vec::new();
    put_string(&mut signed, &hmac_sha256(&key, &info));
    signed.extend(info);
    signed
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // App IDs, user IDs and signatures are all far below 65,536 bytes.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_le_bytes());
    out.extend(&bytes[..usize::from(length)]);
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// The vendor's public test values.
    const CLAIMS: TokenClaims<'_> = TokenClaims {
        app_id: "970CA35de60c44645bbae8a215061b33",
        user_id: "test_user",
        issued_at_s: 1_111_111,
        expires_in_s: 600,
        salt: 1,
    };
    const CERTIFICATE: &str = "5CFd2fd1755d40ecb72977518be15d3b";
    const KNOWN: &str = "20000d9a1df8a4e60649a82d4a68fb1f49581fb4d227b8f0b65773b79f1c89e7eb7c2000393730434133356465363063343436343562626165386132313530363162333347f4100058020000010000000100020001000100580200000900746573745f75736572";

    #[test]
    fn a_token_is_the_vendors_known_answer() {
        let token = make(CLAIMS, CERTIFICATE);
        let packed = STANDARD
            .decode(token.strip_prefix("007").expect("the version"))
            .expect("base64");
        let mut inflated = Vec::new();
        flate2::read::ZlibDecoder::new(packed.as_slice())
            .read_to_end(&mut inflated)
            .expect("zlib");
        let known: Vec<u8> = (0..KNOWN.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&KNOWN[at..at + 2], 16).expect("hex"))
            .collect();
        assert_eq!(inflated, known);
    }
}
