//! The request of one call.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::BaseUrl;
use crate::message::{Message, Payload, Target};

/// Everything but the unreserved characters (RFC 3986, section 2.3) is percent-encoded in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What one call asks for, apart from where it goes and how it signs in. It does not print.
pub(crate) struct ApiRequest {
    path_and_query: String,
    body: Vec<u8>,
    payload: Payload,
}

#[derive(Serialize)]
struct PeerBody<'a> {
    destination: &'a str,
    enable_offline_messaging: bool,
    enable_historical_messaging: bool,
    payload: &'a str,
}

#[derive(Serialize)]
struct ChannelBody<'a> {
    channel_name: &'a str,
    enable_historical_messaging: bool,
    payload: &'a str,
}

/// What stands around a payload.
const USUAL_FRAME_BYTES: usize = 256;

/// A body as JSON. A buffer that grows as it is written has up to twice the size in the end, and there may be a
/// thousand of them.
fn json(payload: &str, body: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = Vec::with_capacity(payload.len() + USUAL_FRAME_BYTES);
    serde_json::to_writer(&mut json, body)?;
    Ok(json)
}

impl ApiRequest {
    /// The request for a message of the app with this app ID.
    ///
    /// # Errors
    /// Where serde can't write the body: never, for a message that exists.
    pub(crate) fn new(app_id: &str, message: &Message) -> Result<Self, serde_json::Error> {
        let app_id = utf8_percent_encode(app_id, SEGMENT);
        let sender = utf8_percent_encode(message.sender.as_str(), SEGMENT);
        let users = format!("/dev/v2/project/{app_id}/rtm/users/{sender}");
        let payload = message.payload.as_str();
        let enable_historical_messaging = message.enable_historical_messaging;
        Ok(match &message.target {
            Target::Peer {
                destination,
                wait_for_ack,
                enable_offline_messaging,
            } => Self {
                path_and_query: format!("{users}/peer_messages?wait_for_ack={wait_for_ack}"),
                body: json(
                    payload,
                    &PeerBody {
                        destination: destination.as_str(),
                        enable_offline_messaging: *enable_offline_messaging,
                        enable_historical_messaging,
                        payload,
                    },
                )?,
                payload: message.payload.clone(),
            },
            Target::Channel { name } => Self {
                path_and_query: format!("{users}/channel_messages"),
                body: json(
                    payload,
                    &ChannelBody {
                        channel_name: name.as_str(),
                        enable_historical_messaging,
                        payload,
                    },
                )?,
                payload: message.payload.clone(),
            },
        })
    }

    pub(super) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The request's target at a base URL, and its body.
    pub(super) fn into_parts(self, base: &BaseUrl) -> (String, Vec<u8>) {
        (
            format!("{}{}", base.path_prefix(), self.path_and_query),
            self.body,
        )
    }
}

#[cfg(test)]
mod tests {
    use hyper::Uri;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;
    use crate::message::{ChannelName, Payload, UserId};

    fn peer(sender: &str) -> Message {
        Message {
            sender: UserId::sender(sender).expect("a sender"),
            target: Target::Peer {
                destination: UserId::destination("userB").expect("a destination"),
                wait_for_ack: true,
                enable_offline_messaging: false,
            },
            payload: Payload::new("Hello").expect("a payload"),
            enable_historical_messaging: false,
        }
    }

    #[test]
    fn a_peer_message_is_the_request_of_the_apis_example() {
        let base = BaseUrl::parse("https://api.agora.io").expect("a URL");
        let request =
            ApiRequest::new("876922cbca0098dff4323566daa89675", &peer("userA")).expect("a request");
        let (target, body) = request.into_parts(&base);
        assert_eq!(
            target,
            "/dev/v2/project/876922cbca0098dff4323566daa89675/rtm/users/userA/peer_messages?wait_for_ack=true"
        );
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"destination":"userB","enable_offline_messaging":false,"enable_historical_messaging":false,"payload":"Hello"}"#
        );
    }

    #[test]
    fn a_channel_message_is_the_request_of_the_apis_example() {
        let base = BaseUrl::parse("http://localhost:8080/gateway/").expect("a URL");
        let message = Message {
            target: Target::Channel {
                name: ChannelName::new("channelA").expect("a name"),
            },
            ..peer("a b+#?%")
        };
        let (target, body) = ApiRequest::new("id", &message)
            .expect("a request")
            .into_parts(&base);
        assert_eq!(
            target,
            "/gateway/dev/v2/project/id/rtm/users/a%20b%2B%23%3F%25/channel_messages"
        );
        assert_eq!(
            String::from_utf8(body).expect("text"),
            r#"{"channel_name":"channelA","enable_historical_messaging":false,"payload":"Hello"}"#
        );
    }

    proptest! {
        #[test]
        fn every_sender_is_one_path_segment_that_decodes_to_itself(
            sender in "[a-zA-Z0-9!#$%&()+:;<=>?@\\[\\]^_{}|~,'-][ a-zA-Z0-9!#$%&()+:;<=.>?@\\[\\]^_{}|~,'-]{0,62}[a-zA-Z0-9%?#/]?"
                .prop_filter("allowed", |sender| UserId::sender(sender.as_str()).is_ok())
        ) {
            let request = ApiRequest::new("id", &peer(&sender)).expect("a request");
            let segments: Vec<_> = request.path_and_query.split('?').next().expect("a path").split('/').collect();
            prop_assert_eq!(segments.len(), 9);
            prop_assert_eq!(percent_decode_str(segments[7]).decode_utf8().expect("text"), sender);
            prop_assert!(request.path_and_query.parse::<Uri>().is_ok());
        }
    }
}
