//! Encodes a message as the path and the JSON body of the API's request. A sender is percent-encoded, so no sender can change
//! the path.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::message::Message;

/// A path segment keeps the unreserved characters (RFC 3986, section 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[derive(Serialize)]
struct Body<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_name: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'m str>,
    enable_historical_messaging: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    enable_offline_messaging: Option<bool>,
    payload: &'m str,
}

/// The size of a body without its payload.
const USUAL_FRAME_BYTES: usize = 256;

pub(super) fn path_and_body(app_id: &str, message: &Message) -> (String, Vec<u8>) {
    let app_id = utf8_percent_encode(app_id, SEGMENT);
    let sender = utf8_percent_encode(&message.sender, SEGMENT);
    let is_peer = message.destination.is_some();
    let body = Body {
        channel_name: message.channel_name.as_deref(),
        destination: message.destination.as_deref(),
        enable_historical_messaging: message.enable_historical_messaging,
        enable_offline_messaging: is_peer.then_some(message.enable_offline_messaging),
        payload: message.payload.as_str(),
    };
    // A buffer that grows would take up to twice the size of the body, for each of a thousand calls at once.
    let mut json = Vec::with_capacity(body.payload.len() + USUAL_FRAME_BYTES);
    // Can't fail, because JSON has a form for every text and boolean.
    serde_json::to_writer(&mut json, &body).ok();
    let kind = if is_peer {
        format!("peer_messages?wait_for_ack={}", message.wait_for_ack)
    } else {
        "channel_messages".to_owned()
    };
    let path = format!("/dev/v2/project/{app_id}/rtm/users/{sender}/{kind}");
    (path, json)
}

#[cfg(test)]
mod tests {
    use hyper::Uri;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn peer(sender: &str) -> Message {
        Message {
            sender: sender.to_owned(),
            destination: Some("userB".into()),
            payload: "Hello".to_owned().into(),
            wait_for_ack: true,
            ..Message::default()
        }
    }

    #[test]
    fn a_peer_message_is_the_request_of_the_apis_example() {
        let (path, body) = path_and_body("876922cbca0098dff4323566daa89675", &peer("userA"));
        assert_eq!(
            path,
            "/dev/v2/project/876922cbca0098dff4323566daa89675/rtm/users/userA/peer_messages?wait_for_ack=true"
        );
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"destination":"userB","enable_historical_messaging":false,"enable_offline_messaging":false,"payload":"Hello"}"#
        );
    }

    #[test]
    fn a_channel_message_is_the_request_of_the_apis_example() {
        let message = Message {
            destination: None,
            channel_name: Some("channelA".into()),
            ..peer("a b+#?%")
        };
        let (path, body) = path_and_body("id", &message);
        assert_eq!(
            path,
            "/dev/v2/project/id/rtm/users/a%20b%2B%23%3F%25/channel_messages"
        );
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"channel_name":"channelA","enable_historical_messaging":false,"payload":"Hello"}"#
        );
    }

    proptest! {
        #[test]
        fn every_sender_is_one_path_segment_that_decodes_to_itself(
            sender in "[a-zA-Z0-9!#$%&()+:;<=>?@\\[\\]^_{}|~,'-][ a-zA-Z0-9!#$%&()+:;<=.>?@\\[\\]^_{}|~,'-]{0,62}[a-zA-Z0-9%?#/]?"
        ) {
            let (path, _) = path_and_body("id", &peer(&sender));
            let segments: Vec<_> = path.split('?').next().expect("a path").split('/').collect();
            prop_assert_eq!(segments.len(), 9);
            prop_assert_eq!(percent_decode_str(segments[7]).decode_utf8().expect("text"), sender);
            prop_assert!(path.parse::<Uri>().is_ok());
        }
    }
}
