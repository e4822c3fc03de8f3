//! Connections to both sides: encrypted, through a pooler, and never more than promised.

mod abandoned;
mod aging;
mod api_proxy;
mod api_reuse;
mod api_tls;
mod bound;
mod database_refused;
mod database_tls;
mod far;
mod hosts;
mod rotation;
