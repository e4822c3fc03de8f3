//! The schema: its migrations and functions, and the privileges of roles in it.

mod functions;
mod grant;
mod migrate;
mod migrations;
mod privileges;
mod version;

pub(crate) use grant::RoleName;
pub(crate) use privileges::RoleKind;
pub(crate) use version::{SchemaError, SchemaVersion};
