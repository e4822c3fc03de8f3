//! The Agora Signaling 1.x Messaging REST API, as far as this worker speaks it: the request, signing in, one call
//! on a connection that is ready before its slot, and the answer as it came. What an answer means is decided in
//! [`crate::outcome`].

mod answer;
mod client;
mod connections;
mod credentials;
mod request;
pub mod token;

pub use answer::{Answer, AnswerBody, CallFailure, RetryAfter};
pub use client::{Client, ClientSettings, InvalidClient, SignedRequest};
pub use connections::Connection;
pub use credentials::{CredentialError, Credentials, TokenCache, TokenHeaders};
pub use request::{ApiRequest, BaseUrl, InvalidBaseUrl};
