//! Accepted and refused credentials.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Credential;
use crate::credentials::admit;
use crate::token::tests::{CERTIFICATE, made};

const NOW_S: u64 = 1_800_000_000;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|&(name, value)| {
            let name = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        })
        .collect()
}

fn admits(credential: &Credential, sender: &str, pairs: &[(&'static str, &str)]) -> bool {
    let accepted = std::slice::from_ref(credential);
    admit(accepted, &headers(pairs), "app", sender, NOW_S)
}

fn key() -> Credential {
    Credential::Key {
        api_key: "key".to_owned(),
        api_secret: "secret".to_owned(),
    }
}

fn given_token(uid: Option<&str>) -> Credential {
    Credential::Token {
        token: "T".to_owned(),
        uid: uid.map(str::to_owned),
    }
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn without_credentials_every_call_is_accepted() {
    assert!(admit(&[], &headers(&[]), "app", "anyone", NOW_S));
}

#[test]
fn an_api_key_is_for_any_sender_and_needs_its_own_secret() {
    let right = basic("key:secret");
    assert!(admits(&key(), "anyone", &[("authorization", &right)]));
    for wrong in [
        basic("key:other"),
        basic("other:secret"),
        basic("key:"),
        "Basic !".to_owned(),
        "Basic".to_owned(),
        "Bearer key:secret".to_owned(),
    ] {
        assert!(
            !admits(&key(), "anyone", &[("authorization", &wrong)]),
            "{wrong}"
        );
    }
    assert!(!admits(&key(), "anyone", &[]));
}

#[test]
fn a_token_in_headers_is_only_for_the_user_in_the_uid_header() {
    let credentials = given_token(None);
    let pairs = [("x-agora-token", "T"), ("x-agora-uid", "alice")];
    assert!(admits(&credentials, "alice", &pairs));
    assert!(!admits(&credentials, "bob", &pairs));
    assert!(!admits(&credentials, "alice", &pairs[..1]));
    assert!(!admits(
        &credentials,
        "alice",
        &[("x-agora-token", "U"), ("x-agora-uid", "alice")]
    ));
}

#[test]
fn a_given_token_is_only_for_its_user() {
    let pairs = [("authorization", "agora token=T")];
    assert!(admits(&given_token(Some("alice")), "alice", &pairs));
    assert!(!admits(&given_token(Some("alice")), "bob", &pairs));
    assert!(admits(&given_token(None), "bob", &pairs));
    assert!(!admits(
        &given_token(None),
        "bob",
        &[("authorization", "agora token=U")]
    ));
}

#[test]
fn a_token_of_the_app_certificate_may_stand_in_either_header() {
    let credentials = Credential::Certificate(CERTIFICATE.to_owned());
    let token = made("app", "alice", u32::try_from(NOW_S).unwrap());
    let bearer = format!("agora token={token}");
    let in_headers = [("x-agora-token", token.as_str()), ("x-agora-uid", "alice")];
    assert!(admits(&credentials, "alice", &in_headers));
    assert!(admits(&credentials, "alice", &[("authorization", &bearer)]));
    assert!(!admits(&credentials, "bob", &[("authorization", &bearer)]));

    let expired = made("app", "alice", u32::try_from(NOW_S - 600).unwrap());
    let bearer = format!("agora token={expired}");
    assert!(!admits(
        &credentials,
        "alice",
        &[("authorization", &bearer)]
    ));
    let elsewhere = made("other app", "alice", u32::try_from(NOW_S).unwrap());
    let bearer = format!("agora token={elsewhere}");
    assert!(!admits(
        &credentials,
        "alice",
        &[("authorization", &bearer)]
    ));
}
