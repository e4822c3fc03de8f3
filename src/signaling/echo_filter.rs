//! Detects responses that repeat the payload or the secrets of their own request.
//!
//! Some gateways repeat in an error what they were sent. What a response says would get into the outbox, the lane's row
//! and the log, where neither belongs. So each text of a response is checked against its request before it is kept, and
//! a text that repeats a longer piece of it is given up as a whole. Looked through are the text as it is and what is
//! in it as JSON escapes, percent-encoding and base64, also one in another.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::message::Payload;

/// Bytes of a payload in a row that are no chance any more: fewer than that may be words of both.
const PAYLOAD_RUN: usize = 16;
/// Bytes of a secret in a row that are too many.
const SECRET_RUN: usize = 8;
/// What is shorter can't be told from ordinary text.
const SHORTEST: usize = 4;
/// Encodings within encodings that are looked through.
const MAX_DEPTH: u32 = 2;
/// Letters in a row that may be base64.
const SHORTEST_BASE64: usize = 6;

/// The payload and the secrets of a request. Prints neither.
#[derive(Clone, Default)]
pub(crate) struct EchoFilter {
    payload: Option<Payload>,
    secrets: Vec<SecretString>,
}

impl EchoFilter {
    /// What the response to a request with this payload, signed in with these secrets, may not repeat.
    pub(crate) fn new(payload: Payload, secrets: Vec<SecretString>) -> Self {
        Self {
            payload: Some(payload),
            secrets,
        }
    }

    /// Whether a text repeats 16 bytes in a row of the payload, 8 of a secret, or the whole of one that is shorter.
    /// What has less than 4 bytes does not count. Control characters don't either: they are not kept anyway.
    pub(crate) fn is_echoed_in(&self, text: &str) -> bool {
        if text.len() < SHORTEST {
            return false;
        }
        let mut views = Vec::new();
        contains_echo(text.as_bytes(), MAX_DEPTH, &mut views);
        let seen = Windows::of(&views);
        self.secrets
            .iter()
            .any(|secret| seen.repeat(secret.expose_secret(), SECRET_RUN))
            || self
                .payload
                .as_ref()
                .is_some_and(|payload| seen.repeat(payload.as_str(), PAYLOAD_RUN))
    }
}

impl fmt::Debug for EchoFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EchoFilter(***)")
    }
}

/// Bytes that are looked up at once; a block of a longer run.
const WINDOW: usize = 8;

/// What is in a text, read in each way, and where to find it quickly.
struct Windows<'a> {
    views: &'a [Vec<u8>],
    windows: HashSet<&'a [u8]>,
}

impl<'a> Windows<'a> {
    fn of(views: &'a [Vec<u8>]) -> Self {
        let windows = views.iter().flat_map(|view| view.windows(WINDOW)).collect();
        Self { views, windows }
    }

    /// Whether the text has `run` bytes of `hidden` in a row, or all of it where it is shorter.
    fn repeat(&self, hidden: &str, run: usize) -> bool {
        let hidden = without_controls(hidden.as_bytes());
        if hidden.len() < SHORTEST {
            return false;
        }
        if hidden.len() < run {
            return self.views.iter().any(|view| has_word(view, &hidden));
        }
        // A run has a whole window at one of every so many places.
        let stride = run - WINDOW + 1;
        (0..=hidden.len() - WINDOW).step_by(stride).any(|at| {
            self.windows.contains(&hidden[at..at + WINDOW])
                && self
                    .views
                    .iter()
                    .any(|view| longest_run(view, &hidden, at) >= run)
        })
    }
}

/// The longest common run of both that has the window at `at` in it.
fn longest_run(view: &[u8], hidden: &[u8], at: usize) -> usize {
    let window = &hidden[at..at + WINDOW];
    view.windows(WINDOW)
        .enumerate()
        .filter(|(_, seen)| *seen == window)
        .map(|(place, _)| {
            let before = view[..place]
                .iter()
                .rev()
                .zip(hidden[..at].iter().rev())
                .take_while(|(a, b)| a == b)
                .count();
            let after = view[place..]
                .iter()
                .zip(&hidden[at..])
                .take_while(|(a, b)| a == b)
                .count();
            before + after
        })
        .max()
        .unwrap_or(0)
}

/// Whether `word` stands in `view`, and not within a longer word.
fn has_word(view: &[u8], word: &[u8]) -> bool {
    let is_inner = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    view.windows(word.len()).enumerate().any(|(place, seen)| {
        seen == word
            && !(place > 0 && is_inner(view.get(place - 1)))
            && !is_inner(view.get(place + word.len()))
    })
}

fn without_controls(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.iter().any(u8::is_ascii_control) {
        let kept = bytes.iter().copied().filter(|b| !b.is_ascii_control());
        Cow::Owned(kept.collect())
    } else {
        Cow::Borrowed(bytes)
    }
}

/// Adds a text and what is encoded in it.
fn contains_echo(text: &[u8], depth: u32, views: &mut Vec<Vec<u8>>) {
    if depth > 0 {
        let decoded = [
            text.contains(&b'\\').then(|| json_unescaped(text)),
            text.contains(&b'%')
                .then(|| percent_encoding::percent_decode(text).collect()),
        ];
        for decoded in decoded.into_iter().flatten().chain(from_base64(text)) {
            contains_echo(&decoded, depth - 1, views);
        }
    }
    views.push(without_controls(text).into_owned());
}

