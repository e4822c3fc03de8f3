//! The request of one call.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::message::{Message, MessageOptions};

/// A path segment keeps the unreserved characters (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enable_offline_messaging: Option<bool>,
    enable_historical_messaging: bool,
    payload: &'a str,
}

/// The size of a body without its payload.
const USUAL_FRAME_BYTES: usize = 256;

/// The path with the query, and the body as JSON. serde writes the body of every valid message.
pub(super) fn path_and_body(
    app_id: &str,
    message: &Message,
) -> Result<(String, Vec<u8>), serde_json::Error> {
    let app_id = utf8_percent_encode(app_id, SEGMENT);
    let sender = utf8_percent_encode(message.sender.as_str(), SEGMENT);
    let payload = message.payload.as_str();
    let is_peer = message.target.destination().is_some();
    let MessageOptions {
        wait_for_ack,
        enable_offline_messaging,
        enable_historical_messaging,
    } = message.options;
    let body = Body {
        destination: message.target.destination(),
        channel_name: message.target.channel_name(),
        enable_offline_messaging: is_peer.then_some(enable_offline_messaging),
        enable_historical_messaging,
        payload,
    };
    let kind = if is_peer {
        format!("peer_messages?wait_for_ack={wait_for_ack}")
    } else {
        "channel_messages".to_owned()
    };
    // A buffer that grows would end with up to twice the size of the body, a thousand times at once.
    let mut json = Vec::with_capacity(payload.len() + USUAL_FRAME_BYTES);
    serde_json::to_writer(&mut json, &body)?;
    let path = format!("/dev/v2/project/{app_id}/rtm/users/{sender}/{kind}");
    Ok((path, json))
}

#[cfg(test)]
mod tests {
    use hyper::Uri;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;
    use crate::message::{Name, Payload, Target};

    fn peer(sender: &str) -> Message {
        Message {
            sender: Name::sender(sender).expect("a sender"),
            target: Target::peer("userB").expect("a destination"),
            payload: Payload::new("Hello").expect("a payload"),
            options: MessageOptions {
                wait_for_ack: true,
                ..MessageOptions::default()
            },
        }
    }

    fn request(app_id: &str, message: &Message) -> (String, String) {
        let (path, body) = path_and_body(app_id, message).expect("a request");
        (path, String::from_utf8(body).expect("text"))
    }

    #[test]
    fn a_peer_message_is_the_request_of_the_apis_example() {
        let (path, body) = request("876922cbca0098dff4323566daa89675", &peer("userA"));
        assert_eq!(
            path,
            "/dev/v2/project/876922cbca0098dff4323566daa89675/rtm/users/userA/peer_messages?wait_for_ack=true"
        );
        assert_eq!(
            body,
            r#"{"destination":"userB","enable_offline_messaging":false,"enable_historical_messaging":false,"payload":"Hello"}"#
        );
    }

    #[test]
    fn a_channel_message_is_the_request_of_the_apis_example() {
        let message = Message {
            target: Target::channel("channelA").expect("a name"),
            options: MessageOptions::default(),
            ..peer("a b+#?%")
        };
        let (path, body) = request("id", &message);
        assert_eq!(
            path,
            "/dev/v2/project/id/rtm/users/a%20b%2B%23%3F%25/channel_messages"
        );
        assert_eq!(
            body,
            r#"{"channel_name":"channelA","enable_historical_messaging":false,"payload":"Hello"}"#
        );
    }

    proptest! {
        #[test]
        fn every_sender_is_one_path_segment_that_decodes_to_itself(
            sender in "[a-zA-Z0-9!#$%&()+:;<=>?@\\[\\]^_{}|~,'-][ a-zA-Z0-9!#$%&()+:;<=.>?@\\[\\]^_{}|~,'-]{0,62}[a-zA-Z0-9%?#/]?"
                .prop_filter("allowed", |sender| Name::sender(sender.as_str()).is_ok())
        ) {
            let (path, _) = request("id", &peer(&sender));
            let segments: Vec<_> = path.split('?').next().expect("a path").split('/').collect();
            prop_assert_eq!(segments.len(), 9);
            prop_assert_eq!(percent_decode_str(segments[7]).decode_utf8().expect("text"), sender);
            prop_assert!(path.parse::<Uri>().is_ok());
        }
    }
}
