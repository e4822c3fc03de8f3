//! Reads messages as JSON lines, for `worker enqueue`.

use std::io::BufRead;

use crate::message::{MAX_PAYLOAD_BYTES, NewMessage};
use crate::sanitize;

/// Blank lines count, so that an endless input of them ends, too.
const MAX_LINES: usize = 1_000_000;
/// The messages stay in memory until the transaction ends.
const MAX_INPUT_BYTES: usize = 512 * 1024 * 1024;
/// A payload with every byte escaped, and the rest of the message.
const MAX_LINE_BYTES: u64 = 6 * MAX_PAYLOAD_BYTES as u64 + 8 * 1024;

/// Names the line, and never quotes its content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidLines {
    #[error("standard input can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("line {line}: {mistake}: none was inserted")]
    NotAMessage { line: usize, mistake: String },
    #[error(
        "more than {MAX_LINES} lines or {} MiB: insert the messages in several calls",
        MAX_INPUT_BYTES / 1024 / 1024
    )]
    TooMuch,
}

/// One JSON object a line, with columns as keys. Skips blank lines.
pub(crate) fn read_json_lines(input: impl BufRead) -> Result<Vec<NewMessage>, InvalidLines> {
    read_within(input, MAX_INPUT_BYTES)
}

fn read_within(
    mut input: impl BufRead,
    max_input_bytes: usize,
) -> Result<Vec<NewMessage>, InvalidLines> {
    let mut messages = Vec::new();
    let mut bytes = Vec::new();
    let mut total_bytes = 0_usize;
    for line in 1.. {
        bytes.clear();
        let mut bounded = std::io::Read::take(&mut input, MAX_LINE_BYTES + 1);
        let read = bounded.read_until(b'\n', &mut bytes)?;
        if read == 0 {
            break;
        }
        total_bytes = total_bytes.saturating_add(read);
        if total_bytes > max_input_bytes || line > MAX_LINES {
            return Err(InvalidLines::TooMuch);
        }
        if !bytes.trim_ascii().is_empty() {
            let message = parse(&bytes);
            messages.push(message.map_err(|mistake| InvalidLines::NotAMessage { line, mistake })?);
        }
    }
    Ok(messages)
}

fn parse(line: &[u8]) -> Result<NewMessage, String> {
    if line.len() as u64 > MAX_LINE_BYTES {
        return Err("longer than any message can be".into());
    }
    let message: NewMessage = serde_json::from_slice(line)
        .map_err(|error| sanitize::redact_values(&error.to_string()))?;
    message.check().map_err(|error| error.to_string())?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    fn mistake(input: impl Read) -> String {
        read_json_lines(BufReader::new(input))
            .expect_err("a mistake")
            .to_string()
    }

    #[test]
    fn an_error_names_the_line() {
        let input = "{\"sender\":\"a\",\"destination\":\"b\",\"payload\":\"x\"}\n\n{\"sender\":\"a\",\"payload\":\"x\"}\n";
        let error = mistake(input.as_bytes());
        assert!(
            error.starts_with("line 3: exactly one of destination and channel_name"),
            "{error}"
        );
        assert!(mistake("nonsense".as_bytes()).starts_with("line 1: "));
    }

    #[test]
    fn a_time_out_of_range_is_an_error_of_its_line() {
        for (column, time) in [
            ("due_at", "9999-12-31T23:59:59-05:00"),
            ("expires_at", "0000-01-01T00:00:00Z"),
        ] {
            let line =
                format!(r#"{{"sender":"a","destination":"b","payload":"x","{column}":"{time}"}}"#);
            let error = mistake(line.as_bytes());
            let expected = format!("line 1: {column} is before year 1 or after year 9999");
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn an_error_does_not_quote_the_line() {
        for line in [
            r#"{"payload": 47114711}"#,
            r#"{"wait_for_ack": "47114711"}"#,
            r#"{"wait_for_ack": "47114711, expected 4711"}"#,
            r#"{"4711": 1}"#,
            r#"{"sender": "a", "due_at": "4711"}"#,
            r#"{"sender": "a", "payload": "4711"#,
            r#""4711""#,
            "4711",
        ] {
            let error = mistake(line.as_bytes());
            assert!(!error.contains("4711"), "{line}: {error}");
        }
    }

    #[test]
    fn lines_and_inputs_are_bounded() {
        assert!(mistake(std::io::repeat(b'x')).contains("longer"));
        assert!(mistake(std::io::repeat(b'\n')).contains("1000000 lines"));
        let line = "{\"sender\":\"a\",\"destination\":\"b\",\"payload\":\"x\"}\n";
        let two = line.repeat(2);
        assert!(read_within(two.as_bytes(), two.len()).is_ok());
        let error = read_within(two.as_bytes(), two.len() - 1).expect_err("too much");
        assert!(error.to_string().contains("512 MiB"));
    }
}
