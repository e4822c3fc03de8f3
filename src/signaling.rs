//! The Agora Signaling 1.x Messaging REST API, as far as this worker speaks it: the request, signing in, one call
//! on a connection that is ready before its slot, and the response as it came. What a response means is decided in
//! [`crate::outcome`].

mod base_url;
mod client;
mod connection_age;
mod connection_pool;
mod credentials;
mod echo_filter;
mod host_choice;
mod hosts;
mod request;
pub(crate) mod response;
pub(crate) mod token;

pub(crate) use base_url::{BaseUrl, DEFAULT_BASE_URL, InvalidBaseUrl};
pub(crate) use client::tls_config;
pub(crate) use client::{Client, ClientSettings, InvalidClient, SignedRequest};
pub(crate) use connection_pool::Connection;
pub(crate) use credentials::{
    Authenticator, CredentialError, Credentials, TokenCache, TokenHeaders,
};
pub(crate) use echo_filter::EchoFilter;
pub(crate) use hosts::TriedHost;
pub(crate) use request::ApiRequest;
pub(crate) use response::{CallFailure, Response, ResponseBody, RetryAfter};
