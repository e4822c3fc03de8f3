//! The Agora Signaling 1.x Messaging REST API, as far as the worker uses it: the request, its authentication, one call on a
//! connection that is ready before its slot, and the response as it came. [`crate::outcome`] decides what a response means.

mod base_url;
mod client;
mod connection_pool;
mod credentials;
mod echo_filter;
mod hosts;
mod request;
pub(crate) mod response;
mod token;

pub(crate) use base_url::{BaseUrl, DEFAULT_BASE_URL};
pub(crate) use client::{Client, SignedRequest};
pub(crate) use connection_pool::{Connection, ConnectionPool};
pub(crate) use credentials::{CredentialError, Credentials, TokenHeaders};
pub(crate) use echo_filter::EchoFilter;
pub(crate) use response::{CallFailure, Response, ResponseBody};
