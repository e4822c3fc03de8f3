//! The schema: migrations, functions, and privileges of roles.

mod functions;
mod migrate;
mod objects;
mod privileges;
mod version;

pub(crate) use objects::{Damage, Migrated, ObjectKind, SchemaObject, list_names};
pub(crate) use privileges::RoleKind;
pub(crate) use version::SchemaError;