fn json_unescaped(text: &[u8]) -> Vec<u8> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at + 2..at + 6)?).ok()?;
        (text[at..].starts_with(b"\\u")).then(|| u16::from_str_radix(digits, 16).ok())?
    };
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if let Some(first) = unit(at) {
            let pair = [first, unit(at + 6).unwrap_or_default()];
            if let Some(Ok(character)) = char::decode_utf16(pair).next() {
                plain.extend(character.encode_utf8(&mut [0; 4]).bytes());
                at += 6 * character.len_utf16();
            } else {
                at += 6;
            }
        } else if byte == b'\\' {
            match text.get(at + 1) {
                // Control characters are not looked at.
                Some(b'n' | b'r' | b't' | b'b' | b'f') | None => {}
                Some(&escaped) => plain.push(escaped),
            }
            at += 2;
        } else {
            plain.push(byte);
            at += 1;
        }
    }
    plain
}

/// What the words of a text are as base64, of either alphabet. A piece of a longer one may begin at any of four places.
fn from_base64(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let words: Vec<Vec<u8>> = text
        .split(|byte| sextet(*byte).is_none())
        .filter(|word| word.len() >= SHORTEST_BASE64)
        .map(|word| word.iter().filter_map(|byte| sextet(*byte)).collect())
        .collect();
    let count = if words.is_empty() { 0 } else { 4 };
    (0..count).map(move |skipped| {
        let mut plain = Vec::new();
        for word in &words {
            for group in word[skipped..].chunks(4) {
                let bits = group
                    .iter()
                    .fold(0, |bits, six| bits << 6 | u32::from(*six));
                let bytes = (bits << (6 * (4 - group.len()))).to_be_bytes();
                plain.extend(&bytes[1..group.len()]);
            }
            // No byte of UTF-8: words are not read as one.
            plain.push(0xff);
        }
        plain
    })
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn echo_filter(payload: &str, secret: &str) -> EchoFilter {
        EchoFilter::new(
            Payload::new(payload).expect("a payload"),
            vec![SecretString::from(secret.to_owned())],
        )
    }

    #[test]
    fn ordinary_words_of_an_answer_are_no_repetition() {
        let ours = echo_filter(
            "{\"type\":\"order\",\"text\":\"Your order is on its way, thank you\"}",
            "5CFd2fd1755d40ecb72977518be15d3b",
        );
        for text in [
            "",
            "API rate limit exceeded",
            "Invalid authentication credentials",
            "the order of parameters is wrong: destination is missing",
            "10116762670167749259",
            "0f3c2a4e-9d0b-4c7e-8a51-2b6f4d1e9c33",
            "100% of C:\\new are wrong",
        ] {
            assert!(!ours.is_echoed_in(text), "{text}");
        }
        // What is too short to be told from ordinary text does not count, and a word within a word neither.
        assert!(!echo_filter("ok", "abc").is_echoed_in("token abc is not ok"));
        assert!(!echo_filter("rate", "tent").is_echoed_in("operate on content"));
    }

    #[test]
    fn a_short_payload_or_secret_is_found_as_a_word() {
        let ours = echo_filter("4711", "tiger");
        for text in ["wrong payload \"4711\"", "4711", "NDcxMQ==", "key tiger?"] {
            assert!(ours.is_echoed_in(text), "{text}");
        }
    }

    /// What gateways may make of a text.
    fn encoded(text: &str) -> Vec<String> {
        let json = |text: &str| serde_json::to_string(text).expect("JSON");
        let ascii = text.encode_utf16().fold(String::new(), |ascii, unit| {
            ascii + &format!("\\u{unit:04x}")
        });
        let percent =
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string();
        vec![
            text.to_owned(),
            json(text),
            json(&json(text)),
            ascii,
            STANDARD.encode(text),
            STANDARD.encode(format!("x{text}")),
            URL_SAFE_NO_PAD.encode(format!("xy{}", json(text))),
            STANDARD.encode(&percent),
            percent,
        ]
    }

    proptest! {
        #[test]
        fn a_piece_is_found_wherever_it_is_from_and_however_it_is_written(
            payload in "\\PC{40,200}", secret in "[!-~]{8,64}", start in 0_usize..20, before in "[a-z ]{0,30}",
        ) {
            let ours = echo_filter(&payload, &secret);
            let piece: String = payload.chars().skip(start).take(16).collect();
            for piece in encoded(&piece).into_iter().chain(encoded(&secret)) {
                let text = format!("{before} {piece} and so on");
                prop_assert!(ours.is_echoed_in(&text), "{}", text);
            }
        }

        #[test]
        fn only_a_run_that_is_long_enough_counts(payload in "[a-m]{15,90}", text in "[a-m]{15,90}") {
            let has_run = text.as_bytes().windows(PAYLOAD_RUN).any(|run| payload.as_bytes().windows(PAYLOAD_RUN).any(|p| p == run));
            let is_short = payload.len() < PAYLOAD_RUN && text == payload;
            prop_assert_eq!(echo_filter(&payload, "!!!!!!!!").is_echoed_in(&text), has_run || is_short);
        }
    }
}
