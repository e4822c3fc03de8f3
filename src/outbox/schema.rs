//! The schema: its migrations and functions, and the privileges of roles in it.

mod functions;
mod grant;
mod migrate;
mod privileges;

pub(crate) use grant::RoleName;
pub(crate) use migrate::{SchemaError, SchemaVersion};
pub(crate) use privileges::RoleKind;
