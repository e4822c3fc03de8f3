//! The Agora Signaling 1.x Messaging REST API, as far as this worker speaks it: the request, signing in, one call
//! on a connection that is ready before its slot, and the answer as it came. What an answer means is decided in
//! [`crate::outcome`].

mod answer;
mod client;
mod confidential;
mod connections;
mod credentials;
mod request;
pub mod token;

pub use answer::{
    Answer, AnswerBody, CallFailure, MAX_REASON_CHARS, MAX_REQUEST_ID_CHARS, RetryAfter,
};
pub(crate) use client::tls_config;
pub use client::{Client, ClientSettings, InvalidClient, SignedRequest};
pub use confidential::Confidential;
pub use connections::Connection;
pub use credentials::{CredentialError, Credentials, SignIn, TokenCache, TokenHeaders};
pub use request::{ApiRequest, BaseUrl, InvalidBaseUrl};
