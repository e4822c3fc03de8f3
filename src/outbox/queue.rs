//! The worker's protocol: each operation calls the function of the same name in `migrations/functions/`.

mod claim;
mod lane;
mod record;

pub(crate) use claim::*;
pub(crate) use lane::*;
pub(crate) use record::*;
