//! Detects responses that repeat the payload or the secrets of their own request.
//!
//! Some gateways repeat the request in an error. The worker stores such texts in the outbox and the lane's row and logs them,
//! and neither a payload nor a secret may get there. So the worker compares each text with its request.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use secrecy::{ExposeSecret, SecretString};

use crate::message::Payload;

/// A text and a payload may share fewer letters in a row by chance.
const PAYLOAD_RUN: usize = 16;
const SECRET_RUN: usize = 8;
/// A shorter payload or secret, like `ok`, is part of many ordinary texts.
const MIN_HIDDEN: usize = 4;
/// The longest word that a reason may have. Base64 of 31 bytes is longer.
const MAX_WORD: usize = 40;

/// The payload and the secrets of a request, without `Debug`, so that neither reaches a log.
#[derive(Clone, Default)]
pub(crate) struct EchoFilter {
    pub(crate) payload: Payload,
    pub(crate) secrets: Vec<SecretString>,
}

impl EchoFilter {
    /// True for a reason that repeats nothing and has no long word, which may be an encoded payload.
    pub(crate) fn allows_reason(&self, text: &str) -> bool {
        let is_encoded = |c: char| c.is_ascii_alphanumeric() || "+/=-_%\\".contains(c);
        self.allows_id(text) && text.split(|c| !is_encoded(c)).all(|w| w.len() <= MAX_WORD)
    }

    /// True for a request ID that repeats nothing. An ID may be a long word.
    pub(crate) fn allows_id(&self, text: &str) -> bool {
        let text = letters(text);
        let mut secrets = self.secrets.iter();
        !secrets.any(|secret| shares_run(&text, secret.expose_secret(), SECRET_RUN))
            && !shares_run(&text, self.payload.as_str(), PAYLOAD_RUN)
    }
}

/// True if `text` has `run` bytes in a row of the letters of `hidden`, or all letters of a shorter `hidden`.
fn shares_run(text: &[u8], hidden: &str, run: usize) -> bool {
    let hidden = letters(hidden);
    let run = run.min(hidden.len());
    if run < MIN_HIDDEN || text.len() < run {
        return false;
    }
    // With the standard hasher, this set took a tenth of a message's instructions.
    let seen: HashSet<&[u8], RandomState> = text.windows(run).collect();
    hidden.windows(run).any(|window| seen.contains(window))
}

/// The letters and digits of a text in lower case, without escapes like `%20` and `\u00e9`. So neither quoting nor escaping
/// of punctuation breaks a run.
fn letters(text: &str) -> Vec<u8> {
    let are_hex =
        |hex: Option<&str>| hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let mut letters = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let escape = match c {
            '%' if are_hex(rest.get(1..3)) => 3,
            '\\' if rest[1..].starts_with('u') && are_hex(rest.get(2..6)) => 6,
            '\\' if rest.is_char_boundary(2) => 2,
            _ => 0,
        };
        if escape == 0 && c.is_alphanumeric() {
            letters.extend(c.to_lowercase());
        }
        rest = &rest[escape.max(c.len_utf8())..];
    }
    letters.into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn echo_filter(payload: &str, secret: &str) -> EchoFilter {
        EchoFilter {
            payload: payload.to_owned().into(),
            secrets: vec![SecretString::from(secret.to_owned())],
        }
    }

    #[test]
    fn ordinary_reasons_are_kept() {
        let filter = echo_filter(
            "{\"type\":\"order\",\"text\":\"Your order is on its way, thank you\"}",
            "5CFd2fd1755d40ecb72977518be15d3b",
        );
        for text in [
            "",
            "API rate limit exceeded",
            "Invalid authentication credentials",
            "the order of parameters is wrong: destination is missing",
            "request 0f3c2a4e-9d0b-4c7e-8a51-2b6f4d1e9c33 failed",
            "100% of C:\\new are wrong",
            "50%é \\é \\",
        ] {
            assert!(filter.allows_reason(text), "{text}");
        }
        assert!(echo_filter("ok", "abc").allows_reason("token abc is not ok"));
    }

    #[test]
    fn a_short_payload_or_secret_is_found_as_a_whole() {
        let filter = echo_filter("47-11", "tiger");
        for text in ["wrong payload \"4711\"", "47%2d11", "key Tiger?"] {
            assert!(!filter.allows_reason(text), "{text}");
        }
    }

    #[test]
    fn a_long_word_is_an_id_and_no_reason() {
        let filter = EchoFilter::default();
        let encoded = STANDARD.encode("x".repeat(31));
        assert!(!filter.allows_reason(&format!("can't take {encoded}.")));
        assert!(filter.allows_id(&encoded));
        assert!(filter.allows_reason(&"x".repeat(MAX_WORD)));
    }

    proptest! {
        #[test]
        fn a_run_is_found_however_its_punctuation_is_escaped(
            piece in "[A-Za-z0-9 \"',;:{}/-]{40,80}", secret in "[A-Za-z0-9]{8,30}", before in "[a-z ]{0,20}",
        ) {
            prop_assume!(letters(&piece).len() >= PAYLOAD_RUN);
            let filter = echo_filter(&format!("x{piece}y"), &format!("-{secret}-"));
            let json = |text: &str| serde_json::to_string(text).expect("JSON");
            let ascii = piece.replace('"', "\\u0022").replace(' ', "\\u0020");
            let percent = utf8_percent_encode(&piece, NON_ALPHANUMERIC).to_string();
            for echo in [piece.clone(), json(&piece), json(&json(&piece)), ascii, percent, piece.to_uppercase(), secret] {
                let text = format!("{before} {echo} and so on");
                prop_assert!(!filter.allows_reason(&text), "{}", text);
            }
        }

        #[test]
        fn only_a_run_that_is_long_enough_counts(payload in "[a-m]{15,90}", text in "[a-m]{15,90}") {
            let runs: HashSet<&[u8]> = payload.as_bytes().windows(PAYLOAD_RUN.min(payload.len())).collect();
            let is_shared = text.as_bytes().windows(PAYLOAD_RUN.min(payload.len())).any(|run| runs.contains(run));
            prop_assert_eq!(echo_filter(&payload, "!!!!!!!!").allows_id(&text), !is_shared);
        }
    }
}
