//! Unique texts, and a search for them in every encoding that an output might have.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A text that no output may contain, with a name for the error.
#[derive(Clone)]
pub(super) struct Marker {
    pub(super) name: &'static str,
    pub(super) text: String,
}

pub(super) fn marker(name: &'static str, text: impl Into<String>) -> Marker {
    let text = text.into();
    Marker { name, text }
}

/// The encodings of a text. Of base64, only the part that does not depend on the neighbours.
fn forms(text: &str) -> Vec<String> {
    let json = serde_json::to_string(text).expect("JSON");
    let inner = json.trim_matches('"').to_owned();
    let twice = serde_json::to_string(&inner).expect("JSON");
    let ascii = inner.chars().fold(String::new(), |ascii, c| {
        if c.is_ascii() {
            return ascii + &c.to_string();
        }
        c.encode_utf16(&mut [0; 2])
            .iter()
            .fold(ascii, |ascii, unit| ascii + &format!("\\u{unit:04x}"))
    });
    let mut forms = vec![
        text.to_owned(),
        twice.trim_matches('"').to_owned(),
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(),
        ascii,
        format!("{text:?}").trim_matches('"').to_owned(),
    ];
    for before in ["", "x", "xx"] {
        for text in [text, &inner] {
            let whole = format!("{before}{text}");
            for encoded in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                // The first letters and the last ones depend on the neighbours.
                let encoded = encoded.trim_end_matches('=');
                forms.push(encoded[4..encoded.len() - 2].to_owned());
            }
        }
    }
    forms.push(inner);
    forms
}

/// The first marker in a text, in any encoding, with its line.
pub(super) fn shown<'a>(text: &'a str, markers: &'a [Marker]) -> Option<(&'static str, &'a str)> {
    markers.iter().find_map(|marker| {
        let form = forms(&marker.text)
            .into_iter()
            .find(|form| text.contains(form.as_str()))?;
        let line = text.lines().find(|line| line.contains(form.as_str()));
        Some((marker.name, line.unwrap_or("over several lines")))
    })
}

pub(super) fn assert_silent(place: &str, text: &str, markers: &[Marker]) {
    if let Some((name, line)) = shown(text, markers) {
        panic!("{place} shows {name}: {line}");
    }
}

#[test]
fn a_marker_is_found_in_every_form() {
    let secret = "Zx-\"quote\"-Löwe-9182736455";
    let markers = [marker("the secret", secret)];
    let json = serde_json::to_string(secret).expect("JSON");
    for text in [
        format!("error: {secret}"),
        json.clone(),
        serde_json::to_string(&json).expect("JSON"),
        json.replace('ö', "\\u00f6"),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        STANDARD.encode(format!("user:{secret}")),
        STANDARD.encode(format!("{secret}:more")),
        URL_SAFE_NO_PAD.encode(format!("u:{secret}")),
        STANDARD.encode(format!("{{\"payload\":{json}}}")),
        format!("{secret:?}"),
    ] {
        assert!(shown(&text, &markers).is_some(), "{text}");
    }
    assert!(shown("error: something else", &markers).is_none());
}
