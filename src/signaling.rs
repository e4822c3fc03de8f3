//! The Agora Signaling 1.x Messaging REST API, as far as this worker speaks it: the request, signing in, one call
//! on a connection that is ready before its slot, and the response as it came. What a response means is decided in
//! [`crate::outcome`].

mod client;
mod connection_pool;
mod credentials;
mod echo_filter;
mod request;
mod response;
pub mod token;

pub(crate) use client::tls_config;
pub use client::{Client, ClientSettings, InvalidClient, SignedRequest};
pub use connection_pool::Connection;
pub use credentials::{Authenticator, CredentialError, Credentials, TokenCache, TokenHeaders};
pub use echo_filter::EchoFilter;
pub use request::{ApiRequest, BaseUrl, InvalidBaseUrl};
pub use response::{
    CallFailure, MAX_REASON_CHARS, MAX_REQUEST_ID_CHARS, Response, ResponseBody, RetryAfter,
};
